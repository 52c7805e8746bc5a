import Glibc
import LinuxIO
import SystemFaults
import TestSupport
import Testing
import WireGuard

@Suite struct UDPSocketTests {
    static let loopback: [IPAddress.Family: String] = [.v4: "127.0.0.1", .v6: "::1"]

    static func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    static func path(_ text: String, _ port: UInt16, source: String? = nil) throws -> UnderlayPath {
        let local = try source.map { LocalSource(address: try address($0), interface: 0) }
        return UnderlayPath(endpoint: Endpoint(address: try address(text), port: port), source: local)
    }

    static func send(
        _ bytes: [UInt8], segmentSize: Int = 0, from socket: UDPSocket, to path: UnderlayPath,
        tos: UInt8 = 0
    ) -> SendResult {
        unsafe bytes.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return .failed(EINVAL) }
            var waitsLeft = UDPSocket.queueWaits
            return unsafe socket.send(
                base, count: bytes.count, segmentSize: segmentSize, to: path, tos: tos,
                waitsLeft: &waitsLeft)
        }
    }

    struct Received: Equatable {
        var datagrams: [[UInt8]] = []
        var segmentSizes: [Int] = []
        var paths: [UnderlayPath] = []
        var truncated: [Bool] = []

        /// What the sender's datagrams were, however they were coalesced.
        var segments: [[UInt8]] {
            zip(datagrams, segmentSizes).flatMap { bytes, size in
                stride(from: 0, to: bytes.count, by: max(size, 1)).map {
                    Array(bytes[$0..<min($0 + size, bytes.count)])
                }
            }
        }
    }

    /// What arrives until `bytes` have, or nothing does for a while.
    static func receive(_ count: Int, by socket: UDPSocket, into receiver: inout DatagramReceiver) -> Received
    {
        var received = Received()
        var poll = PollSet(socket.fd)
        var total = 0
        while total < count, poll.wait(timeout: .milliseconds(500)) > 0 {
            for i in 0..<receiver.receive(from: socket) {
                received.datagrams.append(unsafe Array(receiver.bytes(i)))
                received.segmentSizes.append(receiver.segmentSize(i))
                received.paths.append(receiver.underlay(i))
                received.truncated.append(receiver.isTruncated(i))
                total += received.datagrams.last?.count ?? 0
            }
        }
        return received
    }

    static func pattern(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) }
    }

    @Test(arguments: [IPAddress.Family.v4, .v6], [true, false])
    func `a run of segments arrives whole, in order and with both addresses`(
        family: IPAddress.Family, offload: Bool
    ) throws {
        try inNamespace {
            let options = UDPSocketOptions(gso: offload, gro: offload)
            let sender = try UDPSocket.bind(family: family, port: 0, options: options)
            let listener = try UDPSocket.bind(family: family, port: 0, options: options)
            #expect(sender.offloads == .init(gso: offload, gro: offload))
            var receiver = DatagramReceiver()
            let loopback = try #require(Self.loopback[family])
            let bytes = Self.pattern(40 * 1420 + 500)
            let path = try Self.path(loopback, listener.port)
            #expect(Self.send(bytes, segmentSize: 1420, from: sender, to: path) == .sent)
            let received = Self.receive(bytes.count, by: listener, into: &receiver)
            #expect(received.datagrams.flatMap { $0 } == bytes)
            #expect(received.segments.map(\.count) == [Int](repeating: 1420, count: 40) + [500])
            if offload { #expect(received.datagrams.count < 41, "GRO coalesced nothing") }
            #expect(!received.truncated.contains(true))
            let local = try Self.address(loopback)
            for path in received.paths {
                #expect(path.endpoint == Endpoint(address: local, port: sender.port))
                #expect(path.source == LocalSource(address: local, interface: 1))
            }
            #expect(receiver.errors == 0)
        }
    }

    @Test(arguments: [("10.7.7.1/32", "10.7.7.2", IPAddress.Family.v4), ("fd07::1/128", "fd07::2", .v6)])
    func `packets leave from the sticky source, and without it once it is gone`(
        other: String, sticky: String, family: IPAddress.Family
    ) throws {
        try inNamespace {
            let width = family.width
            try shell("ip addr add \(other) dev lo nodad; ip addr add \(sticky)/\(width) dev lo nodad")
            let sender = try UDPSocket.bind(family: family, port: 0)
            let listener = try UDPSocket.bind(family: family, port: 0)
            var receiver = DatagramReceiver()
            let target = try #require(Self.loopback[family])
            let path = try Self.path(target, listener.port, source: sticky)
            let source = try Self.address(sticky)

            #expect(Self.send([1, 2, 3], from: sender, to: path) == .sent)
            var received = Self.receive(3, by: listener, into: &receiver)
            #expect(received.paths.map(\.endpoint.address) == [source])

            try shell("ip addr del \(sticky)/\(width) dev lo")
            let run = Self.pattern(5000)
            for (bytes, size) in [([4, 5, 6], 0), (run, 1000)] {
                #expect(Self.send(bytes, segmentSize: size, from: sender, to: path) == .sourceInvalid)
                received = Self.receive(bytes.count, by: listener, into: &receiver)
                #expect(received.datagrams.flatMap { $0 } == bytes)
                #expect(received.paths.allSatisfy { $0.endpoint.address != source })
            }
            #expect(sender.offloads.gso, "a lost source is no reason to give up GSO")
        }
    }

    @Test(arguments: [IPAddress.Family.v4, .v6])
    func `a datagram longer than the buffer is marked truncated, and the next is not`(
        family: IPAddress.Family
    ) throws {
        try inNamespace {
            let sender = try UDPSocket.bind(family: family, port: 0)
            let listener = try UDPSocket.bind(family: family, port: 0, options: UDPSocketOptions(gro: false))
            var receiver = DatagramReceiver(capacity: 4, bufferSize: 100)
            let path = try Self.path(try #require(Self.loopback[family]), listener.port)
            #expect(Self.send(Self.pattern(101), from: sender, to: path) == .sent)
            #expect(Self.send(Self.pattern(100), from: sender, to: path) == .sent)
            let received = Self.receive(200, by: listener, into: &receiver)
            #expect(received.datagrams == [Array(Self.pattern(100)), Self.pattern(100)])
            #expect(received.truncated == [true, false])
        }
    }

    @Test func `segments longer than the interface's MTU are sent as fragments`() throws {
        try inNamespace {
            try shell("ip link set lo mtu 1280")
            let sender = try UDPSocket.bind(family: .v4, port: 0)
            let listener = try UDPSocket.bind(family: .v4, port: 0)
            var receiver = DatagramReceiver()
            let bytes = Self.pattern(7 * 1420)
            let path = try Self.path("127.0.0.1", listener.port)
            #expect(Self.send(bytes, segmentSize: 1420, from: sender, to: path) == .sent)
            let received = Self.receive(bytes.count, by: listener, into: &receiver)
            #expect(received.segments.map(\.count) == [Int](repeating: 1420, count: 7))
            #expect(sender.offloads.gso, "the next path may have a larger MTU")
        }
    }

    @Test func `what cannot be sent is reported, and the socket works on`() throws {
        try inNamespace {
            let sender = try UDPSocket.bind(family: .v4, port: 0)
            let listener = try UDPSocket.bind(family: .v4, port: 0)
            var receiver = DatagramReceiver()
            let good = try Self.path("127.0.0.1", listener.port)
            let lost = try Self.path("192.0.2.1", 9)
            #expect(Self.send([1], from: sender, to: lost) == .failed(ENETUNREACH))
            #expect(Self.send([1], from: sender, to: try Self.path("::1", 9)) == .failed(EAFNOSUPPORT))
            #expect(Self.send([UInt8](repeating: 0, count: 65_508), from: sender, to: good) == .tooBig)
            try shell(
                "nft 'add table ip t; add chain ip t o { type filter hook output priority 0; policy drop; }'")
            #expect(Self.send([1], from: sender, to: good) == .failed(EPERM))
            try shell("nft flush ruleset")
            #expect(Self.send([1], from: sender, to: good) == .sent)
            #expect(Self.receive(1, by: listener, into: &receiver).datagrams == [[1]])
        }
    }

    @Test(arguments: [("127.0.0.1", IPAddress.Family.v4), ("::1", .v6)])
    func `the traffic class is on the packet`(target: String, family: IPAddress.Family) throws {
        try inNamespace {
            let table = family == .v4 ? "ip" : "ip6"
            try shell(
                "nft 'add table \(table) t; add chain \(table) t i { type filter hook input priority 0; }; "
                    + "add rule \(table) t i \(table) dscp != af41 drop'")
            let sender = try UDPSocket.bind(family: family, port: 0)
            let listener = try UDPSocket.bind(family: family, port: 0)
            var receiver = DatagramReceiver()
            let path = try Self.path(target, listener.port)
            #expect(Self.send([1], from: sender, to: path) == .sent)
            #expect(Self.send([2], from: sender, to: path, tos: 34 << 2) == .sent)
            #expect(Self.receive(1, by: listener, into: &receiver).datagrams == [[2]])
        }
    }

    @Test func `an ICMP error left by one peer keeps nothing from being received`() throws {
        try inNamespace {
            let socket = try UDPSocket.bind(family: .v4, port: 0)
            let other = try UDPSocket.bind(family: .v4, port: 0)
            var receiver = DatagramReceiver()
            // Without it Linux leaves no errors on a socket that is not connected.
            var on: Int32 = 1
            let receiveErrors: Int32 = 11  // IP_RECVERR
            #expect(unsafe setsockopt(socket.fd, Int32(IPPROTO_IP), receiveErrors, &on, 4) == 0)
            // Nobody listens on port 9: the kernel answers with port unreachable.
            _ = Self.send([0], from: socket, to: try Self.path("127.0.0.1", 9))
            var poll = PollSet(socket.fd)
            #expect(poll.wait(timeout: .seconds(5)) == 1, "no error was left")
            #expect(receiver.receive(from: socket) == 0)
            #expect(receiver.errors == 1)
            #expect(Self.send([7], from: other, to: try Self.path("127.0.0.1", socket.port)) == .sent)
            while receiver.receive(from: socket) == 0 {}
            #expect(unsafe Array(receiver.bytes(0)) == [7])
        }
    }

    @Test func `a pair has one port in both families, and a failed change leaves the old one working`() throws
    {
        try inNamespace {
            let pair = try UDPSocketPair.bind(port: 0)
            #expect(pair.v4?.port == pair.port)
            #expect(pair.v6?.port == pair.port)
            let taken = try UDPSocket.bind(family: .v6, port: 0)
            #expect(
                systemError { () throws(SystemError) in _ = try UDPSocketPair.bind(port: taken.port) }?.code
                    == EADDRINUSE)
            var receiver = DatagramReceiver()
            let (v4, v6) = (try #require(pair.v4), try #require(pair.v6))
            #expect(Self.send([4], from: v4, to: try Self.path("127.0.0.1", pair.port)) == .sent)
            #expect(Self.receive(1, by: v4, into: &receiver).datagrams == [[4]])
            #expect(Self.send([6], from: v6, to: try Self.path("::1", pair.port)) == .sent)
            #expect(Self.receive(1, by: v6, into: &receiver).datagrams == [[6]])
        }
    }

    @Test(arguments: [IPAddress.Family.v4, .v6])
    func `where the kernel lacks one family a pair has the other alone`(absent: IPAddress.Family) throws {
        try inNamespace {
            let pair = try SystemFaults.without(family: absent == .v4 ? AF_INET : AF_INET6) {
                try UDPSocketPair.bind(port: 0)
            }
            #expect(pair.socket(for: absent) == nil)
            let present: IPAddress.Family = absent == .v4 ? .v6 : .v4
            let socket = try #require(pair.socket(for: present))
            #expect(socket.port == pair.port && pair.port != 0)
            var receiver = DatagramReceiver()
            let path = try Self.path(try #require(Self.loopback[present]), pair.port)
            #expect(Self.send([1], from: socket, to: path) == .sent)
            #expect(Self.receive(1, by: socket, into: &receiver).datagrams == [[1]])
        }
    }

    @Test func `a link-local peer is reached and answered on its interface`() throws {
        try inNamespace {
            try shell("ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up")
            // The address is ours only once the kernel has noticed that the link has a carrier.
            try shell(
                "ip addr add fe80::7/64 dev d0 nodad; for i in $(seq 100); do "
                    + "ip -6 route show table local | grep -q 'fe80::7 dev d0' && exit 0; sleep 0.05; done; exit 1"
            )
            let index = try #require(try Netlink().link("d0")).index
            let sender = try UDPSocket.bind(family: .v6, port: 0)
            let listener = try UDPSocket.bind(family: .v6, port: 0)
            var receiver = DatagramReceiver()
            let local = try Self.address("fe80::7")
            let path = UnderlayPath(
                endpoint: Endpoint(address: local, port: listener.port, scope: index),
                source: LocalSource(address: local, interface: index))
            #expect(Self.send([1], from: sender, to: path) == .sent)
            let received = Self.receive(1, by: listener, into: &receiver)
            let back = try #require(received.paths.first)
            #expect(back.endpoint == Endpoint(address: local, port: sender.port, scope: index))
            #expect(Self.send([2], from: listener, to: back) == .sent)
            #expect(Self.receive(1, by: sender, into: &receiver).datagrams == [[2]])
        }
    }

    @Test func `the mark chooses the route`() throws {
        try inNamespace {
            try shell(
                "ip rule add pref 100 fwmark 7 unreachable; ip rule del table local; "
                    + "ip rule add pref 200 table local"
            )
            let sender = try UDPSocket.bind(family: .v4, port: 0, options: UDPSocketOptions(mark: 7))
            let path = try Self.path("127.0.0.1", 9)
            guard case .failed = Self.send([1], from: sender, to: path) else {
                throw TestFailure(description: "the mark was not set")
            }
            try sender.setMark(0)
            #expect(Self.send([1], from: sender, to: path) == .sent)
        }
    }

    @Test func `nothing waiting is no error`() throws {
        try inNamespace {
            let socket = try UDPSocket.bind(family: .v4, port: 0)
            var receiver = DatagramReceiver()
            #expect(receiver.receive(from: socket) == 0)
            #expect(receiver.errors == 0)
        }
    }
}
