import ControlAPI
import FoundationEssentials
import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

/// Whole lives of two gateways with several tunnels on a bad internet, one a seed: loss, one-way cuts, reorder, delay,
/// restarts, clock jumps, wires that go. Then the internet heals, and everything must work and come to rest.
///
/// A failing seed is named with the failure; `VGWD_SIM_SEED=17 swift test --filter GatewayChaosTests` runs it alone, and
/// `VGWD_SIM_SEEDS=10000` runs as many as wanted.
@Suite struct GatewayChaosTests {
    private static let seeds: Range<UInt64> = {
        let environment = ProcessInfo.processInfo.environment
        if let seed = environment["VGWD_SIM_SEED"].flatMap({ UInt64($0) }) { return seed..<seed + 1 }
        return 0..<(environment["VGWD_SIM_SEEDS"].flatMap { UInt64($0) } ?? 40)
    }()

    @Test(
        "whatever happens, nothing leaves in clear, a usable tunnel is used, nothing is told twice, and both ends recover"
    )
    func chaos() async {
        // As many at a time as there may be cores: each life holds locked memory for its keys.
        for start in stride(from: Self.seeds.lowerBound, to: Self.seeds.upperBound, by: 8) {
            await withTaskGroup(of: String?.self) { group in
                for seed in start..<min(start + 8, Self.seeds.upperBound) {
                    group.addTask { Life(seed).problem }
                }
                for await problem in group { if let problem { Issue.record("\(problem)") } }
            }
        }
    }

    private final class Life {
        let seed: UInt64
        let internet: SimulatedInternet
        private var random: SplitMix
        private(set) var problem: String?

        init(_ seed: UInt64) {
            self.seed = seed
            random = SplitMix(seed: seed &* 31)
            internet = SimulatedInternet(wires: Int(seed % 2) + 2, seed: seed)
            live()
        }

        private func live() {
            for step in 0..<12 where problem == nil {
                disturb()
                internet.run(for: .milliseconds(Int64.random(in: 100...4000, using: &random)))
                check("step \(step)")
            }
            heal()
            // Longer than any hold-down.
            internet.run(for: .seconds(70))
            check("healed")
            for gateway in [internet.near, internet.far] where problem == nil {
                let connection = gateway.gateway.connections[0]
                if connection.activeTunnels != ["a"] {
                    fail("\(connection.activeTunnels) in use after all is well")
                }
                if !internet.passes(from: gateway) { fail("no packet passes after all is well") }
            }
        }

        private func disturb() {
            let wire = internet.ways.indices.randomElement(using: &random) ?? 0
            let direction = Int.random(in: 0...1, using: &random)
            let gateway = Bool.random(using: &random) ? internet.near : internet.far
            switch Int.random(in: 0..<10, using: &random) {
            case 0: internet.cut(wire)
            case 1: internet.cut(wire, toFar: direction == 0)
            case 2: internet.cut(wire, false)
            case 3: internet.ways[wire][direction].loss = Double.random(in: 0...0.5, using: &random)
            case 4:
                internet.ways[wire][direction].delay = .milliseconds(
                    Int64.random(in: 1...300, using: &random))
            case 5:
                internet.ways[wire][direction].jitter = .milliseconds(
                    Int64.random(in: 1...50, using: &random))
                internet.ways[wire][direction].duplicates = 0.1
            case 6: internet.restart(gateway)
            case 7:
                gateway.realtimeOffset += Int64.random(in: -3600...3600, using: &random) * 1_000_000_000
                let offset = gateway.realtimeOffset
                internet.tell(gateway) { $0.handle(.clock(realtimeOffset: offset), now: $1) }
            case 8: setUnderlay(wire, isUp: false, of: gateway)
            default: setUnderlay(wire, isUp: true, of: gateway)
            }
        }

        private func setUnderlay(_ wire: Int, isUp: Bool, of gateway: SimulatedGateway) {
            var underlays = gateway.gateway.underlays
            underlays[wire].isUp = isUp
            internet.tell(gateway) { $0.handle(.underlays(underlays), now: $1) }
        }

        private func heal() {
            internet.mend()
            for gateway in [internet.near, internet.far] {
                for wire in internet.ways.indices { setUnderlay(wire, isUp: true, of: gateway) }
            }
        }

        private func fail(_ what: String) {
            problem = problem ?? "VGWD_SIM_SEED=\(seed) swift test --filter GatewayChaosTests: \(what)"
        }

        private func check(_ moment: String) {
            if internet.reusedNonces > 0 { fail("\(moment): a nonce was used twice") }
            if internet.longestStandstill > 1000 { fail("\(moment): a deadline does not advance") }
            for (gateway, other) in [(internet.near, internet.far), (internet.far, internet.near)] {
                let connection = gateway.gateway.connections[0]
                switch gateway.routes?[other.site] {
                case .carried, .covered, .unreachable: break
                case .withdrawn, nil: fail("\(moment): \(other.site) may leave in clear")
                }
                let carrying = connection.tunnels.filter { $0.health.state.isCarrying }.map(\.name)
                // One with a session and without a verdict is as good as the first that has shown itself.
                let untried = connection.tunnels.filter { $0.health.hasSession && !$0.health.hasFailed }
                let good = carrying + untried.map(\.name)
                if !carrying.isEmpty, Set(connection.activeTunnels).isDisjoint(with: good) {
                    fail("\(moment): \(connection.activeTunnels) in use, and \(carrying) carry")
                }
                checkEvents(of: gateway, moment)
            }
        }

        /// Each state is left as it was entered: so none is told twice, and none is left out. A run begins anew.
        private func checkEvents(of gateway: SimulatedGateway, _ moment: String) {
            var last: [String: String] = [:]
            for event in gateway.events where event.to != nil && event.kind != .failover {
                let subject = event.tunnel ?? event.connection ?? ""
                if event.from == event.to { fail("\(moment): \(event.message) without a change") }
                if let before = last[subject], before != event.from, event.from != "connecting" {
                    fail("\(moment): \(subject) went from \(event.from ?? "") and was \(before)")
                }
                last[subject] = event.to
            }
        }
    }
}
