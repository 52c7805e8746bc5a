import FoundationEssentials
import Glibc
import LinuxIO
import TestSupport
import Testing
import WireGuard

@Suite("Traffic class and DF of UDP sockets")
struct UDPClassTests {
    private struct Ends {
        let sender: UDPSocket
        let listener: UDPSocket
        let path: UnderlayPath

        init(_ family: IPAddress.Family, dontFragment: Bool = false) throws {
            var options = UDPSocketOptions()
            options.dontFragment = dontFragment
            sender = try UDPSocket.bind(family: family, port: 0, options: options)
            listener = try UDPSocket.bind(family: family, port: 0)
            let loopback = try #require(UDPSocketTests.loopback[family])
            path = try UDPSocketTests.path(loopback, listener.port)
        }
    }

    @Test(arguments: [IPAddress.Family.v4, .v6])
    func `the class that a datagram was sent with is told with it, and segments that differ in it come apart`(
        family: IPAddress.Family
    ) throws {
        try inNamespace {
            let ends = try Ends(family)
            var receiver = DatagramReceiver()
            let bytes = UDPSocketTests.pattern(3000)
            let classes: [UInt8] = [0, 0xba, 0x01, 0x03, 0x88]
            for tos in classes {
                let result = UDPSocketTests.send(
                    bytes, segmentSize: 1000, from: ends.sender, to: ends.path, tos: tos)
                #expect(result == .sent)
            }
            var seen: [UInt8] = []
            var poll = PollSet(ends.listener.fd)
            while seen.count < 15, poll.wait(timeout: .milliseconds(500)) > 0 {
                for i in 0..<receiver.receive(from: ends.listener) {
                    let count = receiver.segments(i).count
                    seen += [UInt8](repeating: receiver.tos(i), count: count)
                }
            }
            #expect(seen == classes.flatMap { [$0, $0, $0] })
        }
    }

    @Test(arguments: [IPAddress.Family.v4, .v6])
    func `with DF what the interface cannot take is refused, and without it goes in fragments`(
        family: IPAddress.Family
    ) throws {
        try inNamespace {
            try shell("ip link set lo mtu 1500")
            let ends = try Ends(family, dontFragment: true)
            var receiver = DatagramReceiver()
            let long = UDPSocketTests.pattern(1500)
            #expect(UDPSocketTests.send(long, from: ends.sender, to: ends.path) == .tooBig)
            try ends.sender.setDontFragment(false)
            #expect(UDPSocketTests.send(long, from: ends.sender, to: ends.path) == .sent)
            #expect(UDPSocketTests.receive(1500, by: ends.listener, into: &receiver).datagrams == [long])
            try ends.sender.setDontFragment(true)
            #expect(UDPSocketTests.send(long, from: ends.sender, to: ends.path) == .tooBig)
        }
    }

    @Test func `one datagram may go in fragments while the others go whole or not at all`() throws {
        try inNamespace {
            try shell("ip link set lo mtu 1300")
            let ends = try Ends(.v4, dontFragment: true)
            var receiver = DatagramReceiver()
            let bytes = UDPSocketTests.pattern(1340)
            for isOn in [true, false] {
                try ends.sender.setDontFragment(isOn)
                let before = try fragments()
                var waitsLeft = 0
                let result = unsafe bytes.withUnsafeBytes { bytes in
                    unsafe ends.sender.sendInFragments(
                        bytes.baseAddress!, count: bytes.count, to: ends.path, tos: 0,
                        waitsLeft: &waitsLeft)
                }
                #expect(result == .sent)
                let received = UDPSocketTests.receive(1340, by: ends.listener, into: &receiver)
                #expect(received.datagrams == [bytes])
                #expect(try fragments() == before + 2)
                // As it was before.
                let next = UDPSocketTests.send(bytes, from: ends.sender, to: ends.path)
                #expect(next == (isOn ? .tooBig : .sent))
                #expect(try fragments() == before + (isOn ? 2 : 4))
                _ = UDPSocketTests.receive(next == .sent ? 1340 : 0, by: ends.listener, into: &receiver)
            }
        }
    }

    /// Made in this thread's namespace so far.
    private func fragments() throws -> Int {
        let path = "/proc/thread-self/net/snmp"
        let text = try String(decoding: Data(contentsOf: URL(filePath: path)), as: UTF8.self)
        let lines = text.split(separator: "\n").map { $0.split(separator: " ") }.filter { $0.first == "Ip:" }
        let column = try #require(lines.first?.firstIndex(of: "FragCreates"))
        return try #require(lines.last.flatMap { Int($0[column]) })
    }

    @Test(arguments: [IPAddress.Family.v4, .v6])
    func `with DF a run is measured by its segments, and of those too long a short last one still goes`(
        family: IPAddress.Family
    ) throws {
        try inNamespace {
            try shell("ip link set lo mtu 1500")
            let ends = try Ends(family, dontFragment: true)
            var receiver = DatagramReceiver()
            let header = family == .v4 ? 28 : 48
            let run = UDPSocketTests.pattern(40 * (1500 - header))
            #expect(
                UDPSocketTests.send(run, segmentSize: 1500 - header, from: ends.sender, to: ends.path)
                    == .sent)
            let received = UDPSocketTests.receive(run.count, by: ends.listener, into: &receiver)
            #expect(received.datagrams.flatMap { $0 } == run)
            let long = UDPSocketTests.pattern(3 * 1500 + 70)
            #expect(
                UDPSocketTests.send(long, segmentSize: 1500, from: ends.sender, to: ends.path) == .tooBig)
            let rest = UDPSocketTests.receive(70, by: ends.listener, into: &receiver)
            #expect(rest.datagrams == [Array(long.suffix(70))])
            #expect(ends.sender.offloads.gso, "a path that is too narrow is no reason to give up GSO")
        }
    }

    @Test func `IPv4 packets have DF when asked to, each of a run`() throws {
        try inNamespace {
            let raw = socket(AF_INET, Int32(SOCK_RAW.rawValue), Int32(IPPROTO_UDP))
            try #require(raw >= 0)
            defer { close(raw) }
            let ends = try Ends(.v4)
            for isOn in [false, true] {
                try ends.sender.setDontFragment(isOn)
                let bytes = UDPSocketTests.pattern(2500)
                #expect(
                    UDPSocketTests.send(bytes, segmentSize: 1000, from: ends.sender, to: ends.path) == .sent)
                var packet = [UInt8](repeating: 0, count: 65_536)
                var packets = 0
                while true {
                    let count = unsafe recv(raw, &packet, packet.count, Int32(MSG_DONTWAIT))
                    guard count >= 20 else { break }
                    packets += 1
                    #expect((packet[6] & 0x40 != 0) == isOn)
                }
                #expect(packets > 0)
            }
        }
    }
}
