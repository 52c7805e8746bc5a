package import GatewayCore
package import LinuxIO
package import WireGuard

/// From the prefixes of all connections to what the kernel must hold. Pure.
///
/// The routes are in tables of the gateway's own, and rules lead there only packets that have not the
/// firewall mark: the outer packets are marked, so that they never see a route into the tunnel, whichever
/// address a peer roams to.
///
/// A rule is tried before the main table, where the routes of the local links are. So that the longest prefix
/// still wins over all tables together, there are four rules for each length L among the prefixes, longest
/// first:
/// ```
/// 1  not fwmark MARK lookup main     suppress_prefixlength L      what the main table has that is longer
/// 2  not fwmark MARK lookup TABLE    suppress_prefixlength L-1    what the tunnels carry, of length L
/// 3  not fwmark MARK lookup main     suppress_prefixlength L-1    what the main table has of length L
/// 4  not fwmark MARK lookup BACKSTOP(L)                           the last resort, of length L
/// ```
/// Of equal prefixes the tunnel's wins: a packet for it must not leave in clear. When the tunnel has none, an
/// administrator's or another gateway's takes over: those of all gateways on the host come before anybody's
/// last resort, as the priorities are the same for everybody. But 3 is left out for L = 0: the default route
/// of the main table is the way in clear that the last resort is there to prevent.
///
/// The last resort is a route of type unreachable for each prefix, also while a tunnel carries it: when the
/// TUN is down, or vgwd was killed and is not back yet, the kernel has taken the routes into the TUN, and
/// without it the packets would go by the default route. It has a table for each length, because an
/// unreachable route ends the lookup, whatever a rule suppresses: in one table with the others a shorter one
/// would hide what is longer in the main table.
///
/// The same holds for an unreachable, prohibit or blackhole route that somebody else has in the main table,
/// as routing daemons do for an aggregate: it ends the lookup at rule 1 for all that it covers, our longer
/// prefixes too. Nothing leaves in clear by it, but the tunnel is not used: no such route may be in the main
/// table over a prefix of a connection.
///
/// A learned prefix has no route of ours into the TUN, as the routing daemon's is in the main table, and 1 and 3
/// find it there: but the default one has, since 3 is left out for it. Its last resort is told from others' by its
/// metric, so that the run after a kill guards it again (`LearnedGuard`).
///
/// The sign is one more route of type unreachable, in a table that nothing leads to: it shows others on the host that
/// the numbers are taken (`RoutingSurvey`), also while there is no prefix.
///
/// An exclusive prefix P of length L lets nothing of the main table pass, be it longer, and no rule of others that is
/// behind these, which are for all lengths and before most people's:
/// ```
/// 1  fwmark MARK to P lookup main                                 outer packets to a far end in P
/// 2  to P lookup TABLE           suppress_prefixlength L-1        what the tunnels carry, of P and longer
/// 3  to P lookup BACKSTOP(L)                                      the last resort
/// ```
/// So a network of this host inside P is cut off too. Who wants it has a rule of his own before these.
///
/// Where the operator's own rules lead to the table (`makesRules` is false), all is in that one table, the last resort
/// too, and nothing else sees it.
///
/// A multicast prefix is a matter of the data path: which tunnel takes such packets, and from which they are taken. The
/// kernel has no route for it: who sends to a group, a routing daemon, names the interface.
///
/// In the main table, where there is no rule, all are beside each other and metrics decide: the carried ones'
/// own, then everybody else's, then the covered ones, then the last resort.
package struct RoutePlan: Hashable, Sendable {
    /// Rules of a gateway have priorities from here up, four for each length, below those of the main table
    /// (32766).
    package static let firstPriority: UInt32 = 32_000
    /// Those of exclusive prefixes have this one and the next two.
    package static let exclusivePriority: UInt32 = 100

    /// Worse than any that other people use, and each gateway's own by `tag`: two in the main table of one host
    /// must not take each other's for theirs, and a covered prefix of one comes before the last resort of all.
    package static let backstopMetrics: ClosedRange<UInt32> = 0xffff_0000 - 1...UInt32.max - 1
    package static let learnedMetrics: ClosedRange<UInt32> = 0xfffe_0000 - 1...0xffff_0000 - 2
    package static let coveredMetrics: ClosedRange<UInt32> = 0xfffd_0000 - 1...0xfffe_0000 - 2

    /// Nil: somebody else installs routes.
    package var table: UInt32?
    /// 0 is none: there are no rules then.
    package var mark: UInt32
    /// False: rules are somebody else's business.
    package var makesRules: Bool
    /// 0 leaves it to the kernel.
    package var metric: UInt32
    package var addresses: [IPPrefix]
    /// Tells this gateway's last resort from another's.
    package let tag: UInt16

    package init(
        table: UInt32?, mark: UInt32, makesRules: Bool = true, metric: UInt32 = 0, addresses: [IPPrefix],
        interfaceName: String = ""
    ) {
        self.table = table
        self.mark = mark
        self.makesRules = makesRules
        self.metric = metric
        self.addresses = addresses
        // FNV-1a: the same in every run, as what a killed one left must be known again.
        let hash = interfaceName.utf8.reduce(UInt32(0x811c_9dc5)) { ($0 ^ UInt32($1)) &* 0x0100_0193 }
        tag = UInt16(truncatingIfNeeded: hash ^ hash >> 16)
    }

    /// With the numbers that the configuration would have if nobody else had any.
    package init(_ configuration: GatewayConfiguration) {
        let numbers = configuration.routingNumbers.preferred
        self.init(
            table: numbers.table, mark: numbers.mark, makesRules: configuration.makesRules,
            metric: configuration.routeMetric ?? 0, addresses: configuration.interfaceAddresses,
            interfaceName: configuration.interface)
    }

    package func wanted(for prefixes: [WantedPrefix], interface: UInt32) -> KernelState {
        var state = KernelState()
        state.addresses = Set(addresses)
        guard let table else { return state }
        // Each prefix has a route into the TUN and one of the last resort.
        state.routes.reserveCapacity(2 * prefixes.count + 1)
        var lengths: Set<Length> = []
        for prefix in prefixes where !prefix.prefix.isMulticast {
            // Also where there is nothing to look up: a connection that comes and goes moves no rule.
            lengths.insert(Length(family: prefix.prefix.family, length: prefix.prefix.length))
            switch prefix.state {
            case .carried:
                // A routing daemon has its own route in the main table, which is not looked at before that of everything,
                // nor for an exclusive prefix.
                guard !prefix.isLearned || hasOwnTable && (prefix.prefix.length == 0 || prefix.isExclusive)
                else { break }
                state.routes.insert(
                    NetlinkRoute(
                        destination: prefix.prefix, interface: interface, table: table,
                        metric: hasOwnTable ? metric : prefix.metric ?? metric,
                        preferredSource: prefix.source))
            case .covered:
                state.routes.insert(
                    NetlinkRoute(
                        destination: prefix.prefix, interface: interface,
                        table: backstopTable(of: prefix.prefix, table),
                        metric: Self.coveredMetrics.upperBound - UInt32(tag),
                        preferredSource: prefix.source))
            case .unreachable: break
            case .withdrawn: continue
            }
            state.routes.insert(backstop(for: prefix, table))
            if prefix.isExclusive, hasOwnTable {
                state.rules.formUnion(exclusiveRules(for: prefix.prefix, table))
            }
        }
        if hasOwnTable {
            for length in lengths { state.rules.formUnion(rules(for: length, table)) }
        }
        if hasOwnTable || !makesRules { state.routes.insert(sign(table)) }
        return state
    }

    private struct Length: Hashable {
        let family: IPAddress.Family
        let length: Int
    }

    private func rules(for length: Length, _ table: UInt32) -> [NetlinkRule] {
        func rule(_ position: UInt32, _ table: UInt32, suppressing suppressed: Int?) -> NetlinkRule {
            NetlinkRule(
                family: length.family,
                priority: Self.firstPriority + 4 * UInt32(length.family.width - length.length) + position,
                mark: mark, isInverted: true, table: table,
                suppressedPrefixLength: suppressed.flatMap { UInt32(exactly: $0) })
        }
        let main = NetlinkRoute.mainTable
        let shorter = length.length - 1
        return [
            rule(0, main, suppressing: length.length),
            rule(1, table, suppressing: shorter),
        ] + (length.length == 0 ? [] : [rule(2, main, suppressing: shorter)]) + [
            rule(3, Self.backstopTable(of: table, length: length.length), suppressing: nil)
        ]
    }

    private func exclusiveRules(for prefix: IPPrefix, _ table: UInt32) -> [NetlinkRule] {
        func rule(
            _ position: UInt32, mark: UInt32? = nil, _ table: UInt32, suppressing suppressed: Int? = nil
        ) -> NetlinkRule {
            NetlinkRule(
                family: prefix.family, priority: Self.exclusivePriority + position, mark: mark,
                destination: prefix, table: table,
                suppressedPrefixLength: suppressed.flatMap { UInt32(exactly: $0) })
        }
        return [
            rule(0, mark: mark, NetlinkRoute.mainTable), rule(1, table, suppressing: prefix.length - 1),
            rule(2, Self.backstopTable(of: table, length: prefix.length)),
        ]
    }

    /// Outer packets take the same routes: one over an endpoint would send the tunnel into itself. Where rules are
    /// somebody else's, so is the choice of what they lead there.
    package var leadsOuterPackets: Bool { table != nil && makesRules && !hasOwnTable }

    /// There are rules of ours, which keep outer packets out of the table and can put prefixes before other tables.
    package var hasOwnTable: Bool {
        makesRules && mark != 0 && table.map { $0 != NetlinkRoute.mainTable } ?? false
    }

    // MARK: The last resort

    /// Where nobody has tables by hand, and never `table` itself: its lowest 22 bits and the length, under the
    /// highest bit, or the next one where `table` has that. Gateways on one host need tables that differ in
    /// those 22 bits.
    package static func backstopTable(of table: UInt32, length: Int) -> UInt32 {
        (table >> 31 == 0 ? 1 << 31 : 1 << 30) | (table & 0x3f_ffff) << 8 | UInt32(length)
    }

    /// In place of a length.
    private static let signLength = 255

    /// Whether `table` is `own` or one of its last resort's.
    package static func isTable(_ table: UInt32, of own: UInt32) -> Bool {
        table == own || table == backstopTable(of: own, length: Int(table & 0xff))
    }

    private func sign(_ table: UInt32) -> NetlinkRoute {
        NetlinkRoute(
            destination: IPPrefix(host: .any(.v4)), interface: 0,
            table: Self.backstopTable(of: table, length: Self.signLength), metric: backstopMetric,
            kind: .unreachable)
    }

    private func backstopTable(of prefix: IPPrefix, _ table: UInt32) -> UInt32 {
        hasOwnTable ? Self.backstopTable(of: table, length: prefix.length) : table
    }

    private func backstop(for prefix: WantedPrefix, _ table: UInt32) -> NetlinkRoute {
        NetlinkRoute(
            destination: prefix.prefix, interface: 0, table: backstopTable(of: prefix.prefix, table),
            metric: prefix.isLearned ? learnedMetric : backstopMetric, kind: .unreachable)
    }

    private var backstopMetric: UInt32 { Self.backstopMetrics.upperBound - UInt32(tag) }
    private var learnedMetric: UInt32 { Self.learnedMetrics.upperBound - UInt32(tag) }

    // MARK: Ownership

    /// Whether a route is this gateway's last resort, of whatever run and under whatever numbers.
    package func isLastResort(_ route: NetlinkRoute) -> Bool {
        route.protocol == NetlinkRoute.ownProtocol && route.kind == .unreachable
            && (route.metric == backstopMetric || route.metric == learnedMetric)
    }

    /// Whether a rule of vgwd's protocol leads to the table of what tunnels carry: the second of four.
    package static func isCarrying(_ rule: NetlinkRule) -> Bool {
        rule.priority >= firstPriority && (rule.priority - firstPriority) % 4 == 1
    }

    /// Whether a route of our protocol is this gateway's: from this run, or left by one that was killed, also
    /// of an earlier version, which had the last resort in the same table.
    package func owns(_ route: NetlinkRoute, interface: UInt32) -> Bool {
        guard route.protocol == NetlinkRoute.ownProtocol else { return false }
        if route.interface == interface, interface != 0 { return true }
        guard let table else { return false }
        if isLastResort(route) { return Self.isTable(route.table, of: table) }
        return route.kind == .unreachable && route.table == table && table != NetlinkRoute.mainTable
    }

    /// Whether a route is the last resort of a learned prefix, of this gateway, of whatever run.
    package func isLearnedGuard(_ route: NetlinkRoute) -> Bool {
        isLastResort(route) && route.metric == learnedMetric
    }

    /// Whether a rule of our protocol is this gateway's: another one on the host has another mark.
    package func owns(_ rule: NetlinkRule) -> Bool {
        guard mark != 0, rule.protocol == NetlinkRoute.ownProtocol else { return false }
        if rule.mark == mark { return rule.isInverted || rule.priority == Self.exclusivePriority }
        // What an exclusive prefix is looked up in tells whose it is.
        guard rule.mark == nil, !rule.isInverted, let table else { return false }
        return rule.table == table
            || rule.table == Self.backstopTable(of: table, length: rule.destination?.length ?? 0)
    }
}
