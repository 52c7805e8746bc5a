import Testing
import WireGuard

@testable import GatewayCore

/// Two hosts that use one key, and what only looks like it.
@Suite struct KeySharingTests {
    private static let here = Endpoint("192.0.2.10:51820")!
    private static let there = Endpoint("198.51.100.7:51820")!
    private static let third = Endpoint("203.0.113.9:51820")!

    private static func at(_ seconds: Double) -> Instant {
        Instant(nanoseconds: 1_000_000_000_000 + UInt64(seconds * 1e9))
    }

    /// Where the peer is heard, one after the other, `apart` seconds each, and whether under a session that was replaced.
    private static func run(
        _ heard: [(Endpoint, isOld: Bool)], apart: Double
    ) -> (sharing: KeySharing, changes: [KeySharing.Change], end: Double) {
        var sharing = KeySharing()
        var changes: [KeySharing.Change] = []
        var (old, time) = (UInt64(0), 0.0)
        for (endpoint, isOld) in heard {
            if isOld { old += 1 }
            if let change = sharing.note(endpoint, roamsUnderOldSession: old, now: at(time)) {
                changes.append(change)
            }
            time += apart
        }
        return (sharing, changes, time - apart)
    }

    @Test(arguments: [0.1, 1, 12])
    func `an endpoint that goes back and forth under sessions that were replaced is of two hosts`(
        apart: Double
    ) {
        // Each begins a session of its own now and then, and is heard under the old one in between.
        let heard = (0..<8).map { ($0 % 2 == 0 ? Self.here : Self.there, isOld: $0 > 0 && $0 % 2 == 0) }
        let (sharing, changes, _) = Self.run(heard, apart: apart)
        #expect(changes == [.began], "told once")
        #expect(Set(sharing.hosts) == [Self.here, Self.there])
    }

    /// What is heard, seconds apart.
    private static let others: [(String, [(Endpoint, isOld: Bool)], Double)] = [
        ("Wi-Fi and LTE in turn", (0..<20).map { ($0 % 2 == 0 ? here : there, false) }, 3),
        (
            "one late packet of each session",
            [(here, false), (there, false), (here, true), (there, false), (there, false)],
            5
        ),
        ("a move for good", [(here, false), (there, true), (there, true), (there, true), (there, true)], 5),
        (
            "ever other ports of a NAT",
            (0..<20).map { (Endpoint(address: here.address, port: 1000 + UInt16($0)), true) }, 2
        ),
        ("back and forth slower than a minute", (0..<10).map { ($0 % 2 == 0 ? here : there, true) }, 61),
    ]

    @Test(arguments: others)
    func `a host that roams is one host`(what: String, heard: [(Endpoint, isOld: Bool)], apart: Double) {
        let (sharing, changes, _) = Self.run(heard, apart: apart)
        #expect(changes == [] && sharing.hosts == [], "\(what)")
    }

    @Test func `three hosts with one key are named`() {
        let endpoints = [Self.here, Self.there, Self.third]
        let (sharing, changes, _) = Self.run((0..<12).map { (endpoints[$0 % 3], isOld: $0 > 2) }, apart: 1)
        #expect(changes == [.began] && Set(sharing.hosts) == Set(endpoints))
    }

    @Test func `it is over when nobody was heard under an older session for two minutes`() {
        var (sharing, _, end) = Self.run(
            (0..<8).map { ($0 % 2 == 0 ? Self.here : Self.there, isOld: $0 > 1) }, apart: 1)
        #expect(sharing.look(now: Self.at(end + 119)) == nil && !sharing.hosts.isEmpty)
        #expect(sharing.look(now: Self.at(end + 121)) == .ended && sharing.hosts == [])
        #expect(sharing.look(now: Self.at(end + 122)) == nil)
    }
}
