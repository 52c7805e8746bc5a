package import WireGuard

/// From all connections' prefixes, metrics and health to who carries what: for the forwarding table, and for
/// the kernel. Pure.
///
/// Longest prefix, then metric, then health decides. For each prefix, of the connections that have it:
/// 1. the usable one with the best metric carries it; of equal metrics the first;
/// 2. if there is none, a usable one with a shorter prefix does: the prefix is nobody's then;
/// 3. if there is none either, one that is still heard keeps its routes;
/// 4. else the best one has what is sent there: it can say why nothing passes.
///
/// Guarded prefixes (`LearnedGuard`) that no connection has now are like those of a dead connection: a usable
/// shorter prefix takes them, and without one they are unreachable.
package struct PrefixChoice: Hashable, Sendable {
    package enum Health: Hashable, Sendable {
        /// Usable for longer than the far end may hold back after a flap: packets come from where ours go.
        case settled
        /// Some tunnel carries packets, or none has failed yet.
        case usable
        /// No tunnel does, and something still comes by one.
        case heard
        /// Nothing does.
        case dead

        package var isUsable: Bool { self == .settled || self == .usable }
    }

    /// What becomes of a dead connection's prefixes in the kernel.
    package enum OnDown: String, Hashable, Sendable, CaseIterable {
        case unreachable
        case withdraw
    }

    package struct Claim: Hashable, Sendable {
        package let prefix: IPPrefix
        /// Less is preferred.
        package let metric: UInt32
        /// True if a routing daemon's route in the kernel leads to the connection.
        package let isLearned: Bool

        package init(_ prefix: IPPrefix, metric: UInt32 = 0, isLearned: Bool = false) {
            self.prefix = prefix.network
            self.metric = metric
            self.isLearned = isLearned
        }
    }

    /// A connection.
    package struct Candidate: Hashable, Sendable {
        package var claims: [Claim]
        package var health: Health
        package var onDown: OnDown

        package init(_ claims: [Claim], health: Health, onDown: OnDown = .unreachable) {
            self.claims = claims
            self.health = health
            self.onDown = onDown
        }
    }

    /// By connection: what leads there now.
    package let prefixes: [[IPPrefix]]
    /// By connection: what its packets may come from. Its own prefixes, whoever has them now, as the far end
    /// may have failed over and this one not; and longer ones of others that fell through to it, or may have
    /// at the far end. While such a longer one's connection is settled, another must not speak for it.
    package let sources: [[IPPrefix]]
    /// Each prefix once, in order: those of the connections, and the guarded ones.
    package let kernel: [RoutePlan.Prefix]

    private struct Owner {
        let connection: Int
        let metric: UInt32
        /// False if the connection has the prefix by its configuration or by an operator as well.
        let isLearned: Bool
    }

    /// `guarded` are all prefixes that `LearnedGuard` holds, also those that connections have now.
    package init(_ candidates: [Candidate], guarded: Set<IPPrefix> = []) {
        let owners = Self.owners(candidates, guarded)
        let ordered = owners.keys.sorted {
            ($0.family.rawValue, $0.first, $0.length) < ($1.family.rawValue, $1.first, $1.length)
        }
        let ladder = Ladder(ordered)

        func health(_ owner: Owner) -> Health { candidates[owner.connection].health }
        var prefixes = candidates.map { _ in [IPPrefix]() }
        var sources = prefixes
        var kernel: [RoutePlan.Prefix] = []
        for prefix in ordered {
            let list = owners[prefix] ?? []
            let wider = ladder.wider(than: prefix).map { owners[$0] ?? [] }
            let isCovered = wider.contains { $0.contains { health($0).isUsable } }
            guard let best = list.first else {
                kernel.append(
                    RoutePlan.Prefix(prefix, state: isCovered ? .covered : .unreachable, isLearned: true))
                continue
            }
            for owner in list { sources[owner.connection].append(prefix) }
            let carrier =
                list.first { health($0).isUsable } ?? (isCovered ? nil : list.first { health($0) == .heard })
            if carrier != nil || !isCovered {
                prefixes[(carrier ?? best).connection].append(prefix)
            }
            if !list.contains(where: { health($0) == .settled }) {
                var allowed = Set(list.map(\.connection))
                for owners in wider {
                    for owner in owners where allowed.insert(owner.connection).inserted {
                        sources[owner.connection].append(prefix)
                    }
                    if owners.contains(where: { health($0) == .settled }) { break }
                }
            }
            let isLearned = list.allSatisfy(\.isLearned)
            let isGuarded = guarded.contains(prefix)
            let isWithdrawn = carrier == nil && candidates[best.connection].onDown == .withdraw
            let state: RoutePlan.Prefix.State =
                // What is only learned and not guarded is the routing daemon's own affair.
                if !isGuarded && (isLearned || isWithdrawn) {
                    .withdrawn
                } else if carrier != nil {
                    .carried
                } else {
                    isCovered ? .covered : .unreachable
                }
            kernel.append(
                RoutePlan.Prefix(
                    prefix, metric: (carrier ?? best).metric, state: state, isLearned: isLearned))
        }
        self.prefixes = prefixes
        self.sources = sources
        self.kernel = kernel
    }

    /// The connections that have each prefix, the best first; none where it is only guarded.
    private static func owners(
        _ candidates: [Candidate], _ guarded: Set<IPPrefix>
    ) -> [IPPrefix: [Owner]] {
        var owners: [IPPrefix: [Owner]] = [:]
        for (connection, candidate) in candidates.enumerated() {
            for claim in candidate.claims {
                let list = owners[claim.prefix] ?? []
                let others = list.filter { $0.connection != connection }
                let before = list.first { $0.connection == connection }
                // A connection may have it twice, as configured and learned: the better metric counts.
                owners[claim.prefix] =
                    others + [
                        Owner(
                            connection: connection, metric: min(claim.metric, before?.metric ?? .max),
                            isLearned: claim.isLearned && before?.isLearned ?? true)
                    ]
            }
        }
        for prefix in owners.keys {
            owners[prefix]?.sort { ($0.metric, $0.connection) < ($1.metric, $1.connection) }
        }
        for prefix in guarded where owners[prefix] == nil { owners[prefix] = [] }
        return owners
    }

    /// Finds the shorter prefixes around one.
    private struct Ladder {
        private let known: Set<IPPrefix>
        private var lengths: [IPAddress.Family: [Int]] = [:]

        init(_ prefixes: [IPPrefix]) {
            known = Set(prefixes)
            for family in IPAddress.Family.allCases {
                lengths[family] = Set(prefixes.lazy.filter { $0.family == family }.map(\.length)).sorted(
                    by: >)
            }
        }

        /// Longest first.
        func wider(than prefix: IPPrefix) -> [IPPrefix] {
            (lengths[prefix.family] ?? []).compactMap { length in
                guard length < prefix.length,
                    let wider = IPPrefix(address: prefix.address, length: length)?.network
                else { return nil }
                return known.contains(wider) ? wider : nil
            }
        }
    }
}
