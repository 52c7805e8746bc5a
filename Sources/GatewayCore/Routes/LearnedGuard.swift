package import WireGuard

/// The prefixes that a routing daemon has once said to be behind a connection: what is sent there never leaves in
/// clear again. Pure.
///
/// 1. `hold` takes what a connection has learned. Behind the routing daemon's route there is a last resort of ours
///    from then on (`RoutePlan`), and it stays when that route is gone.
/// 2. `adopt` takes what an earlier run, which was killed or restarted, has left in the kernel.
/// 3. `release` is an operator's word: the site is gone, and its prefix is anybody's again.
///
/// Each connection has an equal share of the room, so that a far gateway that announces one prefix after the other
/// uses up no room but its own. What there is no room for is not carried either: nothing that a tunnel carries
/// is without a guard.
package struct LearnedGuard: Sendable {
    private enum Holder: Hashable {
        /// The connection that learned it last.
        case connection(String)
        case earlierRun
    }

    /// A far gateway decides how many there are: a whole internet's are not taken.
    package static let limit = 65_536

    private let limit: Int
    private let share: Int
    private var holders: [IPPrefix: Holder] = [:]
    private var counts: [String: Int] = [:]

    /// `connections` is the number of those that learn and have `on-down = "unreachable"`.
    package init(connections: Int, limit: Int = Self.limit) {
        self.limit = limit
        share = limit / max(connections, 1)
    }

    package var count: Int { holders.count }
    package var prefixes: Set<IPPrefix> { Set(holders.keys) }

    package func holds(_ prefix: IPPrefix) -> Bool { holders[prefix] != nil }

    /// The connection that learned it last; nil where it is not held or only an earlier run knew.
    package func connection(of prefix: IPPrefix) -> String? {
        if case .connection(let name) = holders[prefix] { name } else { nil }
    }

    /// Returns false if there is no room for it.
    package mutating func hold(_ prefix: IPPrefix, for connection: String) -> Bool {
        let before = holders[prefix]
        guard before != .connection(connection) else { return true }
        // In another connection's share it is as safe.
        guard counts[connection, default: 0] < share else { return before != nil }
        if case .connection(let other) = before { counts[other, default: 0] -= 1 }
        counts[connection, default: 0] += 1
        holders[prefix] = .connection(connection)
        return true
    }

    package mutating func adopt(_ prefixes: [IPPrefix]) {
        for prefix in prefixes where holders.count < limit && holders[prefix] == nil {
            holders[prefix] = .earlierRun
        }
    }

    package mutating func release(_ prefix: IPPrefix) {
        if case .connection(let name) = holders.removeValue(forKey: prefix) {
            counts[name, default: 0] -= 1
        }
    }
}
