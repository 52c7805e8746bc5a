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
        package var onDown: ConnectionSpec.OnDown

        package init(_ claims: [Claim], health: Health, onDown: ConnectionSpec.OnDown = .unreachable) {
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
    package let kernel: [WantedPrefix]

    /// A connection's hold on a prefix.
    private struct Owner {
        let prefix: IPPrefix
        let connection: Int
        let metric: UInt32
        /// False if the connection has the prefix by its configuration or by an operator as well.
        var isLearned: Bool
    }

    /// A prefix that contains those that follow, until one begins behind its end.
    private struct Wider {
        let prefix: IPPrefix
        let owners: ArraySlice<Owner>
        /// A usable connection has it, or one around it.
        let isUsable: Bool
    }

    /// `guarded` are all prefixes that `LearnedGuard` holds, also those that connections have now.
    package init(_ candidates: [Candidate], guarded: Set<IPPrefix> = []) {
        func health(_ owner: Owner) -> Health { candidates[owner.connection].health }
        let owners = Self.owners(candidates)
        var unowned = guarded.subtracting(owners.lazy.map(\.prefix)).sorted(by: Self.isBefore)[...]
        var prefixes = candidates.map { _ in [IPPrefix]() }
        var sources = prefixes
        var kernel: [WantedPrefix] = []
        kernel.reserveCapacity(owners.count + unowned.count)
        var around: [Wider] = []
        var rest = owners[...]
        // Wider prefixes come before those in them: a stack holds all that are around the present one.
        while let prefix = Self.first(rest.first?.prefix, unowned.first) {
            let list = rest.prefix { $0.prefix == prefix }
            rest = rest[list.endIndex...]
            if list.isEmpty { unowned.removeFirst() }
            while let wider = around.last, !wider.prefix.contains(prefix) { around.removeLast() }
            let isCovered = around.last?.isUsable ?? false
            defer {
                around.append(
                    Wider(
                        prefix: prefix, owners: list,
                        isUsable: isCovered || list.contains { health($0).isUsable }))
            }
            guard let best = list.first else {
                kernel.append(
                    WantedPrefix(prefix, state: isCovered ? .covered : .unreachable, isLearned: true))
                continue
            }
            for owner in list { sources[owner.connection].append(prefix) }
            let carrier =
                list.first { health($0).isUsable } ?? (isCovered ? nil : list.first { health($0) == .heard })
            if carrier != nil || !isCovered {
                prefixes[(carrier ?? best).connection].append(prefix)
            }
            if !around.isEmpty, !list.contains(where: { health($0) == .settled }) {
                var allowed = Set(list.map(\.connection))
                for wider in around.reversed() {
                    for owner in wider.owners where allowed.insert(owner.connection).inserted {
                        sources[owner.connection].append(prefix)
                    }
                    if wider.owners.contains(where: { health($0) == .settled }) { break }
                }
            }
            let isLearned = list.allSatisfy(\.isLearned)
            let isGuarded = guarded.contains(prefix)
            let isWithdrawn = carrier == nil && candidates[best.connection].onDown == .withdraw
            let state: WantedPrefix.State =
                // What is only learned and not guarded is the routing daemon's own affair.
                if !isGuarded && (isLearned || isWithdrawn) {
                    .withdrawn
                } else if carrier != nil {
                    .carried
                } else {
                    isCovered ? .covered : .unreachable
                }
            kernel.append(
                WantedPrefix(
                    prefix, metric: (carrier ?? best).metric, state: state, isLearned: isLearned))
        }
        self.prefixes = prefixes
        self.sources = sources
        self.kernel = kernel
    }

    /// By prefix, and of each the best connection first.
    private static func owners(_ candidates: [Candidate]) -> [Owner] {
        var owners = candidates.enumerated().flatMap { connection, candidate in
            candidate.claims.map {
                Owner(prefix: $0.prefix, connection: connection, metric: $0.metric, isLearned: $0.isLearned)
            }
        }
        owners.sort {
            $0.prefix == $1.prefix
                ? ($0.metric, $0.connection) < ($1.metric, $1.connection) : isBefore($0.prefix, $1.prefix)
        }
        // A connection may have a prefix twice, as configured and learned: the better metric counts, which is the first.
        var kept: [Owner] = []
        kept.reserveCapacity(owners.count)
        for owner in owners {
            var place = kept.count - 1
            while place >= 0, kept[place].prefix == owner.prefix, kept[place].connection != owner.connection {
                place -= 1
            }
            if place >= 0, kept[place].prefix == owner.prefix {
                kept[place].isLearned = kept[place].isLearned && owner.isLearned
            } else {
                kept.append(owner)
            }
        }
        return kept
    }

    private static func first(_ a: IPPrefix?, _ b: IPPrefix?) -> IPPrefix? {
        guard let a, let b else { return a ?? b }
        return isBefore(b, a) ? b : a
    }

    private static func isBefore(_ a: IPPrefix, _ b: IPPrefix) -> Bool {
        (a.family.rawValue, a.address.bits, a.length) < (b.family.rawValue, b.address.bits, b.length)
    }
}
