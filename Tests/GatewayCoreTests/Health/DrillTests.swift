import ControlAPI
import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

@Suite struct DrillTests {
    /// Two tunnels' health, a selection between them, and a drill: the control loop in small.
    private final class Site {
        var drill: Drill
        var selection = TunnelSelection(isBalanced: false)
        var tunnels: [TunnelHealth]
        let names = ["a", "b"]
        var now = Instant.at(.zero)
        var cut: Set<String> = []
        let roundTrip: Duration = .milliseconds(2)
        /// Live probes lost besides those of the cut.
        var isLost: (UInt32) -> Bool = { _ in false }
        /// The far site's own way back goes by this tunnel; nil: by the one that was asked.
        var wayBack: String?
        var outputs: [Drill.Output] = []
        private var pending: [(at: Instant, action: (Site) -> Void)] = []

        init(
            settings: HealthSettings = HealthSettings(), objective: Duration? = nil,
            warmUp: Duration = .seconds(5), hasTargets: Bool = false
        ) {
            let start = Instant.at(.zero)
            tunnels = [0, 1 << 31].map {
                TunnelHealth(settings: settings, phase: $0, canProbe: true, now: start)
            }
            drill = Drill(connection: "none", tunnels: [:], active: nil, now: start)
            for index in tunnels.indices { tunnels[index].handle(.sessionBegun, now: start) }
            run(until: start + warmUp)
            outputs = []
            drill = Drill(
                connection: "vpc", tunnels: ["a": tunnels[0].state, "b": tunnels[1].state], active: active,
                hasTargets: hasTargets, duration: .seconds(10), objective: objective, now: now)
            drain()
        }

        var active: String? { selection.active.map { names[$0] } }

        var report: DrillOutcome? {
            for case .finished(let report) in outputs { return report }
            return nil
        }

        func run(until end: Instant) {
            while true {
                let timers = tunnels.map(\.nextTimeout) + [drill.nextTimeout, pending.first?.at]
                guard let next = timers.compactMap({ $0 }).min(), next <= end else { break }
                now = max(now, next)
                if let first = pending.first, first.at <= now {
                    pending.removeFirst()
                    first.action(self)
                } else {
                    for index in tunnels.indices { tunnels[index].handleTimeout(now: now) }
                    drill.handleTimeout(now: now)
                }
                drain()
            }
            now = end
        }

        private func after(_ duration: Duration, _ action: @escaping (Site) -> Void) {
            let at = now + duration
            pending.insert((at, action), at: pending.firstIndex { $0.at > at } ?? pending.count)
        }

        private func drain() {
            for index in tunnels.indices {
                while let output = tunnels[index].poll() {
                    switch output {
                    case .probe(let probe):
                        guard !cut.contains(names[index]) else { continue }
                        after(roundTrip) { site in
                            guard !site.cut.contains(site.names[index]) else { return }
                            site.tunnels[index].handle(
                                .probeAnswered(sequence: probe.sequence, target: nil, at: site.now),
                                now: site.now)
                        }
                    case .transition(let transition):
                        drill.handle(.state(of: names[index], transition.to), now: now)
                    case .liveness, .targets: break
                    }
                }
            }
            let before = active
            selection.update(
                tunnels.indices.map { index in
                    TunnelSelection.Candidate(
                        name: names[index], priority: index, weight: 1, health: tunnels[index])
                })
            if active != before { drill.handle(.active(active), now: now) }
            while let output = drill.poll() {
                outputs.append(output)
                switch output {
                case .cut(let name): cut.insert(name)
                case .restore(let name): cut.remove(name)
                case .probe(let destination, let sequence):
                    guard let active, !cut.contains(active) else { continue }
                    if destination == .gateway, isLost(sequence) { continue }
                    let back = destination == .target ? wayBack ?? active : active
                    after(roundTrip) { site in
                        guard !site.cut.contains(back) else { return }
                        site.drill.handle(.probeAnswered(destination, sequence: sequence), now: site.now)
                    }
                case .finished: break
                }
            }
        }
    }

    @Test("1. a drill measures what its cut cost, and the return to the tunnel")
    func measured() throws {
        let site = Site(objective: .milliseconds(700))
        #expect(site.outputs.first == .cut("a"))
        site.run(until: site.now + .seconds(30))
        let report = try #require(site.report)
        #expect(report.refusal == nil && !report.wasAborted)
        #expect(report.cut == "a" && report.activeWhileCut == "b" && report.activeAfter == "a")
        let detected = try #require(report.timeToDetect)
        #expect(detected > .milliseconds(400) && detected <= .milliseconds(660))
        let recovered = try #require(report.timeToRecover)
        #expect(recovered >= detected && recovered <= detected + .milliseconds(10))
        #expect(report.gateway.sent == 1000 && report.targets == nil)
        #expect(report.gateway.lost == Int(recovered.wholeNanoseconds / 10_000_000))
        #expect(report.gateway.longestGap == recovered)
        #expect(report.isMet == true)
        let back = try #require(report.timeToReturn)
        #expect(back >= .milliseconds(1800) && back <= .milliseconds(2010))
        #expect(report.hasFailedBack && report.notes(wereTargetsSilent: false) == [])
        #expect(site.outputs.count { $0 == .restore("a") } == 1)
        #expect(site.drill.nextTimeout == nil && site.drill.isFinished)
    }

    @Test("2. an objective that was missed is missed, and without one there is no verdict")
    func objective() throws {
        let missed = Site(objective: .milliseconds(100))
        missed.run(until: missed.now + .seconds(30))
        #expect(missed.report?.isMet == false)
        let none = Site()
        none.run(until: none.now + .seconds(30))
        #expect(none.report?.isMet == .some(nil))
    }

    @Test("3. recovery counts from the last loss, the gap from the longest run of losses")
    func lossLater() throws {
        let site = Site()
        site.isLost = { (300..<305).contains($0) || $0 == 500 }
        site.run(until: site.now + .seconds(30))
        let report = try #require(site.report)
        #expect(report.timeToRecover == .milliseconds(5010))
        let gap = report.gateway.longestGap
        #expect(gap < .milliseconds(700) && gap > .milliseconds(400))
        let never = Site(objective: .seconds(5))
        never.isLost = { _ in true }
        never.run(until: never.now + .seconds(30))
        #expect(never.report?.timeToRecover == .some(nil))
        #expect(never.report?.gateway.longestGap == .seconds(10))
        #expect(never.report?.isMet == false)
    }

    @Test("3b. targets are asked each 100 ms, and what is lost to them counts")
    func targets() throws {
        let site = Site(objective: .milliseconds(800), hasTargets: true)
        site.run(until: site.now + .seconds(30))
        let report = try #require(site.report)
        let targets = try #require(report.targets)
        #expect(targets.sent == 100 && (4...7).contains(targets.lost))
        let back = try #require(targets.timeToRecover)
        #expect(back >= .milliseconds(400) && back <= .milliseconds(700))
        #expect(report.timeToRecover.map { $0 >= back && $0 <= .milliseconds(800) } ?? false)
        #expect(report.isMet == true)
    }

    @Test("3c. a far gateway that answers is no recovery while its site's way back goes by the cut tunnel")
    func wayBack() throws {
        let site = Site(objective: .seconds(1), hasTargets: true)
        site.wayBack = "a"
        site.run(until: site.now + .seconds(30))
        let report = try #require(site.report)
        #expect(report.gateway.timeToRecover.map { $0 < .seconds(1) } ?? false)
        #expect(report.targets?.timeToRecover == .some(nil) && report.targets?.longestGap == .seconds(10))
        #expect(report.timeToRecover == nil && report.isMet == false)
        #expect(
            report.notes(wereTargetsSilent: false) == [
                "the far gateway answered again and no target did: the far site's way back may still lead by a"
            ])
        #expect(
            report.notes(wereTargetsSilent: true) == ["no target answered before the cut either"])
    }

    @Test("4. a tunnel that does not come back is waited for 10 s")
    func noReturn() throws {
        let site = Site()
        site.run(until: site.now + .milliseconds(9990))
        site.tunnels[0].handle(.interface(isUp: false), now: site.now)
        let restored = site.now + .milliseconds(10)
        site.run(until: restored + .milliseconds(10_490))
        #expect(site.report == nil)
        site.run(until: restored + .milliseconds(10_510))
        let report = try #require(site.report)
        #expect(report.timeToReturn == nil && !report.hasFailedBack && report.activeAfter == "b")
    }

    @Test(
        "5. where there is nothing to fail over to, nothing is cut, and the report says why",
        arguments: [
            (tunnels: ["a": TunnelState.up], active: "a" as String?, DrillOutcome.Refusal.onlyOneTunnel),
            (tunnels: ["a": .up, "b": .down], active: "a", .noOtherTunnelUp),
            (tunnels: ["a": .up, "b": .disabled], active: "a", .noOtherTunnelUp),
            (tunnels: ["a": .down, "b": .down], active: "a", .noActiveTunnel),
            (tunnels: ["a": .disabled, "b": .disabled], active: nil, .noActiveTunnel),
            (tunnels: [:], active: nil, .noActiveTunnel),
        ])
    func refused(tunnels: [String: TunnelState], active: String?, refusal: DrillOutcome.Refusal) {
        var drill = Drill(connection: "vpc", tunnels: tunnels, active: active, now: .at(.zero))
        guard case .finished(let report) = drill.poll() else {
            Issue.record("not refused")
            return
        }
        #expect(report.refusal == refusal && report.isMet == nil && report.cut == nil)
        #expect(drill.poll() == nil && drill.nextTimeout == nil && drill.isFinished)
        drill.handle(.abort, now: .at(.seconds(1)))
        drill.handleTimeout(now: .at(.seconds(1)))
        #expect(drill.poll() == nil)
    }

    @Test("6. an end before its time restores at once and reports what there is")
    func aborted() throws {
        let site = Site()
        site.run(until: site.now + .seconds(3))
        site.drill.handle(.abort, now: site.now)
        #expect(site.drill.poll() == .restore("a"))
        site.outputs.append(.restore("a"))
        site.cut = []
        site.run(until: site.now + .seconds(1))
        let report = try #require(site.report)
        #expect(report.wasAborted && (300...301).contains(report.gateway.sent))
    }

    @Test(
        "7. whatever happens, what was cut is restored once, and then it has finished",
        arguments: UInt64(0)..<200)
    func storm(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var now = Instant.at(.zero)
        var drill = Drill(
            connection: "vpc", tunnels: ["a": .up, "b": .up], active: "a",
            hasTargets: Bool.random(using: &random),
            duration: .milliseconds(Int.random(in: 0...3000, using: &random)), objective: .seconds(1),
            now: now)
        var outputs: [Drill.Output] = []
        for _ in 0..<20_000 where !drill.isFinished {
            now = now + .milliseconds(Int.random(in: 0...40, using: &random))
            switch Int.random(in: 0..<200, using: &random) {
            case 0..<80:
                let sequence = UInt32.random(in: 0...500, using: &random)
                let destination = Bool.random(using: &random) ? Drill.Destination.gateway : .target
                drill.handle(
                    .probeAnswered(destination, sequence: Bool.random(using: &random) ? sequence : .max),
                    now: now)
            case 80..<100:
                drill.handle(
                    .state(
                        of: ["a", "b", "c"].randomElement(using: &random)!,
                        TunnelState.allCases.randomElement(using: &random)!), now: now)
            case 100..<110:
                drill.handle(.active(["a", "b", nil].randomElement(using: &random)!), now: now)
            case 110 where Bool.random(using: &random): drill.handle(.abort, now: now)
            default: drill.handleTimeout(now: now)
            }
            while let output = drill.poll() { outputs.append(output) }
        }
        #expect(drill.isFinished && drill.nextTimeout == nil)
        #expect(outputs.first == .cut("a"))
        #expect(outputs.count { $0 == .cut("a") } == 1)
        #expect(outputs.count { $0 == .restore("a") } == 1)
        guard case .finished(let report) = outputs.last else {
            Issue.record("no report")
            return
        }
        for measure in [report.gateway, report.targets].compactMap(\.self) {
            #expect(measure.lost <= measure.sent && measure.longestGap >= .zero)
        }
    }
}
