import LinuxIO
import Testing
import WireGuard

@testable import Gateway

@Suite struct RoutePlanTests {
    private let plan = RoutePlan(table: 51820, mark: 51820, addresses: [IPPrefix("10.9.0.1/30")!])

    private func prefixes(_ texts: String...) -> [IPPrefix] { texts.map { IPPrefix($0)! } }

    /// The kernel's way with rules, enough of it to see which table an unmarked or a marked packet ends in.
    private func lookup(_ text: String, mark: UInt32 = 0, main: [IPPrefix], _ state: KernelState) -> UInt32? {
        let address = IPAddress(text)!
        func longest(in table: UInt32) -> Int? {
            let candidates = table == NetlinkRoute.mainTable ? main : []
            return
                (candidates
                + state.routes.filter { $0.table == table && $0.kind == .unicast }.map(\.destination))
                .filter { $0.contains(address) }.map(\.length).max()
        }
        for rule in state.rules.sorted(by: { $0.priority < $1.priority }) where rule.family == address.family
        {
            guard rule.isInverted, rule.mark != mark, let length = longest(in: rule.table) else { continue }
            if let suppressed = rule.suppressedPrefixLength, length <= Int(suppressed) { continue }
            return rule.table
        }
        return longest(in: NetlinkRoute.mainTable) == nil ? nil : NetlinkRoute.mainTable
    }

    @Test("the longest prefix wins over both tables together, and the tunnel's of equal ones")
    func longestPrefix() {
        let state = plan.wanted(
            for: prefixes("0.0.0.0/0", "10.0.0.0/8", "10.1.2.0/24", "192.168.7.0/24", "fd00::/8"),
            interface: 5)
        let main = prefixes(
            "0.0.0.0/0", "10.1.0.0/16", "192.168.7.0/24", "192.0.2.0/24", "fd00:1::/32", "::/0")
        #expect(lookup("8.8.8.8", main: main, state) == 51820)
        #expect(lookup("10.7.0.1", main: main, state) == 51820)
        #expect(lookup("10.1.3.1", main: main, state) == NetlinkRoute.mainTable)
        #expect(lookup("10.1.2.1", main: main, state) == 51820)
        #expect(lookup("192.168.7.1", main: main, state) == 51820)
        #expect(lookup("192.0.2.9", main: main, state) == NetlinkRoute.mainTable)
        #expect(lookup("fd00:2::1", main: main, state) == 51820)
        #expect(lookup("fd00:1::1", main: main, state) == NetlinkRoute.mainTable)
        #expect(lookup("2001:db8::1", main: main, state) == NetlinkRoute.mainTable)
    }

    @Test("marked packets never meet a route into the tunnel")
    func marked() {
        let state = plan.wanted(for: prefixes("0.0.0.0/0", "::/0", "10.0.0.0/8"), interface: 5)
        let main = prefixes("0.0.0.0/0", "::/0")
        for address in ["8.8.8.8", "10.0.0.1", "2001:db8::1"] {
            #expect(lookup(address, mark: 51820, main: main, state) == NetlinkRoute.mainTable)
            #expect(lookup(address, main: main, state) == 51820)
        }
    }

    @Test("against a naive longest prefix over both tables, at random")
    func oracle() {
        var random = SeededRandom(seed: 1)
        func some(_ count: Int) -> [IPPrefix] {
            (0..<count).map { _ in
                IPPrefix(
                    address: IPAddress(v4: UInt32.random(in: 0..<16, using: &random) << 28),
                    length: Int.random(in: 0...4))!.network
            }
        }
        for _ in 0..<300 {
            let (ours, main) = (some(4), some(4))
            let state = plan.wanted(for: ours, interface: 5)
            for top in UInt32(0)..<16 {
                let address = IPAddress(v4: top << 28 | 1)
                let best = (ours.filter { $0.contains(address) }.map(\.length).max()) ?? -1
                let other = (main.filter { $0.contains(address) }.map(\.length).max()) ?? -1
                let right: UInt32? =
                    best < 0 && other < 0 ? nil : best >= other ? 51820 : NetlinkRoute.mainTable
                #expect(lookup("\(address)", main: main, state) == right)
            }
        }
    }

    @Test("no mark, the main table or none at all: no rules")
    func withoutRules() {
        let wanted = prefixes("10.0.0.0/8")
        let main = RoutePlan(table: NetlinkRoute.mainTable, mark: 7, addresses: []).wanted(
            for: wanted, interface: 5)
        #expect(main.rules.isEmpty && main.routes.count == 1)
        let unmarked = RoutePlan(table: 99, mark: 0, addresses: []).wanted(for: wanted, interface: 5)
        #expect(unmarked.rules.isEmpty)
        let off = RoutePlan(table: nil, mark: 7, addresses: []).wanted(for: wanted, interface: 5)
        #expect(off.rules.isEmpty && off.routes.isEmpty)
    }

    @Test("nothing is done when everything is there, and what is missing is put back")
    func difference() {
        let wanted = plan.wanted(for: prefixes("10.0.0.0/8"), interface: 5)
        #expect(wanted.changes(from: wanted).isEmpty)
        var found = wanted
        let route = found.routes.first { $0.kind == .unicast }!
        found.routes.remove(route)
        found.addresses.insert(IPPrefix("10.99.0.1/32")!)
        #expect(wanted.changes(from: found) == [.addRoute(route)])
    }

    @Test("new routes and their stand-ins come before rules, and addresses last; rules go before routes")
    func order() {
        let wanted = plan.wanted(for: prefixes("10.0.0.0/8"), interface: 5)
        let kinds = wanted.changes(from: KernelState()).map { change in
            switch change {
            case .addAddress: 0
            case .addRoute: 1
            case .addRule: 2
            case .removeRule: 3
            case .removeRoute: 4
            }
        }
        #expect(kinds == [1, 1, 2, 2, 0])
        let gone = KernelState().changes(from: wanted)
        guard case .removeRule? = gone.first, case .removeRoute? = gone.last else {
            Issue.record("wrong order \(gone)")
            return
        }
    }

    @Test("without the TUN's routes a prefix is unreachable, and not the default route's")
    func backstop() {
        let state = plan.wanted(for: prefixes("10.0.0.0/8", "fd00::/8"), interface: 5)
        for prefix in prefixes("10.0.0.0/8", "fd00::/8") {
            let routes = state.routes.filter { $0.destination == prefix }.sorted { $0.metric < $1.metric }
            #expect(routes.map(\.kind) == [.unicast, .unreachable])
        }
        #expect(state.routes.allSatisfy { plan.owns($0, interface: 5) })
        let other = RoutePlan(table: 7, mark: 7, addresses: [])
        #expect(!state.routes.contains { other.owns($0, interface: 6) })
    }

    @Test("rules of another gateway, or of an administrator, are not ours")
    func ownership() {
        let other = RoutePlan(table: 7, mark: 7, addresses: [])
        for rule in plan.wanted(for: prefixes("10.0.0.0/8"), interface: 5).rules {
            #expect(plan.owns(rule))
            #expect(!other.owns(rule))
        }
        #expect(
            !plan.owns(
                NetlinkRule(family: .v4, priority: 100, mark: 51820, isInverted: true, table: 51820)))
    }
}
