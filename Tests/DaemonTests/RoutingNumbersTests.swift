internal import GatewayCore
import LinuxIO
import Testing
import WireGuard

@testable import Daemon

@Suite struct RoutingNumbersTests {
    /// A gateway that carries one prefix under these numbers, as the kernel shows it.
    private struct Gateway {
        let name: String
        var mark: UInt32
        var table: UInt32
        /// 0: it was killed.
        var interface: UInt32 = 0
        var prefix = IPPrefix("10.20.0.0/16")!

        var plan: RoutePlan { RoutePlan(table: table, mark: mark, addresses: [], interfaceName: name) }

        var state: KernelState {
            plan.wanted(
                for: [WantedPrefix(prefix, state: interface == 0 ? .unreachable : .carried)],
                interface: interface)
        }
    }

    private func survey(
        of name: String, interface: UInt32 = 0, remembered: RoutingNumbers? = nil, _ gateways: Gateway...,
        rules: [NetlinkRule] = []
    ) -> RoutingSurvey {
        RoutingSurvey(
            rules: gateways.flatMap(\.state.rules) + rules, routes: gateways.flatMap(\.state.routes),
            plan: RoutePlan(table: nil, mark: 0, addresses: [], interfaceName: name), interface: interface,
            remembered: remembered)
    }

    private func numbers(_ number: UInt32) -> RoutingNumbers { RoutingNumbers(mark: number, table: number) }

    /// As a file without ListenPort that was imported has it.
    private let automatic = RoutingNumbers.Wishes(mark: .free(from: 51820), table: .free(from: 51820))

    private func chosen(_ wishes: RoutingNumbers.Wishes, _ survey: RoutingSurvey) -> RoutingNumbers? {
        wishes.candidates(remembered: survey.remembered).first {
            survey.holder(of: wishes.open(of: $0)) == nil
        }
    }

    @Test("of two gateways with port 0 each has numbers of its own, whether the other runs or was killed")
    func twoGateways() {
        for interface in [5, 0] as [UInt32] {
            let first = Gateway(name: "vgw0", mark: 51820, table: 51820, interface: interface)
            let found = survey(of: "vgw1", first)
            #expect(chosen(automatic, found) == numbers(51821))
            #expect(found.ownMarks.isEmpty)
            #expect(found.holder(of: numbers(51820)) == .gateway(interface: interface))
            // The first one, when it starts again.
            let again = survey(
                of: "vgw0", Gateway(name: "vgw0", mark: 51820, table: 51820),
                Gateway(name: "vgw1", mark: 51821, table: 51821, interface: 6))
            #expect(chosen(automatic, again) == numbers(51820))
            #expect(again.ownMarks == [51820])
        }
    }

    @Test("the sign shows that numbers are taken while there is no prefix")
    func withoutPrefixes() {
        let plan = Gateway(name: "vgw0", mark: 51820, table: 51820).plan
        let state = plan.wanted(for: [], interface: 5)
        #expect(state.rules.isEmpty && state.routes.allSatisfy { plan.owns($0, interface: 5) })
        let found = RoutingSurvey(
            rules: [], routes: Array(state.routes),
            plan: RoutePlan(table: nil, mark: 0, addresses: [], interfaceName: "vgw1"))
        #expect(chosen(automatic, found) == numbers(51821))
    }

    @Test("numbers of earlier runs are found again: by the kernel, and where it has none by the state folder")
    func earlier() {
        let before = Gateway(name: "vgw0", mark: 7, table: 9)
        #expect(survey(of: "vgw0", before).ownMarks == [7])
        #expect(chosen(automatic, survey(of: "vgw0", remembered: numbers(51823))) == numbers(51820))
        let rival = Gateway(name: "vgw1", mark: 51820, table: 51820, interface: 6)
        #expect(chosen(automatic, survey(of: "vgw0", remembered: numbers(51823), rival)) == numbers(51823))
        // What was remembered is another's by now.
        let taken = survey(of: "vgw0", remembered: numbers(51820), rival)
        #expect(taken.ownMarks.isEmpty)
        #expect(chosen(automatic, taken) == numbers(51821))
        // Rules without a route say nothing of their owner.
        var bare = survey(of: "vgw0", remembered: numbers(7), before)
        bare.routes = []
        #expect(bare.ownMarks == [7])
        bare = survey(of: "vgw0", before)
        bare.routes = []
        #expect(bare.ownMarks.isEmpty)
    }

    @Test("two that shared their numbers part, the first to start by taking others")
    func shared() {
        let (first, second) = (
            Gateway(name: "vgw0", mark: 51820, table: 51820),
            Gateway(name: "vgw1", mark: 51820, table: 51820, interface: 6, prefix: IPPrefix("10.30.0.0/16")!)
        )
        let found = survey(of: "vgw0", first, second)
        #expect(found.ownMarks.isEmpty)
        #expect(chosen(automatic, found) == numbers(51821))
    }

    @Test("a number that the configuration asks for stays, and who else has it is named")
    func fixed() {
        let wishes = RoutingNumbers.Wishes(mark: .fixed(7), table: .free(from: 7))
        let rival = Gateway(name: "vgw1", mark: 7, table: 9, interface: 6)
        #expect(survey(of: "vgw0", rival).holder(of: wishes.fixed) == .gateway(interface: 6))
        #expect(chosen(wishes, survey(of: "vgw0")) == RoutingNumbers(mark: 7, table: 7))
        let table = Gateway(name: "vgw1", mark: 9, table: 7, interface: 6)
        #expect(survey(of: "vgw0", table).holder(of: wishes.fixed) == nil)
        #expect(chosen(wishes, survey(of: "vgw0", table)) == RoutingNumbers(mark: 7, table: 8))
        let own = survey(of: "vgw1", interface: 6, rival)
        #expect(own.holder(of: RoutingNumbers(mark: 7, table: 9)) == nil)
    }

    @Test("wg-quick's numbers are another's, an operator's rules beside ours are not")
    func othersRules() {
        func rule(_ mark: UInt32?, inverted: Bool, _ table: UInt32) -> NetlinkRule {
            NetlinkRule(
                family: .v4, priority: 100, mark: mark, isInverted: inverted, table: table, protocol: 3)
        }
        let quick = survey(of: "vgw0", rules: [rule(51820, inverted: true, 51820)])
        #expect(quick.holder(of: numbers(51820)) == .somebodyElse)
        #expect(chosen(automatic, quick) == numbers(51821))
        // table = "off": the operator's own rule, for the mark that he knows.
        let off = RoutingNumbers.Wishes(mark: .free(from: 51820), table: nil)
        #expect(chosen(off, quick) == RoutingNumbers(mark: 51820, table: nil))
        let operators = survey(
            of: "vgw0", rules: [rule(51820, inverted: false, 100), rule(nil, inverted: false, 51820)])
        #expect(chosen(automatic, operators) == numbers(51820))
    }
}
