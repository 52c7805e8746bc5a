internal import WireGuard

/// What this host itself sends to the far sites from (`PreferredSource`), which changes with links, addresses and routes.
extension ControlLoop {
    /// After every change of local networks and of the ways of outer packets.
    func chooseSources() {
        guard settings.managesLink, keeper.installsRoutes else { return }
        let own = keeper.ownAddresses()
        let guessing = state.connections.contains { $0.sources.isEmpty && !$0.routes.isEmpty }
        let outer = guessing ? outerInterfaces() : []
        sources = Dictionary(
            uniqueKeysWithValues: state.connections.map { connection in
                guard connection.sources.isEmpty else {
                    // The kernel refuses a route that prefers an address which is not there.
                    return (connection.name, connection.sources.filter(own.contains))
                }
                let guesses = PreferredSource.guesses(
                    from: localNetworks, outerInterfaces: outer, translations: connection.translations
                ) { !state.owners(of: $0).isEmpty }
                return (connection.name, guesses.map(\.address))
            })
    }

    private func outerInterfaces() -> Set<String> {
        let endpoints = tunnels.peers.flatMap { peer in
            (tunnels[peer]?.endpoints.candidates.map(\.address) ?? [])
                + [device.path(of: peer)?.underlay?.endpoint.address].compactMap(\.self)
        }
        return PreferredSource.outerInterfaces(
            to: Set(endpoints),
            boundTo: underlays.bindings.compactMap(\.device), mark: state.firewallMark)
    }

    /// Each with the source of the connection that takes its packets now, in the order of `state.connections`.
    func withSources(_ prefixes: [RoutePlan.Prefix], _ choice: PrefixChoice) -> [RoutePlan.Prefix] {
        let byConnection = state.connections.map { sources[$0.name] ?? [] }
        guard byConnection.contains(where: { !$0.isEmpty }) else { return prefixes }
        let isOneForAll = byConnection.allSatisfy { $0 == byConnection[0] }
        let takers =
            isOneForAll
            ? nil
            : PrefixTable(
                choice.prefixes.enumerated().flatMap { number, prefixes in
                    prefixes.map { (prefix: $0, value: Int32(number)) }
                })
        return prefixes.map { prefix in
            // One that is covered goes where the shorter prefix around it goes.
            let taker = takers.map { Int($0.lookup(prefix.prefix.address)) } ?? 0
            guard taker >= 0 else { return prefix }
            var prefix = prefix
            prefix.source = byConnection[taker].first { $0.family == prefix.prefix.family }
            return prefix
        }
    }
}
