import Glibc
import LinuxIO
import SystemFaults
import TestSupport
import Testing
import WireGuard

@testable import DataPlane

/// What a data thread sends by several groups of sockets.
@Suite struct WorkerSocketsTests {
    /// Two tunnels that leave by a group of sockets each, 0 and 1, and the far ends of these.
    private struct Bundle: ~Copyable {
        let keypairs = KeypairTable(capacity: 16)
        let groups: UDPSocketGroups
        let far: [UDPSocket]
        let drops = DropCounters()
        var outbound: Outbound
        var sockets: WorkerSockets
        private let table: ForwardingTable

        init() throws {
            var groups = UDPSocketGroups(try UDPSocketGroup.bind(port: 0, workers: 1))
            groups[1] = try UDPSocketGroup.bind(port: 0, workers: 1)
            let far = try (0..<2).map { _ in try UDPSocket.bind(family: .v4, port: 0) }
            var connections: [ForwardingTable.Connection] = []
            for (number, end) in far.enumerated() {
                let path = TunnelPath(peer: PeerID(number), socket: UInt8(number))
                _ = SessionPair(.init(path, keypairs), createdAt: SystemClock.now())
                let endpoint = Endpoint(address: IPAddress(v4: 0x7f00_0001), port: end.port)
                path.setUnderlay(UnderlayPath(endpoint: endpoint, socket: UInt8(number)))
                let prefix = try #require(IPPrefix("10.2.\(number).0/24"))
                connections.append(ForwardingTable.Connection(prefixes: [prefix], paths: [path]))
            }
            self.groups = groups
            self.far = far
            table = ForwardingTable(connections: connections, mtu: 1420)
            sockets = WorkerSockets(groups, worker: 0)
            outbound = Outbound(events: EventRing(capacity: 1 << 16), drops: drops)
        }

        /// One batch, as `OutboundThread` passes it: a packet to each tunnel in turn, so that each is a run of its own.
        mutating func pass(packets: Int) {
            sockets.beginBatch()
            outbound.begin(table: table, now: SystemClock.now())
            for number in 0..<packets {
                var packet: [UInt8] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 10, 1, 0, 1]
                packet += [10, 2, UInt8(number % 2), 1]
                packet += [UInt8](repeating: 0, count: 16)
                unsafe packet.withUnsafeMutableBytes { bytes in
                    guard let base = bytes.baseAddress else { return }
                    unsafe outbound.add(base, count: 20, offload: VirtioNetHeader())
                }
            }
            sockets.send(from: &outbound)
            outbound.finish()
        }
    }

    @Test(arguments: [EAGAIN, ENOBUFS])
    func `a queue that stays full is waited for twice a batch, however many runs go there`(code: Int32) throws
    {
        try inNamespace {
            var bundle = try Bundle()
            let slow = try #require(bundle.groups[0]?.workers[0].v4)
            SystemFaults.with(.init(code: code), on: slow.fd) {
                for batch in 1...3 {
                    bundle.pass(packets: 64)
                    // Each of the 32 runs is tried once, and twice more after a wait.
                    #expect(SystemFaults.hits(on: slow.fd) == batch * (32 + 2))
                    var receiver = DatagramReceiver()
                    let arrived = receiver.segments(32, from: bundle.far[1])
                    #expect(arrived.count == 32, "by the other socket")
                }
            }
            #expect(bundle.drops.snapshot == [.sendFailed: 3 * 32])
            bundle.pass(packets: 64)
            var receiver = DatagramReceiver()
            let arrived = receiver.segments(32, from: bundle.far[0])
            #expect(arrived.count == 32, "it is used again")
        }
    }

    @Test func `a wait that one run needed is not there for the next of the same batch`() throws {
        try inNamespace {
            var bundle = try Bundle()
            let slow = try #require(bundle.groups[0]?.workers[0].v4)
            // Three calls fail, and one run after the other is sent: two waits, and one drop.
            SystemFaults.with(.init(code: EAGAIN, count: 3), on: slow.fd) { bundle.pass(packets: 16) }
            #expect(bundle.drops.snapshot == [.sendFailed: 1])
        }
    }

    @Test func `each worker has a socket of every group, and sends by the one that a run names`() throws {
        try inNamespace {
            var groups = UDPSocketGroups(try UDPSocketGroup.bind(port: 0, workers: 2))
            groups[2] = try UDPSocketGroup.bind(port: 0, workers: 2)
            let listener = try UDPSocket.bind(family: .v4, port: 0)
            var worker = WorkerSockets(groups, worker: 1)
            #expect(worker.sources.map(\.group) == [0, 0, 2, 2])
            for number in [0, 2] as [UInt8] {
                let own = try #require(groups[number]).workers[1].sockets.map(\.fd)
                #expect(worker.sources.filter { $0.group == number }.map(\.socket.fd) == own)
            }

            let drops = DropCounters()
            var outbound = Outbound(events: EventRing(capacity: 4096), drops: drops)
            var sessions: [SessionPair] = []
            let connections = try (0..<4).map { number -> ForwardingTable.Connection in
                let path = TunnelPath(peer: PeerID(number), socket: UInt8(number))
                sessions.append(SessionPair(.init(path), createdAt: Instant(nanoseconds: 1)))
                let endpoint = Endpoint(address: IPAddress(v4: 0x7f00_0001), port: listener.port)
                path.setUnderlay(UnderlayPath(endpoint: endpoint))
                return ForwardingTable.Connection(
                    prefixes: [try #require(IPPrefix("10.\(number).0.0/16"))], paths: [path])
            }
            let table = ForwardingTable(connections: connections, mtu: 1420)
            outbound.begin(table: table, now: Instant(nanoseconds: 1))
            for number in 0..<4 {
                var packet: [UInt8] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 10, 8, 0, 1, 10, 0, 0, 1]
                packet[17] = UInt8(number)
                packet += [UInt8](repeating: 0, count: 16)
                unsafe packet.withUnsafeMutableBytes { bytes in
                    guard let base = bytes.baseAddress else { return }
                    unsafe outbound.add(base, count: 20, offload: VirtioNetHeader())
                }
            }
            worker.send(from: &outbound)
            outbound.finish()
            // Groups 1 and 3 are absent.
            #expect(drops.snapshot == [.sendFailed: 2])
            var receiver = DatagramReceiver()
            #expect(
                receiver.senders(2, at: listener)
                    == [try #require(groups[0]).port, try #require(groups[2]).port])
            withExtendedLifetime(sessions) {}
        }
    }
}
