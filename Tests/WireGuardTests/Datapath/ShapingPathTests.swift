import Testing

@testable import WireGuard

@Suite("Limited rates in the packet's way")
struct ShapingPathTests {
    private static let rate: UInt64 = 1_000_000

    private static func limiter(_ bundle: borrowing TunnelBundle, rate: UInt64 = rate) -> RateLimiter {
        RateLimiter(rate: rate, largest: 1500, now: bundle.now)
    }

    private static func table(
        _ bundle: borrowing TunnelBundle, limiter: RateLimiter? = nil, paths: [RateLimiter?] = [],
        isBalanced: Bool = false, translation: PrefixTranslation? = nil
    ) -> ForwardingTable {
        ForwardingTable(
            connections: [
                ForwardingTable.Connection(
                    prefixes: [IPPrefix("10.2.0.0/16")!, IPPrefix("fd00:2::/64")!], paths: bundle.paths,
                    isBalanced: isBalanced, translation: translation, limiter: limiter, pathLimiters: paths)
            ], mtu: 1420)
    }

    /// 1000 bytes, so 1068 on the wire, that say which one it is.
    private static func packet(_ number: Int, port: UInt16 = 5000) -> [UInt8] {
        InnerPackets.udp(
            payload: InnerPackets.bigEndian(UInt32(number)) + InnerPackets.payload(968), sourcePort: port)
    }

    private static func number(_ sent: TunnelBundle.Sent) -> Int {
        sent.packet[28..<32].reduce(0) { $0 << 8 | Int($1) }
    }

    /// 120 packets at once, of which bulk's burst lets 62 through.
    private static func fill(_ bundle: inout TunnelBundle) -> [TunnelBundle.Sent] {
        bundle.send((0..<60).map { packet($0) }) + bundle.send((60..<120).map { packet($0) })
    }

    /// Waits as the thread does, until nothing is held.
    private static func drain(_ bundle: inout TunnelBundle) -> [TunnelBundle.Sent] {
        var sent: [TunnelBundle.Sent] = []
        while let opening = bundle.outbound.nextOpening {
            if opening > bundle.now { bundle.now = opening }
            sent += bundle.send([])
        }
        return sent
    }

    @Test("what comes too early goes later, in order and at the rate", arguments: [true, false])
    func held(isOfPath: Bool) {
        var bundle = TunnelBundle([nil])
        let limiter = Self.limiter(bundle)
        bundle.table = Self.table(
            bundle, limiter: isOfPath ? nil : limiter, paths: isOfPath ? [limiter] : [])
        #expect(bundle.outbound.nextOpening == nil)
        let start = bundle.now
        let first = Self.fill(&bundle)
        #expect(first.map(Self.number) == Array(0..<62))
        let rest = Self.drain(&bundle)
        #expect(rest.map(Self.number) == Array(62..<120))
        #expect(rest.map(\.packet) == (62..<120).map { Self.packet($0) })
        // 120 packets, less the burst of bulk.
        let expected = Int64(120 * 1068 - Int(limiter.burst - limiter.reserve)) * 1000
        #expect((bundle.now - start).wholeNanoseconds == expected)
        #expect(bundle.drops.snapshot.isEmpty)
    }

    @Test("a superpacket is held segment by segment")
    func superpacket() {
        var bundle = TunnelBundle([nil])
        let limiter = Self.limiter(bundle)
        bundle.table = Self.table(bundle, paths: [limiter])
        let payload = InnerPackets.payload(60_000)
        let whole = InnerPackets.tcp(sequence: 0, payload: payload)
        var sent: [TunnelBundle.Sent] = []
        for _ in 0..<2 { sent += bundle.send([whole], offload: .tcp(.v4, segment: 1000)) }
        #expect(sent.count < 120)
        sent += Self.drain(&bundle)
        #expect(sent.count == 120)
        #expect(sent.allSatisfy { InnerPackets.isIntact($0.packet) })
        #expect(sent.flatMap { $0.packet.dropFirst(40) } == payload + payload)
    }

    @Test("a tunnel's and its connection's limit both hold")
    func both() {
        var bundle = TunnelBundle([nil])
        let limiter = Self.limiter(bundle, rate: 10_000_000)
        bundle.table = Self.table(bundle, limiter: limiter, paths: [Self.limiter(bundle)])
        let start = bundle.now
        #expect(Self.fill(&bundle).count == 62)
        #expect(Self.drain(&bundle).map(Self.number) == Array(62..<120))
        #expect(bundle.now - start > .milliseconds(60))
        #expect(bundle.drops.snapshot.isEmpty)
    }

    @Test("marked packets overtake what is held")
    func classes() {
        var bundle = TunnelBundle([nil])
        bundle.table = Self.table(bundle, limiter: Self.limiter(bundle))
        _ = Self.fill(&bundle)
        let voice = InnerPackets.tcp(payload: [1, 2, 3], tos: 46 << 2)
        #expect(bundle.send([voice]).map(\.packet) == [voice])
    }

    @Test("when a tunnel fails, what waited for it goes by the next one at once")
    func failover() {
        var bundle = TunnelBundle([nil, nil])
        bundle.table = Self.table(bundle, paths: [Self.limiter(bundle)])
        #expect(Self.fill(&bundle).count == 62)
        bundle.table.activate(1, of: 0)
        let rest = bundle.send([])
        #expect(rest.map(Self.number) == Array(62..<120))
        #expect(rest.allSatisfy { $0.tunnel == 1 })
        #expect(bundle.outbound.nextOpening == nil)
        #expect(bundle.drops.snapshot.isEmpty)
    }

    @Test(
        "what waited and is too long for the next tunnel goes in outer fragments", arguments: [true, false])
    func failoverToNarrow(isOverIPv4: Bool) {
        var bundle = TunnelBundle([nil, nil])
        bundle.table = Self.table(bundle, paths: [Self.limiter(bundle)])
        #expect(Self.fill(&bundle).count == 62)
        bundle.paths[1].setInnerMTU(900)
        if !isOverIPv4 {
            bundle.paths[1].setUnderlay(
                UnderlayPath(endpoint: Endpoint(address: IPAddress("2001:db8::2")!, port: 51820)))
        }
        bundle.table.activate(1, of: 0)
        let rest = bundle.send([])
        #expect(rest.map(Self.number) == (isOverIPv4 ? Array(62..<120) : []))
        #expect(rest.allSatisfy { $0.tunnel == 1 && $0.mayFragment })
        #expect(bundle.drops.snapshot == (isOverIPv4 ? [:] : [.outboundTooBig: 58]))
    }

    @Test("a failed tunnel's packets keep the limit of the next one")
    func failoverToLimited() {
        var bundle = TunnelBundle([nil, nil])
        bundle.table = Self.table(
            bundle, paths: [Self.limiter(bundle), Self.limiter(bundle, rate: 64_000)])
        #expect(Self.fill(&bundle).count == 62)
        bundle.table.activate(1, of: 0)
        var rest = bundle.send([])
        #expect(rest.count == 58)
        rest += bundle.send((120..<180).map { Self.packet($0) })
        #expect(rest.count == 62)
        rest += Self.drain(&bundle)
        #expect(rest.map(Self.number) == Array(62..<180))
        #expect(rest.allSatisfy { $0.tunnel == 1 })
    }

    @Test("with no tunnel left, what waited is dropped and counted")
    func noPath() {
        var bundle = TunnelBundle([nil])
        bundle.table = Self.table(bundle, paths: [Self.limiter(bundle)])
        #expect(Self.fill(&bundle).count == 62)
        bundle.table.activate(nil, of: 0)
        #expect(bundle.send([]).isEmpty)
        #expect(bundle.outbound.nextOpening == nil)
        #expect(bundle.drops.snapshot == [.noRoute: 58])
    }

    @Test("where a limit is gone, or is another one, nothing waits for the old one")
    func newTable() {
        var bundle = TunnelBundle([nil])
        let limiter = Self.limiter(bundle)
        bundle.table = Self.table(bundle, limiter: limiter)
        #expect(Self.fill(&bundle).count == 62)
        // The same limiter in another table changes nothing.
        bundle.table = Self.table(bundle, limiter: limiter)
        #expect(bundle.send([]).isEmpty)
        bundle.table = Self.table(bundle)
        #expect(bundle.send([]).map(Self.number) == Array(62..<120))
        #expect(bundle.outbound.nextOpening == nil)
        #expect(bundle.drops.snapshot.isEmpty)
    }

    @Test("what does not fit in the queue is counted")
    func overload() {
        var bundle = TunnelBundle([nil])
        bundle.table = Self.table(bundle, paths: [Self.limiter(bundle, rate: 8000)])
        var sent = 0
        for batch in 0..<20 { sent += bundle.send((0..<50).map { Self.packet(batch * 50 + $0) }).count }
        sent += Self.drain(&bundle).count
        let dropped = Int(bundle.drops[.rateLimited])
        #expect(dropped > 500 && sent + dropped == 1000)
        #expect(bundle.drops.snapshot.count == 1)
    }

    @Test("two workers share a limit")
    func workers() {
        var bundle = TunnelBundle([nil])
        let limiter = Self.limiter(bundle)
        bundle.table = Self.table(bundle, limiter: limiter)
        #expect(bundle.send((0..<40).map { Self.packet($0) }).count == 40)
        // The other one's thread.
        bundle.outbound = Outbound(events: bundle.outboundEvents, drops: bundle.drops)
        #expect(bundle.send((0..<40).map { Self.packet($0) }).count == 22)
    }

    @Test("a flow stays on its tunnel, waited or not, translated or not")
    func balance() {
        let translation = PrefixTranslation([
            PrefixTranslation.Pair(inside: IPPrefix("10.1.0.0/16")!, outside: IPPrefix("10.99.0.0/16")!)!
        ])
        var bundle = TunnelBundle([nil, nil])
        let buckets = (0..<ForwardingTable.bucketCount).map { $0 & 1 }
        bundle.table = Self.table(
            bundle, limiter: Self.limiter(bundle), isBalanced: true, translation: translation)
        bundle.table.assign(buckets, of: 0)
        let flows = (0..<60).map { Self.packet($0, port: UInt16(7000 + $0)) }
        let sent = bundle.send(flows) + bundle.send(flows) + Self.drain(&bundle)
        #expect(sent.count == 120)
        #expect(Set(sent.map(\.tunnel)) == [0, 1])
        #expect(
            sent.allSatisfy { Array($0.packet[12..<14]) == [10, 99] && InnerPackets.isIntact($0.packet) })
        for flow in 0..<60 {
            let tunnels = Set(sent.filter { Self.number($0) == flow }.map(\.tunnel))
            #expect(tunnels.count == 1)
        }
    }

    @Test("what waits is sealed under the key of the moment it goes")
    func keys() {
        var bundle = TunnelBundle([nil])
        bundle.table = Self.table(bundle, paths: [Self.limiter(bundle)])
        #expect(Self.fill(&bundle).count == 62)
        bundle.paths[0].publish(sending: nil)
        bundle.now = bundle.now + .seconds(1)
        #expect(bundle.send([]).isEmpty)
        let staged = bundle.events(bundle.outboundEvents).count {
            if case .stage = $0 { true } else { false }
        }
        // Control's ring is small here.
        #expect(staged > 40 && staged + Int(bundle.drops[.stagedQueueFull]) == 58)
    }
}
