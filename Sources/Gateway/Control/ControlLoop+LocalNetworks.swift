internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// Prefixes that are also local here (`LocalNetwork`), which comes and goes with links and addresses.
extension ControlLoop {
    /// After links or addresses came or went.
    func lookAtLocalNetworks() {
        areLocalNetworksStale = false
        guard settings.managesLink else { return }
        let before = sources
        localNetworks = LocalNetwork.all(except: tun.name)
        chooseSources()
        guard leftOutNow() != leftOut || sources != before else { return }
        publishForwarding()
        reconcileRoutes()
    }

    /// After every change of prefixes or of local networks, before what is carried is chosen.
    func chooseLeftOut() {
        let before = leftOut
        leftOut = leftOutNow()
        for (prefix, local) in leftOut where before[prefix] == nil {
            raise(
                .routeRemoved, connection: state.owners(of: prefix).first, reason: "local-network",
                "\(prefix) is left out: \(Self.words(local, prefix))",
                details: ["prefix": "\(prefix)", "link": local.interface], level: .warning)
        }
        for prefix in before.keys where leftOut[prefix] == nil && !state.owners(of: prefix).isEmpty {
            raise(
                .routeAdded, connection: state.owners(of: prefix).first, reason: "local-network",
                "\(prefix) is carried again: it is no longer local here", details: ["prefix": "\(prefix)"],
                level: .notice)
        }
    }

    private func leftOutNow() -> [IPPrefix: LocalNetwork] {
        guard localNetworks.contains(where: \.isInUse) else { return [:] }
        var found: [IPPrefix: LocalNetwork] = [:]
        // An exclusive connection's prefix is its own, whatever a link says that it is: a stranger may have said so.
        for connection in state.connections where !connection.isExclusive {
            for route in connection.routes {
                found[route.prefix] = localNetworks.inUse(holding: route.prefix)
            }
        }
        return found
    }

    /// Behind a link's own route to the very same prefix there is the last resort, as behind another router's: it goes
    /// nowhere else when the link goes. What is inside a link's network must be left to the shorter route.
    var leftOutGuards: [RoutePlan.Prefix] {
        leftOut.compactMap { prefix, local in
            local.network == prefix ? RoutePlan.Prefix(prefix, state: .unreachable) : nil
        }
    }

    static func words(_ local: LocalNetwork, _ prefix: IPPrefix) -> String {
        local.network == prefix
            ? "it is also the network of \(local.interface) here"
            : "it is also in \(local.network), the network of \(local.interface) here"
    }
}
