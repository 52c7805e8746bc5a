package import GatewayCore
package import LinuxIO
package import WireGuard

/// The routes that others have laid into our TUN: a routing daemon's, by BGP over a tunnel, or somebody's with
/// `ip route`. The connections with `dynamic = true` take their prefixes from here. Pure.
///
/// 1. `replace` takes the kernel's list, `handle` each event after it; while `needsDump`, the list is to be
///    read again: the kernel does not tell of every route that it takes away itself.
/// 2. `prefixes(via:)` are what a connection carries: the routes whose gateway is the far inside address of one
///    of its tunnels.
///
/// Whoever made a route by such a gateway meant that tunnel, so every protocol counts but our own and what the
/// kernel makes by itself. The kernel needs no route of ours for these prefixes: theirs are in the main table,
/// and our rules let it pass by.
///
/// **Every way in, not only the best way out.** A far site may answer by another gateway than the one that we
/// send to, and a packet is taken from a connection only if the prefix of its source is known to be behind it. The
/// kernel's best route says that of one gateway. So each hop of a multipath route counts, each of several routes with
/// different metrics, and a route in whatever table: where a routing daemon lays the routes of all neighbours
/// (BIRD `merge paths`, FRR `maximum-paths`, or a table for each neighbour), packets are taken from all of them. Who
/// announces nothing of a prefix is not taken at its word for it. What is sent goes to the usable connection with the
/// least metric (`PrefixChoice`).
///
/// **What fails closed.** When such a route is withdrawn, or the kernel takes it because the TUN is down or vgwd was
/// killed, its prefix is unreachable until it is back (`LearnedGuard`), unless `on-down` says otherwise. A route that
/// is in another table alone has no such guard: the rules that lead to that table are somebody's own, and say what
/// comes next. Before a prefix is learned for the first time, nobody here knows of it: who wants it closed
/// then, too, gives the connection the aggregate (`routes = ["10.0.0.0/8"]` beside `dynamic = true`). That must not
/// be a blackhole or unreachable route of the routing daemon in the main table (`RoutePlan` says why).
///
/// **What can loop.** Outer packets have the mark, and the main table is where they look: a learned route over
/// an endpoint leads them back into the tunnel. They are dropped there (`routingLoop`), `RouteKeeper
/// .leadsIntoTunnel` tells, and the remedy is an import filter in the routing daemon, or a host route to the
/// endpoint by the underlay.
///
/// The next hop of IPv6 BGP is often a link-local address, which is no inside address: the routing daemon must
/// be told to use the global one (BIRD `next hop prefer global`, FRR `set ipv6 next-hop prefer-global`). Routes
/// by nexthop objects, FRR's own way, are understood while `net.ipv4.nexthop_compat_mode` is 1, as it is by
/// default.
package struct LearnedRoutes: Sendable {
    /// The kernel has one route there, or takes the first of several.
    private struct Place: Hashable {
        let destination: IPPrefix
        let table: UInt32
        let metric: UInt32

        init(_ route: NetlinkRoute) {
            destination = route.destination
            table = route.table
            metric = route.metric
        }
    }

    private let interface: UInt32
    private let limit: Int
    /// The gateways in the TUN at each place; nil is on the link.
    private var gateways: [Place: Set<IPAddress?>] = [:]
    package private(set) var needsDump = true
    /// There are more than `limit`, and some are not here.
    package private(set) var isTruncated = false

    package init(interface: UInt32, limit: Int = LearnedGuard.limit) {
        self.interface = interface
        self.limit = limit
    }

    package var isEmpty: Bool { gateways.isEmpty }

    /// From `RouteKeeper.routesIntoTunnel`. True when anything is another than before.
    @discardableResult
    package mutating func replace(_ dump: [NetlinkRoute]) -> Bool {
        let before = gateways
        gateways = [:]
        needsDump = false
        isTruncated = false
        // IPv4 allows several at one place: the kernel takes the first.
        for route in dump where gateways[Place(route)] == nil { put(route, at: Place(route)) }
        return gateways != before
    }

    /// True when anything has changed. After events that leave a doubt, `needsDump` is true.
    package mutating func handle(_ event: NetlinkEvent) -> Bool {
        switch event {
        case .routeAdded(let route):
            let place = Place(route)
            let before = gateways[place]
            if taken(from: route).isEmpty {
                // It replaced what was here, or stands behind it: the event does not say which.
                if before != nil { needsDump = true }
                return false
            }
            put(route, at: place)
            return gateways[place] != before
        case .routeRemoved(let route):
            let place = Place(route)
            guard let before = gateways[place] else { return false }
            // A single hop of an IPv6 multipath route may go.
            let rest = before.subtracting(taken(from: route))
            guard rest != before else { return false }
            gateways[place] = rest.isEmpty ? nil : rest
            if isTruncated, gateways.count <= limit / 8 * 7 { needsDump = true }
            return true
        case .linkChanged(let link) where link.index == interface:
            guard !link.isUp else {
                needsDump = true
                return false
            }
            return clear()
        case .linkRemoved(let index, _) where index == interface: return clear()
        // Routes from that address go with it, without an event.
        case .addressRemoved(let address):
            if address.interface == interface, !gateways.isEmpty { needsDump = true }
            return false
        case .overflow:
            needsDump = true
            return false
        default: return false
        }
    }

    /// A link that is down has no routes.
    private mutating func clear() -> Bool {
        let isChanged = !gateways.isEmpty
        gateways = [:]
        needsDump = false
        isTruncated = false
        return isChanged
    }

    private mutating func put(_ route: NetlinkRoute, at place: Place) {
        let taken = taken(from: route)
        guard !taken.isEmpty else { return }
        guard gateways.count < limit || gateways[place] != nil else {
            isTruncated = true
            return
        }
        gateways[place] = taken
    }

    /// The gateways of the route in our TUN: none when it is not one to learn.
    private func taken(from route: NetlinkRoute) -> Set<IPAddress?> {
        let others = [
            NetlinkRoute.ownProtocol, NetlinkRoute.kernelProtocol, NetlinkRoute.redirectProtocol,
        ]
        guard route.kind == .unicast, !others.contains(route.protocol),
            route.table != NetlinkRoute.localTable, !route.destination.isMulticast
        else { return [] }
        return Set(route.hops.lazy.filter { $0.interface == interface }.map(\.gateway))
    }

    // MARK: What is learned

    /// By any of these gateways, in order; of several metrics or tables the best metric.
    package func prefixes(via remotes: [IPAddress]) -> [LearnedRoute] {
        let remotes = Set(remotes.map { IPAddress?.some($0) })
        var routes: [IPPrefix: LearnedRoute] = [:]
        for (place, gateways) in gateways where !gateways.isDisjoint(with: remotes) {
            let before = routes[place.destination]
            routes[place.destination] = LearnedRoute(
                place.destination, metric: min(before?.metric ?? .max, place.metric),
                isInMainTable: before?.isInMainTable ?? false || place.table == NetlinkRoute.mainTable)
        }
        return routes.values.sorted {
            ($0.prefix.family.rawValue, $0.prefix.first, $0.prefix.length)
                < ($1.prefix.family.rawValue, $1.prefix.first, $1.prefix.length)
        }
    }
}
