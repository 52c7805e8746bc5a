package import WireGuard

/// Whether two hosts use one key, as a cloned machine does: the peer's endpoint goes back and forth between them, and each
/// takes the session away from the other. Pure.
///
/// Two things together tell it from a host that roams:
/// - within a minute the endpoint comes back to where it was, three times or more;
/// - two times or more it comes back under a session that another has replaced. A host on Wi-Fi and LTE in turn, or behind
///   a NAT that has several addresses, takes its newest session along.
///
/// It is over when nobody was heard under an older session for two minutes: that is how long a host goes on with one
/// before it asks for another (WireGuard, section 6.2).
package struct KeySharing: Sendable {
    package enum Change: Hashable, Sendable {
        case began
        case ended
    }

    package static let window: Duration = .seconds(60)
    package static let quiet: Duration = .seconds(120)
    private static let returnsNeeded = 3
    private static let staleRoamsNeeded = 2
    /// Ten changes a second are told at most.
    private static let limit = 600

    private struct Visit {
        let endpoint: Endpoint
        let at: Instant
    }

    private var visits: [Visit] = []
    private var staleRoams: [Instant] = []
    private var counted: UInt64 = 0
    /// Where the hosts are that share the key, in order; none where nothing says that it is shared.
    package private(set) var hosts: [Endpoint] = []

    package init() {}

    /// The peer is at `endpoint`. `roamsUnderOldSession` counts up.
    package mutating func note(_ endpoint: Endpoint, roamsUnderOldSession count: UInt64, now: Instant)
        -> Change?
    {
        let news = count >= counted ? count - counted : 0
        counted = count
        // Several between two looks count once: a burst that was late on the way is one event.
        if news > 0 { staleRoams.append(now) }
        if visits.last?.endpoint != endpoint { visits.append(Visit(endpoint: endpoint, at: now)) }
        visits.removeAll { now - $0.at > Self.window }
        if visits.count > Self.limit { visits.removeFirst() }
        staleRoams.removeAll { now - $0 > Self.quiet }
        if staleRoams.count > Self.limit { staleRoams.removeFirst() }
        guard staleRoams.count(where: { now - $0 <= Self.window }) >= Self.staleRoamsNeeded else {
            return nil
        }
        let counts = Dictionary(grouping: visits, by: \.endpoint).mapValues(\.count)
        guard counts.values.reduce(0, { $0 + $1 - 1 }) >= Self.returnsNeeded else { return nil }
        let found = counts.filter { $0.value > 1 }.keys.sorted { "\($0)" < "\($1)" }
        guard found.count > 1 else { return nil }
        let isNew = hosts.isEmpty
        hosts = found
        return isNew ? .began : nil
    }

    /// Call once in a while.
    package mutating func look(now: Instant) -> Change? {
        guard !hosts.isEmpty, staleRoams.last.map({ now - $0 > Self.quiet }) ?? true else { return nil }
        hosts = []
        return .ended
    }
}
