import Glibc
import LinuxIO
import SystemFaults
import TestSupport
import Testing
import WireGuard

@Suite struct UDPFaultTests {
    func withSockets(_ body: (UDPSocket, UDPSocket, UnderlayPath) throws -> Void) throws {
        try inNamespace {
            let sender = try UDPSocket.bind(family: .v4, port: 0)
            let listener = try UDPSocket.bind(family: .v4, port: 0)
            try body(sender, listener, try UDPSocketTests.path("127.0.0.1", listener.port))
        }
    }

    @Test(arguments: [(EIO, false), (EINVAL, true), (EMSGSIZE, true)])
    func `a run that UDP_SEGMENT refuses goes out one by one, for good after EIO`(
        code: Int32, remains: Bool
    ) throws {
        try withSockets { sender, listener, path in
            var receiver = DatagramReceiver()
            let bytes = UDPSocketTests.pattern(9 * 1000 + 1)
            let fault = SystemFaults.Fault(code: code, control: SystemFaults.udpSegment)
            SystemFaults.with(fault, on: sender.fd) {
                for _ in 0..<2 {
                    #expect(UDPSocketTests.send(bytes, segmentSize: 1000, from: sender, to: path) == .sent)
                    let received = UDPSocketTests.receive(bytes.count, by: listener, into: &receiver)
                    #expect(received.segments.map(\.count) == [Int](repeating: 1000, count: 9) + [1])
                    #expect(received.segments.flatMap { $0 } == bytes)
                }
            }
            #expect(sender.offloads.gso == remains)
        }
    }

    @Test(arguments: [EAGAIN, ENOBUFS, ENOMEM])
    func `a full queue is waited for, but not for long`(code: Int32) throws {
        try withSockets { sender, listener, path in
            var receiver = DatagramReceiver()
            SystemFaults.with(.init(code: code, count: 2), on: sender.fd) {
                #expect(UDPSocketTests.send([1], from: sender, to: path) == .sent)
            }
            #expect(UDPSocketTests.receive(1, by: listener, into: &receiver).datagrams == [[1]])
            let plain = try UDPSocket.bind(family: .v4, port: 0, options: UDPSocketOptions(gso: false))
            let run = UDPSocketTests.pattern(64 * 1000)
            SystemFaults.with(.init(code: code), on: plain.fd) {
                let result = UDPSocketTests.send(run, segmentSize: 1000, from: plain, to: path)
                #expect(result == .failed(code))
                // Each is tried once, and after two waits, which is all that the whole run has, again.
                #expect(SystemFaults.hits(on: plain.fd) == 64 + 2)
            }
        }
    }

    @Test func `a call that a signal interrupts is made again`() throws {
        try withSockets { sender, listener, path in
            var receiver = DatagramReceiver()
            SystemFaults.with(.init(code: EINTR, count: 3), on: sender.fd) {
                #expect(UDPSocketTests.send([1], from: sender, to: path) == .sent)
            }
            SystemFaults.with(.init(code: EINTR, count: 3), on: listener.fd) {
                #expect(UDPSocketTests.receive(1, by: listener, into: &receiver).datagrams == [[1]])
            }
            #expect(receiver.errors == 0)
        }
    }

    @Test(arguments: [ENOMEM, ECONNREFUSED, EIO])
    func `an error on receive is counted and leaves nobody deaf`(code: Int32) throws {
        try withSockets { sender, listener, path in
            var receiver = DatagramReceiver()
            #expect(UDPSocketTests.send([1], from: sender, to: path) == .sent)
            SystemFaults.with(.init(code: code), on: listener.fd) {
                for _ in 0..<5 { #expect(receiver.receive(from: listener) == 0) }
            }
            #expect(receiver.errors == 5)
            #expect(UDPSocketTests.receive(1, by: listener, into: &receiver).datagrams == [[1]])
        }
    }

    @Test func `one bad datagram of a run does not keep the others back`() throws {
        try withSockets { sender, listener, path in
            var receiver = DatagramReceiver()
            let plain = try UDPSocket.bind(family: .v4, port: 0, options: UDPSocketOptions(gso: false))
            let bytes = UDPSocketTests.pattern(3000)
            SystemFaults.with(.init(code: EPERM, count: 1), on: plain.fd) {
                let result = UDPSocketTests.send(bytes, segmentSize: 1000, from: plain, to: path)
                #expect(result == .failed(EPERM))
            }
            let received = UDPSocketTests.receive(2000, by: listener, into: &receiver)
            #expect(received.datagrams.flatMap { $0 } == Array(bytes.dropFirst(1000)))
        }
    }
}
