internal import ControlAPI
internal import GatewayCore
internal import LinuxIO
internal import Logging
internal import WireGuard

/// Routes and rules of others that take packets for carried prefixes past the tunnels: said, and no more. An exclusive
/// connection takes none.
struct ForeignRouteWatch {
    private var routes: ForeignRoutes
    /// Routes of others that lead past the tunnels.
    private var past: Set<NetlinkRoute> = []
    /// Rules of others that come before ours.
    private var rules: Set<NetlinkRule> = []

    init(tun: UInt32) { routes = ForeignRoutes(tun: tun) }

    /// The interface has another index now; 0 is none.
    mutating func follow(tun: UInt32) { routes = ForeignRoutes(tun: tun) }

    mutating func handle(_ event: NetlinkEvent) -> Bool { routes.handle(event) }

    /// After routes or rules have changed, and what is carried.
    mutating func look(_ gateway: inout Gateway, now: Instant, _ log: Logger) {
        do throws(SystemError) {
            let netlink = try Netlink()
            if routes.needsDump {
                var found: [NetlinkRoute] = []
                for maker in ForeignRoutes.makers.keys { found += try netlink.routes(protocol: maker) }
                routes.replace(found)
            }
            tell(rules: try netlink.rules(protocol: nil), &gateway, now)
        } catch {
            log.error("kernel routes cannot be read", metadata: ["error": "\(error)"])
        }
        let found = routes.inside(gateway.openPrefixes)
        for route in found.subtracting(past) {
            gateway.raise(
                .routeBypassed, connection: Self.owner(of: route, gateway.spec), reason: "foreign-route",
                words(route),
                details: ["prefix": "\(route.destination)", "link": Self.linkName(route.interface)],
                level: .warning, now: now)
        }
        for route in past.subtracting(found) {
            gateway.raise(
                .routeRestored, connection: Self.owner(of: route, gateway.spec), reason: "foreign-route",
                "\(route.destination) no longer goes past the tunnels",
                details: ["prefix": "\(route.destination)"], level: .notice, now: now)
        }
        past = found
    }

    /// Rules before ours may take any packet: whom they mean is not looked at.
    private mutating func tell(rules all: [NetlinkRule], _ gateway: inout Gateway, _ now: Instant) {
        let found = Set(
            all.filter { rule in
                rule.protocol != NetlinkRoute.ownProtocol && rule.priority > 0
                    && rule.priority < RoutePlan.firstPriority
            })
        for rule in found.subtracting(rules) {
            gateway.raise(
                .routeBypassed, reason: "foreign-rule", words(rule),
                details: ["priority": "\(rule.priority)", "table": "\(rule.table)"], level: .warning,
                now: now)
        }
        rules = found
    }

    /// The connection with the longest prefix around the route.
    private static func owner(of route: NetlinkRoute, _ spec: GatewaySpec) -> String? {
        func longest(_ connection: ConnectionSpec) -> Int? {
            connection.routes.lazy.map(\.prefix).filter { $0.contains(route.destination) }.map(\.length)
                .max()
        }
        return spec.connections.compactMap { connection in
            longest(connection).map { (connection.name, $0) }
        }.max { $0.1 < $1.1 }?.0
    }

    private static func linkName(_ index: UInt32) -> String {
        ((try? Netlink().link(index: index)) ?? nil)?.name ?? "link \(index)"
    }

    private func words(_ route: NetlinkRoute) -> String {
        let gateway = route.gateway.map { " via \($0)" } ?? ""
        let maker = ForeignRoutes.makers[route.protocol].map { ", a route that \($0) made" } ?? ""
        return
            "\(route.destination) goes past the tunnels by \(Self.linkName(route.interface))\(gateway)\(maker)"
    }

    private func words(_ rule: NetlinkRule) -> String {
        "rule \(rule.priority) (\(rule.condition)lookup \(rule.table)) comes before the tunnels"
    }

    // MARK: Status

    func notices(of connection: String, _ spec: GatewaySpec) -> [String] {
        past.filter { Self.owner(of: $0, spec) == connection }.map {
            words($0) + "; exclusive = true would keep it in"
        }.sorted()
    }

    var ruleNotices: [String] { rules.sorted { $0.priority < $1.priority }.map { words($0) } }
}
