package import LinuxIO
package import WireGuard

/// What of the kernel's state is ours: wanted, or found.
package struct KernelState: Hashable, Sendable {
    /// On the TUN.
    package var addresses: Set<IPPrefix> = []
    package var routes: Set<NetlinkRoute> = []
    package var rules: Set<NetlinkRule> = []

    package init() {}
}

/// The kernel has one route there, or takes the first of several.
struct RoutePlace: Hashable {
    private let table: UInt32
    private let destination: IPPrefix
    private let metric: UInt32

    init(_ route: NetlinkRoute) {
        table = route.table
        destination = route.destination
        metric = route.metric
    }
}

/// One change to the kernel's state.
package enum KernelChange: Hashable, Sendable {
    case addAddress(IPPrefix)
    case addRoute(NetlinkRoute)
    /// In place of one of ours to the same destination with the same metric in the same table.
    case replaceRoute(NetlinkRoute)
    case removeRoute(NetlinkRoute)
    case addRule(NetlinkRule)
    case removeRule(NetlinkRule)
}

extension KernelState {
    /// What leads from `found` to this, in an order in which no packet finds a gap: what is new first, rules
    /// to a table after the routes in it, and addresses last, as what is sent from them must find a way into
    /// the tunnel. Of one prefix's routes the last resort comes after the others and goes before them, so that
    /// it never stands alone but where that is wanted. Addresses are only added: those that are not ours are an
    /// administrator's.
    package func changes(from found: KernelState) -> [KernelChange] {
        // There may be 100,000: what is looked at, and copied, is only what may differ.
        let missing =
            found.routes.isEmpty
            ? Array(routes) : routes.lazy.filter { !found.routes.contains($0) }.map(\.self)
        let superfluous =
            found.routes.count == routes.count - missing.count
            ? [] : found.routes.lazy.filter { !routes.contains($0) }.map(\.self)
        let (taken, retaken) =
            missing.isEmpty || superfluous.isEmpty
            ? ([], []) : (Set(superfluous.map(RoutePlace.init)), Set(missing.map(RoutePlace.init)))
        let left = superfluous.filter { !retaken.contains(RoutePlace($0)) }
        return Self.sorted(missing).map {
            taken.contains(RoutePlace($0)) ? .replaceRoute($0) : .addRoute($0)
        }
            + Self.sorted(rules.subtracting(found.rules)).map { .addRule($0) }
            + addresses.subtracting(found.addresses).sorted { "\($0)" < "\($1)" }.map { .addAddress($0) }
            // The first rule of a length lets longer prefixes pass by: it goes last.
            + Self.sorted(found.rules.subtracting(rules)).reversed().map { .removeRule($0) }
            + Self.sorted(left).reversed().map { .removeRoute($0) }
    }

    /// Those of type unreachable behind the others.
    private static func sorted(_ routes: [NetlinkRoute]) -> [NetlinkRoute] {
        // Routes are large: what is sorted are keys with places.
        let keys = routes.indices.map { place in
            let (route, prefix) = (routes[place], routes[place].destination)
            let group =
                UInt64(route.kind.rawValue) << 40 | UInt64(route.table) << 8 | UInt64(prefix.family.rawValue)
            return (group, prefix.address.bits, UInt64(prefix.length) << 32 | UInt64(route.metric), place)
        }
        return keys.sorted { $0 < $1 }.map { routes[$0.3] }
    }

    private static func sorted(_ rules: Set<NetlinkRule>) -> [NetlinkRule] {
        rules.sorted { ($0.family.rawValue, $0.priority) < ($1.family.rawValue, $1.priority) }
    }
}
