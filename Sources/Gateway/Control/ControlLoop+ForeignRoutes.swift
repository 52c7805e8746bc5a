internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// Routes and rules of others that take packets for carried prefixes past the tunnels: said, and no more. An exclusive
/// connection takes none.
extension ControlLoop {
    /// After routes or rules have changed, and what is carried.
    func lookAtForeignRoutes() {
        guard settings.managesLink, isTunHere, keeper.installsRoutes, keeper.makesRules else { return }
        do throws(SystemError) {
            let netlink = try Netlink()
            if foreign.needsDump {
                var found: [NetlinkRoute] = []
                for maker in ForeignRoutes.makers.keys { found += try netlink.routes(protocol: maker) }
                foreign.replace(found)
            }
            report(rules: try netlink.rules(protocol: nil))
        } catch {
            log.error("kernel routes cannot be read", metadata: ["error": "\(error)"])
        }
        let open = state.connections.filter { !$0.isExclusive }
        let found = foreign.inside(Set(open.flatMap(\.prefixes)).subtracting(leftOut.keys))
        for route in found.subtracting(pastTunnels) {
            raise(
                .routeBypassed, connection: owner(of: route)?.name, reason: "foreign-route", words(route),
                details: ["prefix": "\(route.destination)", "link": linkName(route.interface)],
                level: .warning)
        }
        for route in pastTunnels.subtracting(found) {
            raise(
                .routeRestored, connection: owner(of: route)?.name, reason: "foreign-route",
                "\(route.destination) no longer goes past the tunnels",
                details: ["prefix": "\(route.destination)"],
                level: .notice)
        }
        pastTunnels = found
    }

    /// Rules before ours may take any packet: whom they mean is not looked at.
    private func report(rules: [NetlinkRule]) {
        let found = Set(
            rules.filter { rule in
                rule.protocol != NetlinkRoute.ownProtocol && rule.priority > 0
                    && rule.priority < RoutePlan.firstPriority
            })
        for rule in found.subtracting(rulesBefore) {
            raise(
                .routeBypassed, reason: "foreign-rule", words(rule),
                details: ["priority": "\(rule.priority)", "table": "\(rule.table)"], level: .warning)
        }
        rulesBefore = found
    }

    private func owner(of route: NetlinkRoute) -> Connection? {
        state.connections.filter { $0.prefixes.contains { $0.contains(route.destination) } }.max { a, b in
            func longest(_ connection: Connection) -> Int {
                connection.prefixes.filter { $0.contains(route.destination) }.map(\.length).max() ?? 0
            }
            return longest(a) < longest(b)
        }
    }

    private func linkName(_ index: UInt32) -> String {
        ((try? Netlink().link(index: index)) ?? nil)?.name ?? "link \(index)"
    }

    private func words(_ route: NetlinkRoute) -> String {
        let gateway = route.gateway.map { " via \($0)" } ?? ""
        let maker = ForeignRoutes.makers[route.protocol].map { ", a route that \($0) made" } ?? ""
        return "\(route.destination) goes past the tunnels by \(linkName(route.interface))\(gateway)\(maker)"
    }

    private func words(_ rule: NetlinkRule) -> String {
        "rule \(rule.priority) (\(rule.condition)lookup \(rule.table)) comes before the tunnels"
    }

    // MARK: Status

    func foreignNotices(of connection: Connection) -> [String] {
        pastTunnels.filter { owner(of: $0)?.name == connection.name }.map {
            words($0) + "; exclusive = true would keep it in"
        }.sorted()
    }

    var ruleNotices: [String] { rulesBefore.sorted { $0.priority < $1.priority }.map { words($0) } }
}
