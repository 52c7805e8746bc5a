package import WireGuard

extension GatewaySpec {
    /// What is unreachable while nothing of the gateway runs: what all connections have, as if each of them were down,
    /// what was learned once, and the far ends of the inside links. `metric` is that of connections without one. What
    /// is inside one of `localNetworks` is left to it.
    package func guardPrefixes(
        metric: UInt32, learned: Set<IPPrefix> = [], _ localNetworks: [LocalNetwork] = []
    ) -> [WantedPrefix] {
        func isLeft(_ prefix: IPPrefix) -> Bool {
            localNetworks.inUse(holding: prefix).map { $0.network != prefix } ?? false
        }
        let choice = PrefixChoice(
            connections.map { connection in
                PrefixChoice.Candidate(
                    connection.routes.filter { connection.isExclusive || !isLeft($0.prefix) }.map {
                        PrefixChoice.Claim(
                            $0.prefix, metric: connection.metric ?? metric,
                            isLearned: $0.origin == .learned)
                    }, health: .dead,
                    onDown: connection.onDown)
            }, guarded: learned.filter { !isLeft($0) })
        let ends = insideEnds
        return ends.map { WantedPrefix($0, state: .unreachable) }
            + exclusively(choice.kernel.filter { !ends.contains($0.prefix) })
    }

    /// The same, those that an exclusive connection has marked as such.
    package func exclusively(_ prefixes: [WantedPrefix]) -> [WantedPrefix] {
        let exclusive = Set(connections.filter(\.isExclusive).flatMap(\.routes).map(\.prefix))
        guard !exclusive.isEmpty else { return prefixes }
        return prefixes.map { prefix in
            var prefix = prefix
            prefix.isExclusive = exclusive.contains(prefix.prefix)
            return prefix
        }
    }
}
