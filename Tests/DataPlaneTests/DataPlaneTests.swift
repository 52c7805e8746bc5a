import Glibc
import LinuxIO
import TestSupport
import Testing
import WireGuard

@testable import DataPlane

/// Real threads, a real TUN device and real sockets, without the control loop.
@Suite struct DataPlaneTests {
    /// A gateway with one tunnel in a socket group of its own, 3, and the far end of it.
    private struct Node {
        static let inside = InsideLink(local: IPAddress(v4: 0xa9fe_0102), remote: IPAddress(v4: 0xa9fe_0101))

        let tun: TunDevice
        let path = TunnelPath(peer: PeerID(0), socket: 3, inside: Node.inside)
        let wake: EventFD
        let keypairs = KeypairTable(capacity: 16)
        let plane: DataPlane
        let theirs: Keypair
        let far: UDPSocket
        let ports: [UInt16]

        init(isSingleThreaded: Bool) throws {
            tun = try TunDevice.open(name: "vgwtest0")
            // Or the kernel would say something of its own.
            try shell("sysctl -qw net.ipv6.conf.vgwtest0.disable_ipv6=1")
            try shell("ip addr add 10.1.0.1/24 dev vgwtest0; ip link set vgwtest0 up")
            try shell("ip route add 10.2.0.0/16 dev vgwtest0")
            far = try UDPSocket.bind(family: .v4, port: 0)
            wake = try EventFD()
            var groups = UDPSocketGroups(try UDPSocketGroup.bind(port: 0, workers: 1))
            groups[3] = try UDPSocketGroup.bind(port: 0, workers: 1)
            ports = groups.present.map(\.group.port)
            plane = try DataPlane(
                queues: [tun], sockets: groups, keypairs: keypairs, wake: wake,
                isSingleThreaded: isSingleThreaded)
            theirs = SessionPair(.init(path, keypairs), createdAt: SystemClock.now()).far
            path.setUnderlay(UnderlayPath(endpoint: Endpoint(address: Self.loopback, port: far.port)))
            let prefix = try #require(IPPrefix("10.2.0.0/16"))
            plane.publish(
                ForwardingTable(
                    connections: [ForwardingTable.Connection(prefixes: [prefix], paths: [path])], mtu: 1420))
            try plane.start()
        }

        static let loopback = IPAddress(v4: 0x7f00_0001)

        /// An inner packet, sealed by the far end, to a port of ours.
        func send(_ packet: [UInt8], to port: UInt16) -> SendResult {
            var chacha = ChaCha20Poly1305()
            guard let message = theirs.seal(packet, mtu: 1420, by: &chacha) else { return .failed(EINVAL) }
            let path = UnderlayPath(endpoint: Endpoint(address: Self.loopback, port: port))
            return far.send(message, to: path, tos: 0)
        }

        /// The ports that what comes to the far end has been sent from, until there are `count`.
        func heard(_ count: Int) -> [UInt16] {
            var receiver = DatagramReceiver()
            return receiver.senders(count, at: far)
        }
    }

    /// ICMP echo request from the far gateway to ours.
    private static let probe: [UInt8] =
        [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0x24, 0xe2, 169, 254, 1, 1, 169, 254, 1, 2]
        + [8, 0, 0xf7, 0xfc, 0, 1, 0, 2]

    @Test func `a packet that cannot be read is counted, and the next one comes through`() throws {
        try inNamespace {
            let node = try Node(isSingleThreaded: false)
            defer { node.plane.stop() }
            // More header than there is room for: EINVAL with each packet.
            try Self.setHeaderSize(100_000, of: node.tun)
            try shell("ping -c 1 -W 1 10.1.0.2 >/dev/null || true")
            #expect(eventually { node.plane.drops[.tunReadFailed] != nil })
            try Self.setHeaderSize(Int32(TunDevice.headerSize), of: node.tun)
            try shell("ping -c 1 -W 1 10.1.0.2 >/dev/null || true")
            #expect(eventually { node.plane.drops[.noRoute] != nil })
            #expect(node.plane.drops[.outboundMalformed] == nil)
        }
    }

    private static func setHeaderSize(_ size: Int32, of tun: TunDevice) throws {
        let setHeaderSize: UInt = 0x4004_54d8  // TUNSETVNETHDRSZ
        var size = size
        guard unsafe ioctl(tun.fd, setHeaderSize, &size) == 0 else {
            throw TestFailure(description: "TUNSETVNETHDRSZ: errno \(errno)")
        }
    }

    @Test(arguments: [false, true])
    func `a probe is answered by the socket group of its tunnel`(isSingleThreaded: Bool) throws {
        try inNamespace {
            let node = try Node(isSingleThreaded: isSingleThreaded)
            defer { node.plane.stop() }
            for _ in 0..<3 { #expect(node.send(Self.probe, to: node.ports[1]) == .sent) }
            #expect(node.heard(3) == [UInt16](repeating: node.ports[1], count: 3))
            // Also if it came by another, which it then does not roam to.
            #expect(node.send(Self.probe, to: node.ports[0]) == .sent)
            #expect(node.heard(1) == [node.ports[1]])
            #expect(node.path.underlay?.socket == 3)
            #expect(node.plane.drops.isEmpty)
        }
    }

    @Test(arguments: [false, true])
    func `sockets that stay lose nothing when others come and go`(isSingleThreaded: Bool) throws {
        try inNamespace {
            let node = try Node(isSingleThreaded: isSingleThreaded)
            defer { node.plane.stop() }
            var groups = node.plane.sockets.value
            let kept = try #require(groups[3]).sockets.map(\.fd)
            var answered = 0
            for round in 0..<20 {
                for _ in 0..<5 {
                    #expect(node.send(Self.probe, to: node.ports[1]) == .sent)
                    answered += 1
                }
                let leaving = groups.present.filter { $0.number != 3 }.map(\.group.port)
                var next = UDPSocketGroups()
                next[3] = groups[3]
                next[UInt8(round % 3)] = try UDPSocketGroup.bind(port: 0, workers: 1)
                groups = next
                let generation = node.plane.replaceSockets(next)
                #expect(eventually { node.plane.socketGeneration >= generation })
                for port in leaving {
                    #expect(eventually { (try? UDPSocketGroup.bind(port: port, workers: 1)) != nil })
                }
                #expect(groups[3]?.sockets.map(\.fd) == kept)
                for _ in 0..<5 {
                    #expect(node.send(Self.probe, to: node.ports[1]) == .sent)
                    answered += 1
                }
            }
            #expect(node.heard(answered) == [UInt16](repeating: node.ports[1], count: answered))
            // A group that came last works, and one that went is counted.
            let last = try #require(groups.present.first { $0.number != 3 }).group.port
            #expect(node.send(Self.probe, to: last) == .sent)
            #expect(node.heard(1) == [node.ports[1]])
            groups[3] = nil
            _ = node.plane.replaceSockets(groups)
            #expect(node.send(Self.probe, to: last) == .sent)
            #expect(eventually { node.plane.drops == [.sendFailed: 1] })
        }
    }

    @Test(arguments: [false, true])
    func `sockets are replaced without waiting for a thread that still holds old ones`(
        isSingleThreaded: Bool
    ) throws {
        try inNamespace {
            let node = try Node(isSingleThreaded: isSingleThreaded)
            defer { node.plane.stop() }
            let begin = SystemClock.now()
            for _ in 0..<10 {
                // As a thread does that gets no processor.
                let slow = Published.Reader(node.plane.sockets)
                var next = slow.value
                next[0] = try UDPSocketGroup.bind(port: 0, workers: 1)
                _ = node.plane.replaceSockets(next)
                #expect(slow.value[0]?.port != next[0]?.port)
            }
            // Each was waited for, for up to two seconds.
            #expect(SystemClock.now() - begin < .seconds(2))
            #expect(node.send(Self.probe, to: node.ports[1]) == .sent)
            #expect(node.heard(1) == [node.ports[1]])
        }
    }
}
