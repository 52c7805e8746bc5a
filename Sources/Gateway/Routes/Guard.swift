internal import LinuxIO
package import Logging
internal import WireGuard

extension GatewayState {
    /// What is unreachable while nothing of the gateway runs: what all connections have, as if each of them were down,
    /// and the far ends of the inside links. `metric` is that of connections without one.
    package func guardPrefixes(metric: UInt32) -> [RoutePlan.Prefix] {
        let choice = PrefixChoice(
            connections.map { connection in
                PrefixChoice.Candidate(
                    connection.routes.map {
                        PrefixChoice.Claim($0.prefix, metric: connection.metric ?? metric)
                    }, health: .dead,
                    onDown: connection.onDown == .unreachable ? .unreachable : .withdraw)
            })
        let ends = Set(
            connections.flatMap(\.tunnels).compactMap(\.inside?.remote).map { IPPrefix(host: $0) })
        return ends.map { RoutePlan.Prefix($0, state: .unreachable) }
            + choice.kernel.filter { !ends.contains($0.prefix) }
    }
}

extension RouteKeeper {
    /// The guard alone, while there is no interface yet. What is there already stays.
    package static func layGuard(_ plan: RoutePlan, _ prefixes: [RoutePlan.Prefix], log: Logger) {
        do throws(SystemError) {
            var keeper = try RouteKeeper(plan: plan, interface: 0, log: log)
            try keeper.add(prefixes)
        } catch {
            log.error("the last resort cannot be laid yet", metadata: ["error": "\(error)"])
        }
    }
}
