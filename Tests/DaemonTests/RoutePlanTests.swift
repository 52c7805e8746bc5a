internal import GatewayCore
import LinuxIO
import TestSupport
import Testing
import WireGuard

@testable import Daemon

@Suite struct RoutePlanTests {
    private let plan = RoutePlan(table: 51820, mark: 51820, addresses: [IPPrefix("10.9.0.1/30")!])

    private func prefixes(_ texts: String...) -> [IPPrefix] { texts.map { IPPrefix($0)! } }

    private func carried(_ texts: String...) -> [WantedPrefix] {
        texts.map { WantedPrefix(IPPrefix($0)!) }
    }

    private enum End: Hashable {
        case tun(table: UInt32)
        case main
        case unreachable
        case nowhere
    }

    /// The kernel's way with rules, enough of it to see where an unmarked or a marked packet ends.
    private func lookup(
        _ address: IPAddress, mark: UInt32 = 0, main: [IPPrefix], _ state: KernelState
    ) -> End {
        func longest(in table: UInt32) -> (length: Int, end: End)? {
            var found: (length: Int, end: End)?
            if table == NetlinkRoute.mainTable {
                found = main.filter { $0.contains(address) }.map(\.length).max().map { ($0, .main) }
            }
            let routes = state.routes.filter { $0.table == table && $0.destination.contains(address) }
            let best = routes.max {
                ($0.destination.length, -Int($0.metric)) < ($1.destination.length, -Int($1.metric))
            }
            if let best, best.destination.length > found?.length ?? -1 {
                found = (best.destination.length, best.kind == .unicast ? .tun(table: table) : .unreachable)
            }
            return found
        }
        for rule in state.rules.sorted(by: { $0.priority < $1.priority }) where rule.family == address.family
        {
            guard rule.takes(mark), rule.destination?.contains(address) ?? true,
                let found = longest(in: rule.table)
            else { continue }
            // A route that is an error is not suppressed.
            if let suppressed = rule.suppressedPrefixLength, found.end != .unreachable,
                found.length <= Int(suppressed)
            {
                continue
            }
            return found.end
        }
        return longest(in: NetlinkRoute.mainTable)?.end ?? .nowhere
    }

    @Test func rulesOfOthersLeadToATableWhoseLastResortIsInIt() {
        for mark: UInt32 in [0, 51820] {
            let plan = RoutePlan(table: 100, mark: mark, makesRules: false, addresses: [])
            let state = plan.wanted(for: carried("0.0.0.0/0"), interface: 7)
            #expect(state.rules.isEmpty)
            #expect(!plan.leadsOuterPackets && !plan.hasOwnTable)
            let routes = state.routes.filter { $0.table == 100 }
            #expect(routes.map(\.kind).sorted { "\($0)" < "\($1)" } == [.unicast, .unreachable])
            #expect(routes.min { $0.metric < $1.metric }?.kind == .unicast)
            #expect(state.routes.allSatisfy { plan.owns($0, interface: 7) })
        }
    }

    @Test func theKernelHasNoRouteForMulticast() {
        let state = plan.wanted(for: carried("224.0.0.5/32", "ff02::/16", "10.0.0.0/8"), interface: 7)
        let destinations = Set(state.routes.map(\.destination)).subtracting([IPPrefix("0.0.0.0/32")!])
        #expect(destinations == [IPPrefix("10.0.0.0/8")!])
        #expect(Set(state.rules.map(\.family)) == [.v4])
        #expect(state.rules.count == 4)
    }

    private func lookup(
        _ text: String, mark: UInt32 = 0, main: [IPPrefix], _ state: KernelState
    ) -> End { lookup(IPAddress(text)!, mark: mark, main: main, state) }

    @Test("of an exclusive prefix nothing goes past the tunnel, but outer packets do")
    func exclusive() {
        func exclusively(_ text: String, _ state: WantedPrefix.State) -> WantedPrefix {
            var prefix = WantedPrefix(IPPrefix(text)!, state: state)
            prefix.isExclusive = true
            return prefix
        }
        // DHCP option 121 pushes both halves, and a longer one.
        let main = prefixes(
            "0.0.0.0/0", "10.20.0.0/17", "10.20.128.0/17", "10.20.7.0/24", "10.30.0.0/17", "::/0",
            "2001:db8:20:7::/64")
        let tun = End.tun(table: 51820)
        for (state, inside) in [
            (WantedPrefix.State.carried, tun), (.unreachable, .unreachable), (.withdrawn, .main),
        ] {
            let wanted = plan.wanted(
                for: [exclusively("10.20.0.0/16", state), exclusively("2001:db8:20::/48", state)]
                    + carried("10.30.0.0/16"), interface: 5)
            for host in ["10.20.1.1", "10.20.7.7", "10.20.200.1", "2001:db8:20:7::1"] {
                #expect(lookup(host, main: main, wanted) == inside, "\(host) \(state)")
            }
            #expect(lookup("10.20.7.7", mark: 51820, main: main, wanted) == .main)
            // Another connection's is as ever, and so is what is nobody's.
            #expect(lookup("10.30.1.1", main: main, wanted) == .main)
            #expect(lookup("10.30.200.1", main: main, wanted) == tun)
            #expect(lookup("192.0.2.1", main: main, wanted) == .main)
            #expect(wanted.rules.allSatisfy { plan.owns($0) })
        }
        let all = plan.wanted(for: [exclusively("0.0.0.0/0", .carried)], interface: 5)
        #expect(lookup("10.20.7.7", main: main, all) == tun)
        #expect(lookup("10.20.7.7", mark: 51820, main: main, all) == .main)
        // One that a routing daemon says alone needs a route of ours: the daemon's is in the main table.
        var learned = WantedPrefix(IPPrefix("10.40.0.0/16")!, isLearned: true)
        learned.isExclusive = true
        let taught = plan.wanted(for: [learned], interface: 5)
        #expect(lookup("10.40.1.1", main: prefixes("0.0.0.0/0", "10.40.0.0/16"), taught) == tun)
        // Another gateway's are not taken for ours.
        let other = RoutePlan(table: 51821, mark: 51821, addresses: [])
        #expect(!all.rules.contains { other.owns($0) })
    }

    @Test("the longest prefix wins over all tables together, and the tunnel's of equal ones")
    func longestPrefix() {
        let state = plan.wanted(
            for: carried("0.0.0.0/0", "10.0.0.0/8", "10.1.2.0/24", "192.168.7.0/24", "fd00::/8"),
            interface: 5)
        let main = prefixes(
            "0.0.0.0/0", "10.1.0.0/16", "192.168.7.0/24", "192.0.2.0/24", "fd00:1::/32", "::/0")
        let tun = End.tun(table: 51820)
        #expect(lookup("8.8.8.8", main: main, state) == tun)
        #expect(lookup("10.7.0.1", main: main, state) == tun)
        #expect(lookup("10.1.3.1", main: main, state) == .main)
        #expect(lookup("10.1.2.1", main: main, state) == tun)
        #expect(lookup("192.168.7.1", main: main, state) == tun)
        #expect(lookup("192.0.2.9", main: main, state) == .main)
        #expect(lookup("fd00:2::1", main: main, state) == tun)
        #expect(lookup("fd00:1::1", main: main, state) == .main)
        #expect(lookup("2001:db8::1", main: main, state) == .main)
    }

    @Test("marked packets never meet a route of the plan")
    func marked() {
        let state = plan.wanted(for: carried("0.0.0.0/0", "::/0", "10.0.0.0/8"), interface: 5)
        let main = prefixes("0.0.0.0/0", "::/0")
        for address in ["8.8.8.8", "10.0.0.1", "2001:db8::1"] {
            #expect(lookup(address, mark: 51820, main: main, state) == .main)
            #expect(lookup(address, main: main, state) == .tun(table: 51820))
        }
    }

    /// Sixteen top addresses, prefixes of at most four bits.
    private func some(_ count: Int, _ random: inout SplitMix) -> [IPPrefix] {
        (0..<count).map { _ in
            IPPrefix(
                address: IPAddress(v4: UInt32.random(in: 0..<16, using: &random) << 28),
                length: Int.random(in: 0...4, using: &random))!.network
        }
    }

    @Test("against what the states mean, one length after the other, at random")
    func oracle() {
        var random = SplitMix(seed: 1)
        let states: [WantedPrefix.State] = [.carried, .covered, .unreachable, .withdrawn]
        for _ in 0..<500 {
            let main = some(4, &random)
            var ours: [IPPrefix: WantedPrefix.State] = [:]
            for prefix in some(4, &random) { ours[prefix] = states.randomElement(using: &random) }
            let state = plan.wanted(
                for: ours.map { WantedPrefix($0.key, state: $0.value) }, interface: 5)
            for top in UInt32(0)..<16 {
                let address = IPAddress(v4: top << 28 | 1)
                var right = End.nowhere
                for length in 0...4 {
                    let prefix = IPPrefix(address: address, length: length)!.network
                    let isMain = main.contains(prefix)
                    let last = RoutePlan.backstopTable(of: 51820, length: length)
                    switch prefix.isMulticast ? nil : ours[prefix] {
                    case .carried: right = .tun(table: 51820)
                    // The default route of the main table never takes over.
                    case .covered: right = isMain && length > 0 ? .main : .tun(table: last)
                    case .unreachable: right = isMain && length > 0 ? .main : .unreachable
                    case .withdrawn, nil: if isMain { right = .main }
                    }
                }
                #expect(lookup(address, main: main, state) == right)
            }
        }
    }

    @Test("of two gateways on one host the one that carries a prefix has it, whatever the other's state")
    func twoGateways() {
        let other = RoutePlan(table: 7, mark: 7, addresses: [])
        let second = other.wanted(for: carried("10.0.0.0/8", "0.0.0.0/0"), interface: 6)
        for state in [WantedPrefix.State.covered, .unreachable, .withdrawn] {
            var both = plan.wanted(
                for: [WantedPrefix(IPPrefix("10.0.0.0/8")!, state: state)], interface: 5)
            both.routes.formUnion(second.routes)
            both.rules.formUnion(second.rules)
            #expect(lookup("10.1.1.1", main: prefixes("0.0.0.0/0"), both) == .tun(table: 7))
            #expect(lookup("8.8.8.8", main: prefixes("0.0.0.0/0"), both) == .tun(table: 7))
        }
    }

    @Test("no mark, the main table or none at all: no rules")
    func withoutRules() {
        let wanted = carried("10.0.0.0/8")
        let main = RoutePlan(table: NetlinkRoute.mainTable, mark: 7, addresses: []).wanted(
            for: wanted, interface: 5)
        #expect(main.rules.isEmpty && main.routes.count == 2)
        let unmarked = RoutePlan(table: 99, mark: 0, addresses: []).wanted(for: wanted, interface: 5)
        #expect(unmarked.rules.isEmpty)
        let off = RoutePlan(table: nil, mark: 7, addresses: []).wanted(for: wanted, interface: 5)
        #expect(off.rules.isEmpty && off.routes.isEmpty)
    }

    @Test("in the main table metrics decide: carried, everybody else's, covered, the last resort")
    func mainTable() {
        let plan = RoutePlan(
            table: NetlinkRoute.mainTable, mark: 0, metric: 50, addresses: [], interfaceName: "vgw0")
        func routes(_ state: WantedPrefix.State, metric: UInt32? = nil) -> [NetlinkRoute] {
            let prefix = WantedPrefix(IPPrefix("10.0.0.0/8")!, metric: metric, state: state)
            return plan.wanted(for: [prefix], interface: 5).routes.sorted { $0.metric < $1.metric }
        }
        #expect(routes(.carried).map(\.kind) == [.unicast, .unreachable])
        #expect(routes(.carried)[0].metric == 50)
        #expect(routes(.carried, metric: 7)[0].metric == 7)
        #expect(RoutePlan.backstopMetrics.contains(routes(.carried)[1].metric))
        #expect(routes(.covered).map(\.kind) == [.unicast, .unreachable])
        #expect(RoutePlan.coveredMetrics.contains(routes(.covered)[0].metric))
        #expect(routes(.unreachable).map(\.kind) == [.unreachable])
        #expect(routes(.withdrawn).isEmpty)
        #expect(RoutePlan.coveredMetrics.upperBound < RoutePlan.backstopMetrics.lowerBound)
        let other = RoutePlan(
            table: NetlinkRoute.mainTable, mark: 0, addresses: [], interfaceName: "vgw1")
        for route in routes(.carried) + routes(.covered) {
            #expect(plan.owns(route, interface: 5))
            #expect(!other.owns(route, interface: 6))
        }
    }

    @Test("nothing is done when everything is there, and what is missing is put back")
    func difference() {
        let wanted = plan.wanted(for: carried("10.0.0.0/8"), interface: 5)
        #expect(wanted.changes(from: wanted).isEmpty)
        var found = wanted
        let route = found.routes.first { $0.kind == .unicast }!
        found.routes.remove(route)
        found.addresses.insert(IPPrefix("10.99.0.1/32")!)
        #expect(wanted.changes(from: found) == [.addRoute(route)])
    }

    @Test(
        "new routes come before rules, and addresses last; rules go before routes, the first of a length last"
    )
    func order() {
        let wanted = plan.wanted(for: carried("10.0.0.0/8"), interface: 5)
        func kinds(_ changes: [KernelChange]) -> [Int] {
            changes.map { change in
                switch change {
                case .addAddress: 0
                case .addRoute, .replaceRoute: 1
                case .addRule: 2
                case .removeRule: 3
                case .removeRoute: 4
                }
            }
        }
        #expect(kinds(wanted.changes(from: KernelState())) == [1, 1, 1, 2, 2, 2, 2, 0])
        let gone = KernelState().changes(from: wanted)
        #expect(kinds(gone) == [3, 3, 3, 3, 4, 4, 4])
        let priorities = gone.compactMap { change in
            if case .removeRule(let rule) = change { rule.priority } else { nil }
        }
        #expect(priorities == priorities.sorted(by: >))
    }

    @Test(
        "a connection that fails and returns moves one route a prefix: the last resort stays, no rule changes"
    )
    func failing() {
        let prefix = IPPrefix("10.0.0.0/8")!
        func state(_ state: WantedPrefix.State) -> KernelState {
            plan.wanted(for: [WantedPrefix(prefix, state: state)], interface: 5)
        }
        let unicast = state(.carried).routes.first { $0.kind == .unicast }!
        let last = state(.carried).routes.first { $0.kind == .unreachable && $0.destination == prefix }!
        let covered = state(.covered).routes.first { $0.kind == .unicast }!
        #expect(state(.unreachable).changes(from: state(.carried)) == [.removeRoute(unicast)])
        #expect(state(.carried).changes(from: state(.unreachable)) == [.addRoute(unicast)])
        #expect(
            state(.covered).changes(from: state(.carried)) == [.addRoute(covered), .removeRoute(unicast)])
        #expect(
            state(.carried).changes(from: state(.covered)) == [.addRoute(unicast), .removeRoute(covered)])
        #expect(
            state(.withdrawn).changes(from: state(.carried)) == [.removeRoute(last), .removeRoute(unicast)])
        #expect(
            state(.carried).changes(from: state(.withdrawn)) == [.addRoute(unicast), .addRoute(last)])
    }

    @Test("the tables of the last resort are nobody's, for every number of a table")
    func backstopTables() {
        for table in [1, 99, 254, 51820, 0x3f_ffff, 0x40_0000, 0x7fff_ffff, 0x8000_0000, .max] as [UInt32] {
            let tables = (0...128).map { RoutePlan.backstopTable(of: table, length: $0) }
            #expect(Set(tables).count == 129)
            #expect(!tables.contains(table))
            #expect(tables.allSatisfy { $0 >= 1 << 30 })
        }
        #expect(
            RoutePlan.backstopTable(of: 7, length: 8) != RoutePlan.backstopTable(of: 51820, length: 8))
    }

    @Test("priorities are below the main table's and apart for each length")
    func priorities() {
        let all = (0...128).map { "::/\($0)" }.map { WantedPrefix(IPPrefix($0)!) }
        let rules = plan.wanted(for: all, interface: 5).rules
        #expect(rules.count == 129 * 4 - 1)
        #expect(Set(rules.map(\.priority)).count == rules.count)
        #expect(rules.allSatisfy { (RoutePlan.firstPriority..<32_766).contains($0.priority) })
    }

    @Test("what is ours is known again, also from an earlier version, and nobody else's is taken for it")
    func ownership() {
        let state = plan.wanted(
            for: carried("10.0.0.0/8", "fd00::/8")
                + [WantedPrefix(IPPrefix("10.1.0.0/16")!, state: .covered)], interface: 5)
        let other = RoutePlan(table: 7, mark: 7, addresses: [])
        #expect(state.routes.allSatisfy { plan.owns($0, interface: 5) })
        #expect(!state.routes.contains { other.owns($0, interface: 6) })
        #expect(state.rules.allSatisfy { plan.owns($0) })
        #expect(!state.rules.contains { other.owns($0) })
        let earlier = NetlinkRoute(
            destination: IPPrefix("10.0.0.0/8")!, interface: 0, table: 51820, metric: .max - 1,
            kind: .unreachable)
        #expect(plan.owns(earlier, interface: 5))
        #expect(
            plan.owns(
                NetlinkRule(family: .v4, priority: 100, mark: 51820, isInverted: true, table: 51820)))
        #expect(
            !plan.owns(
                NetlinkRule(
                    family: .v4, priority: 32_000, mark: 51820, isInverted: true, table: 51820, protocol: 3)))
        let administrator = NetlinkRoute(
            destination: IPPrefix("10.0.0.0/8")!, interface: 5, table: 51820, protocol: 3)
        #expect(!plan.owns(administrator, interface: 5))
    }
}
