package import LinuxIO
package import WireGuard

/// From the prefixes of all connections to what the kernel must hold. Pure.
///
/// The routes are in a table of the gateway's own, and rules lead there only packets that have not the
/// firewall mark: the outer packets are marked, so that they never see a route into the tunnel, whichever
/// address a peer roams to.
///
/// A rule is tried before the main table, where the routes of the local links are. So that the longest prefix
/// still wins over both tables together, there are two rules for each length L among the prefixes, longest
/// first:
/// ```
/// not fwmark MARK lookup main  suppress_prefixlength L       what the main table has that is longer
/// not fwmark MARK lookup TABLE suppress_prefixlength L-1     the tunnels' prefixes of length L
/// ```
/// Of equal prefixes the tunnel's wins: a packet for it must not leave in clear. For the same reason each
/// prefix has a second route, of the last resort: while the TUN is down, or vgwd was killed and is not back
/// yet, the kernel has taken the routes into the TUN, and without it the packets would go by the default
/// route.
package struct RoutePlan: Hashable, Sendable {
    /// Rules of a gateway have priorities from here up, two for each length, below those of the main table
    /// (32766).
    package static let firstPriority: UInt32 = 32_000
    package static let priorities = firstPriority..<(firstPriority + 258)

    /// Of the routes of last resort: the weakest but one.
    package static let backstopMetric: UInt32 = .max - 1

    /// Nil: somebody else installs routes.
    package var table: UInt32?
    /// 0 is none: there are no rules then.
    package var mark: UInt32
    /// 0 leaves it to the kernel.
    package var metric: UInt32
    package var addresses: [IPPrefix]

    package init(table: UInt32?, mark: UInt32, metric: UInt32 = 0, addresses: [IPPrefix]) {
        self.table = table
        self.mark = mark
        self.metric = metric
        self.addresses = addresses
    }

    package init(_ configuration: GatewayConfiguration) {
        self.init(
            table: configuration.routeTableNumber, mark: configuration.firewallMark ?? 0,
            metric: configuration.routeMetric ?? 0, addresses: configuration.addresses)
    }

    package func wanted(for prefixes: [IPPrefix], interface: UInt32) -> KernelState {
        var state = KernelState()
        state.addresses = Set(addresses)
        guard let table else { return state }
        for prefix in prefixes {
            state.routes.insert(
                NetlinkRoute(destination: prefix, interface: interface, table: table, metric: metric))
        }
        guard hasOwnTable else { return state }
        for prefix in prefixes { state.routes.insert(Self.backstop(for: prefix, in: table)) }
        for family in IPAddress.Family.allCases {
            let lengths = Set(
                state.routes.lazy.map(\.destination).filter { $0.family == family }.map(\.length))
            for length in lengths {
                let priority = Self.firstPriority + 2 * UInt32(family.width - length)
                state.rules.insert(
                    NetlinkRule(
                        family: family, priority: priority, mark: mark, isInverted: true,
                        table: NetlinkRoute.mainTable, suppressedPrefixLength: UInt32(length)))
                state.rules.insert(
                    NetlinkRule(
                        family: family, priority: priority + 1, mark: mark, isInverted: true, table: table,
                        suppressedPrefixLength: length == 0 ? nil : UInt32(length - 1)))
            }
        }
        return state
    }

    /// Outer packets take the same routes: one over an endpoint would send the tunnel into itself.
    package var leadsOuterPackets: Bool { table != nil && !hasOwnTable }

    private var hasOwnTable: Bool { mark != 0 && table != NetlinkRoute.mainTable }

    private static func backstop(for prefix: IPPrefix, in table: UInt32) -> NetlinkRoute {
        NetlinkRoute(
            destination: prefix, interface: 0, table: table, metric: backstopMetric, kind: .unreachable)
    }

    /// Whether a route of our protocol is this gateway's.
    package func owns(_ route: NetlinkRoute, interface: UInt32) -> Bool {
        guard route.protocol == NetlinkRoute.ownProtocol else { return false }
        return route.interface == interface
            || (hasOwnTable && route == Self.backstop(for: route.destination, in: table ?? 0))
    }

    /// Whether a rule of our protocol is this gateway's: from this run, or left by one that was killed.
    /// Another gateway on the host has another mark.
    package func owns(_ rule: NetlinkRule) -> Bool {
        mark != 0 && rule.mark == mark && rule.isInverted && rule.protocol == NetlinkRoute.ownProtocol
            && Self.priorities.contains(rule.priority)
    }
}
