package import LinuxIO

/// What there is in the kernel under somebody's numbers, and whose it is. Pure.
///
/// Each gateway's routes of type unreachable have a metric of its own (`RoutePlan.tag`), and one of them, the sign, is
/// always there. So rules belong to whose routes are in the table that they lead to.
package struct RoutingSurvey: Sendable {
    /// Rules of all protocols.
    package var rules: [NetlinkRule]
    /// Routes of vgwd's protocol.
    package var routes: [NetlinkRoute]
    /// Plan of the gateway that looks; only its tag counts.
    package let plan: RoutePlan
    /// Index of its interface; 0 while there is none.
    package let interface: UInt32
    /// Numbers of its last run.
    package let remembered: RoutingNumbers?

    package init(
        rules: [NetlinkRule], routes: [NetlinkRoute], plan: RoutePlan, interface: UInt32 = 0,
        remembered: RoutingNumbers? = nil
    ) {
        self.rules = rules
        self.routes = routes
        self.plan = plan
        self.interface = interface
        self.remembered = remembered
    }

    package enum Holder: Hashable, Sendable {
        /// A vgwd with this interface; 0 where none of its interface is to be seen: it does not run, or is about to.
        case gateway(interface: UInt32)
        /// Such as wg-quick.
        case somebodyElse
    }

    /// Marks of rules that earlier runs of this gateway made.
    package var ownMarks: Set<UInt32> { Set(tablesByMark.keys.filter(isOwn)) }

    /// Who else has one of the numbers. Rules of others that only select the mark, or lead to the table, are an operator's
    /// own beside this gateway's; so are those for all but the mark, where there is no table of ours that they could be
    /// in the way of.
    package func holder(of numbers: RoutingNumbers) -> Holder? {
        if numbers.mark != 0 {
            if tablesByMark[numbers.mark] != nil, !isOwn(numbers.mark) {
                return .gateway(interface: owner(of: tablesByMark[numbers.mark] ?? []))
            }
            let isForeign = rules.contains {
                $0.isInverted && $0.mark == numbers.mark && $0.protocol != NetlinkRoute.ownProtocol
            }
            if isForeign, numbers.table != nil { return .somebodyElse }
        }
        guard let table = numbers.table, table != NetlinkRoute.mainTable else { return nil }
        if routes(of: [table]).contains(where: { !isOwn($0) }) {
            return .gateway(interface: owner(of: [table]))
        }
        let isLedTo = tablesByMark.contains { mark, tables in tables.contains(table) && !isOwn(mark) }
        return isLedTo ? .gateway(interface: 0) : nil
    }

    /// By the mark of vgwd's rules: the tables that they lead to.
    private var tablesByMark: [UInt32: Set<UInt32>] {
        var tables: [UInt32: Set<UInt32>] = [:]
        for rule in rules {
            guard rule.protocol == NetlinkRoute.ownProtocol, rule.isInverted, let mark = rule.mark else {
                continue
            }
            tables[mark, default: []].formUnion(RoutePlan.isCarrying(rule) ? [rule.table] : [])
        }
        return tables
    }

    private func isOwn(_ mark: UInt32) -> Bool {
        let routes = routes(of: tablesByMark[mark] ?? [])
        return routes.isEmpty ? remembered?.mark == mark : routes.allSatisfy(isOwn)
    }

    private func isOwn(_ route: NetlinkRoute) -> Bool {
        plan.isLastResort(route) || (interface != 0 && route.interface == interface)
    }

    private func routes(of tables: Set<UInt32>) -> [NetlinkRoute] {
        routes.filter { route in tables.contains { RoutePlan.isTable(route.table, of: $0) } }
    }

    private func owner(of tables: Set<UInt32>) -> UInt32 {
        routes(of: tables).first { $0.kind == .unicast && !isOwn($0) }?.interface ?? 0
    }
}
