import Glibc
import LinuxIO
import TestSupport
import Testing
import WireGuard

@Suite struct UDPSocketGroupTests {
    private typealias UDP = UDPSocketTests

    /// A transport message for a receiver index with this lowest byte.
    private func transport(_ lowest: UInt8, count: Int = 48) -> [UInt8] {
        [4, 0, 0, 0, lowest, 0xaa, 0xbb, 0xcc] + [UInt8](repeating: 7, count: count - 8)
    }

    private func path(to group: UDPSocketGroup, _ family: IPAddress.Family) throws -> UnderlayPath {
        try UDP.path(try #require(UDP.loopback[family]), group.port)
    }

    @Test(arguments: [IPAddress.Family.v4, .v6], [1, 2, 3, 64])
    func `data goes to the worker of its receiver index, and all else to the handshakes`(
        family: IPAddress.Family, workers: Int
    ) throws {
        try inNamespace {
            let group = try UDPSocketGroup.bind(port: 0, workers: workers)
            #expect(group.workers.count == workers)
            let sender = try UDPSocket.bind(family: family, port: 0)
            let to = try path(to: group, family)
            var expected = [[[UInt8]]](repeating: [], count: workers)
            for lowest in [0, 1, 2, 3, 62, 63, 64, 127, 128, 254, 255] as [UInt8] {
                let message = transport(lowest)
                expected[KeypairTable.worker(ofIndex: UInt32(lowest) | 0xccbb_aa00, among: workers)]
                    .append(message)
                #expect(UDP.send(message, from: sender, to: to) == .sent)
            }
            let others: [[UInt8]] = [
                [1, 0, 0, 0] + [UInt8](repeating: 5, count: 144),
                [2, 0, 0, 0] + [UInt8](repeating: 5, count: 88),
                [3, 0, 0, 0] + [UInt8](repeating: 5, count: 60), [4], [4, 0, 0, 0], [4, 1, 0, 0, 9, 9],
                [0xff],
            ]
            for message in others { #expect(UDP.send(message, from: sender, to: to) == .sent) }
            var receiver = DatagramReceiver()
            for (number, worker) in group.workers.enumerated() where !expected[number].isEmpty {
                let socket = try #require(worker.socket(for: family))
                let count = expected[number].map(\.count).reduce(0, +)
                let arrived = UDP.receive(count, by: socket, into: &receiver).segments
                #expect(arrived == expected[number], "worker \(number)")
            }
            let handshakes = try #require(group.handshakes?.socket(for: family))
            let count = others.map(\.count).reduce(0, +)
            #expect(UDP.receive(count, by: handshakes, into: &receiver).datagrams == others)
        }
    }

    @Test func `a handshake arrives at once where bulk data has filled its own socket`() throws {
        try inNamespace {
            let group = try UDPSocketGroup.bind(port: 0, workers: 1)
            let sender = try UDPSocket.bind(family: .v4, port: 0)
            let to = try path(to: group, .v4)
            let data = try #require(group.workers[0].v4)
            let bulk = transport(0, count: 1400)
            var sent = 0
            while data.queueFill < 0.9, sent < 100_000 {
                _ = UDP.send(bulk, from: sender, to: to)
                sent += 1
            }
            #expect(data.queueFill >= 0.9)
            let handshakes = try #require(group.handshakes?.v4)
            #expect(handshakes.queueFill == 0)
            let message: [UInt8] = [1, 0, 0, 0] + [UInt8](repeating: 5, count: 144)
            #expect(UDP.send(message, from: sender, to: to) == .sent)
            #expect(handshakes.queueFill > 0)
            var receiver = DatagramReceiver(bufferSize: 2048)
            #expect(UDP.receive(148, by: handshakes, into: &receiver).datagrams == [message])

            // What finds the buffer full is counted.
            sent = 0
            while data.queueDrops == 0, sent < 100_000 {
                _ = UDP.send(bulk, from: sender, to: to)
                sent += 1
            }
            #expect(data.queueDrops > 0 && group.queueDrops == data.queueDrops)
        }
    }

    @Test(arguments: [IPAddress.Family.v4, .v6])
    func `handshakes that the kernel joined are told apart`(family: IPAddress.Family) throws {
        try inNamespace {
            let group = try UDPSocketGroup.bind(port: 0, workers: 1)
            let sender = try UDPSocket.bind(family: family, port: 0)
            let messages = (1...5).map { number -> [UInt8] in
                [1, 0, 0, 0] + [UInt8](repeating: UInt8(number), count: 144)
            }
            // A keepalive behind them, shorter, ends the run and comes along.
            let last = transport(3, count: 32)
            let run = messages.flatMap { $0 } + last
            #expect(
                UDP.send(run, segmentSize: 148, from: sender, to: try path(to: group, family)) == .sent)
            let socket = try #require(group.handshakes?.socket(for: family))
            var poll = PollSet(socket.fd)
            #expect(poll.wait(timeout: .seconds(5)) > 0)
            var receiver = DatagramReceiver(capacity: 8)
            let count = receiver.receive(from: socket)
            #expect((0..<count).flatMap { receiver.segments($0) } == messages + [last])
            #expect(count == 1, "the kernel joined nothing, so nothing was told apart")
        }
    }

    @Test func `a port that another group has is refused, and free when that group is gone`() throws {
        try inNamespace {
            var port: UInt16 = 0
            do {
                let group = try UDPSocketGroup.bind(port: 0, workers: 2)
                port = group.port
                let error = systemError { () throws(SystemError) in
                    _ = try UDPSocketGroup.bind(port: port, workers: 2)
                }
                #expect(error?.code == EADDRINUSE)
                withExtendedLifetime(group) {}
            }
            #expect(eventually { (try? UDPSocketGroup.bind(port: port, workers: 3))?.port == port })
        }
    }
}
