package import LinuxIO
package import WireGuard

/// Routes of others in the main table that are longer than a carried prefix around them: they win over the tunnel
/// (`RoutePlan`), and whoever answers DHCP or sends router advertisements on a link of ours can make such a route. Pure.
///
/// 1. `replace` takes the kernel's list, `handle` each event after it; while `needsDump`, the list is to be read again.
/// 2. `inside` are those that take packets past the tunnels.
///
/// What a routing daemon lays is not among them: that somebody set up on purpose.
package struct ForeignRoutes: Sendable {
    /// RTPROT_* of rtnetlink.h, and who makes such routes.
    package static let makers: [UInt8: String] = [
        1: "an ICMP redirect", 3: "'ip route'", 4: "the network set-up", 9: "a router advertisement",
        16: "DHCP",
    ]
    private static let limit = 4096

    /// The kernel has one route there, or takes the first of several.
    private struct Place: Hashable {
        let destination: IPPrefix
        let metric: UInt32
    }

    private let tun: UInt32
    private var routes: [Place: NetlinkRoute] = [:]
    package private(set) var needsDump = true

    package init(tun: UInt32) { self.tun = tun }

    package mutating func replace(_ dump: [NetlinkRoute]) {
        routes = [:]
        needsDump = false
        for route in dump { put(route) }
    }

    /// Returns true if anything may have changed.
    package mutating func handle(_ event: NetlinkEvent) -> Bool {
        switch event {
        case .routeAdded(let route):
            guard isMeant(route) else { return false }
            put(route)
            return true
        case .routeRemoved(let route):
            return routes.removeValue(forKey: Place(destination: route.destination, metric: route.metric))
                != nil
        // Routes go with a link or an address, without an event.
        case .linkChanged, .linkRemoved, .addressRemoved, .overflow:
            needsDump = true
            return true
        case .addressAdded, .ruleAdded, .ruleRemoved: return false
        }
    }

    private mutating func put(_ route: NetlinkRoute) {
        guard isMeant(route), routes.count < Self.limit else { return }
        routes[Place(destination: route.destination, metric: route.metric)] = route
    }

    private func isMeant(_ route: NetlinkRoute) -> Bool {
        route.table == NetlinkRoute.mainTable && route.kind == .unicast && Self.makers[route.protocol] != nil
            && route.interface != tun && route.destination.length > 0
    }

    /// Those inside a carried prefix, and not inside a longer or equal one that is carried.
    package func inside(_ carried: Set<IPPrefix>) -> Set<NetlinkRoute> {
        let lengths = Dictionary(grouping: carried, by: \.family).mapValues { Set($0.map(\.length)) }
        return Set(
            routes.values.filter { route in
                let destination = route.destination
                guard !carried.contains(destination) else { return false }
                return (lengths[destination.family] ?? []).contains { length in
                    guard length < destination.length,
                        let around = IPPrefix(address: destination.address, length: length)?.network
                    else { return false }
                    return carried.contains(around)
                }
            })
    }
}
