import ControlAPI
import Testing
import WireGuard

@testable import GatewayCore

@Suite struct HoldDownTests {
    @Test(
        "1. a link that is up 2 s and down 2 s, ten times, is used at most twice",
        arguments: [10, 20, 50, 100, 200, 500])
    func flapping(interval: Int) {
        for step in 0..<50 {
            var settings = HealthSettings()
            settings.interval = .milliseconds(interval)
            let tunnel = SimulatedTunnel.up(settings, phase: UInt32(step) * (UInt32.max / 50))
            tunnel.run(for: .milliseconds(37 * step))
            tunnel.forgetHistory()
            for _ in 0..<10 {
                tunnel.isCut = true
                tunnel.run(for: .seconds(2))
                tunnel.isCut = false
                // A script that does this is a little late.
                tunnel.run(for: .milliseconds(2040))
            }
            #expect(tunnel.states.count { $0 == .up } <= 1, "and once before the first cut")
            #expect(tunnel.state == .down || tunnel.states.last == .up)
        }
    }

    @Test("2. there is none before the first flap; then a second, doubled by each, up to a minute")
    func doubling() {
        var holdDown = HoldDown(base: .seconds(1), maximum: .seconds(60))
        let now = Instant.at(.zero)
        var spans = [holdDown.span(carriedSince: nil, now: now)]
        for _ in 0..<9 {
            holdDown.flap(carriedSince: now - .seconds(10), now: now)
            spans.append(holdDown.span(carriedSince: nil, now: now))
        }
        #expect(spans == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60].map { .seconds($0) })
    }

    @Test("3. each minute up halves it, down to nothing")
    func decay() {
        var holdDown = HoldDown(base: .seconds(1), maximum: .seconds(60))
        let start = Instant.at(.zero)
        for _ in 0..<10 { holdDown.flap(carriedSince: nil, now: start) }
        let spans = (0...8).map { minute in
            holdDown.span(carriedSince: start, now: start + .seconds(60 * minute + 59))
        }
        #expect(
            spans == [60_000, 30_000, 15_000, 7_500, 3_750, 1_875, 0, 0, 0].map { .milliseconds($0) })
        holdDown.flap(carriedSince: start, now: start + .seconds(3 * 60))
        #expect(holdDown.span(carriedSince: nil, now: start) == .seconds(15))
        holdDown.flap(carriedSince: start, now: start + .seconds(1_000_000))
        #expect(holdDown.span(carriedSince: nil, now: start) == .seconds(1))
    }

    @Test("4. it is a span without a loss, behind the answers that would bring it up at first")
    func continuous() {
        let tunnel = SimulatedTunnel.up()
        tunnel.forgetHistory()
        func outage(_ duration: Duration) {
            tunnel.isCut = true
            tunnel.run(for: duration)
            tunnel.isCut = false
        }
        outage(.seconds(2))
        var healed = tunnel.now
        tunnel.run(for: .seconds(10))
        #expect(tunnel.states == [.down, .up])
        var took = tunnel.transitions[1].at - healed
        #expect(took >= .milliseconds(1800) && took <= .milliseconds(2010))

        outage(.seconds(2))
        healed = tunnel.now
        tunnel.run(for: .milliseconds(2500))
        #expect(tunnel.state == .down && tunnel.health.holdDownLeft(now: tunnel.now) == .milliseconds(490))
        #expect(!tunnel.health.isHoldDownInterrupted)
        #expect(tunnel.health.hasFailed)
        let lost = tunnel.health.statistics(now: tunnel.now).minute.lost
        tunnel.isCut = true
        tunnel.run(for: .milliseconds(200))
        tunnel.isCut = false
        let restarted = tunnel.now
        tunnel.run(for: .milliseconds(100))
        #expect(tunnel.health.statistics(now: tunnel.now).minute.lost == lost + 1)
        #expect(
            tunnel.health.holdDownLeft(now: tunnel.now) == .seconds(2),
            "one lost probe starts the span anew, and does nothing else")
        #expect(tunnel.health.isHoldDownInterrupted)
        tunnel.run(for: .seconds(10))
        #expect(tunnel.states == [.down, .up, .down, .up])
        took = tunnel.transitions[3].at - restarted
        #expect(took >= .milliseconds(2600) && took <= .milliseconds(3010))
        #expect(tunnel.health.holdDownLeft(now: tunnel.now) == nil)
    }

    @Test("5. after some minutes up a flap counts like the first")
    func forgiven() {
        let tunnel = SimulatedTunnel.up()
        for _ in 0..<3 {
            tunnel.isCut = true
            tunnel.run(for: .seconds(2))
            tunnel.isCut = false
            tunnel.run(for: .seconds(20))
        }
        #expect(tunnel.state == .up)
        #expect(tunnel.health.holdDown(now: tunnel.now) == .seconds(4))
        tunnel.run(for: .seconds(60))
        #expect(tunnel.health.holdDown(now: tunnel.now) == .seconds(2))
        tunnel.run(for: .seconds(120))
        #expect(tunnel.health.holdDown(now: tunnel.now) == .zero)
    }

    @Test("6. what an operator turns off and on has a clean slate, and that is no flap")
    func enabledAgain() {
        let tunnel = SimulatedTunnel.up()
        tunnel.tell(.disabledByOperator)
        #expect(tunnel.health.holdDown(now: tunnel.now) == .zero)
        tunnel.tell(.enabledByOperator)
        tunnel.run(for: .seconds(2))
        for _ in 0..<4 {
            tunnel.isCut = true
            tunnel.run(for: .seconds(2))
            tunnel.isCut = false
            tunnel.run(for: .seconds(20))
        }
        tunnel.tell(.disabledByOperator)
        tunnel.tell(.enabledByOperator)
        tunnel.forgetHistory()
        tunnel.run(for: .milliseconds(1010))
        #expect(tunnel.states == [.up])
    }

    @Test(
        "7. a flapping tunnel is chosen at most twice before a good one, and at once where there is no other")
    func chosen() {
        for hasOther in [true, false] {
            let flapping = SimulatedTunnel.up()
            let good = SimulatedTunnel.up()
            var selection = TunnelSelection(isBalanced: false)
            var isChosen = false
            var timesChosen = 0
            var usable = 0
            for step in 0..<4000 {
                flapping.isCut = step % 400 >= 200
                flapping.run(for: .milliseconds(10))
                good.run(for: .milliseconds(10))
                let candidates = [
                    TunnelSelection.Candidate(name: "a", priority: 1, weight: 1, health: flapping.health),
                    TunnelSelection.Candidate(name: "b", priority: 2, weight: 1, health: good.health),
                ]
                selection.update(hasOther ? candidates : [candidates[0]])
                if selection.active == 0, !isChosen { timesChosen += 1 }
                isChosen = selection.active == 0
                if selection.isUsable { usable += 1 }
            }
            if hasOther {
                #expect(timesChosen <= 2)
                #expect(!isChosen && usable == 4000)
            } else {
                // It answers for 2 of each 4 s: an interval less until that is seen, three more until its end is.
                #expect(usable > 2300 && usable < 2500, "\(usable)")
            }
        }
    }

    @Test(
        "8. what has no alternative is used as soon as it answers: within 1 s after each of ten cuts",
        arguments: [1, 2], [50, 200])
    func noAlternative(count: Int, interval: Int) {
        var settings = HealthSettings()
        settings.interval = .milliseconds(interval)
        let tunnels = (0..<count).map { SimulatedTunnel.up(settings, phase: UInt32($0) << 31 | 77 << 16) }
        for tunnel in tunnels { tunnel.run(until: .at(.seconds(5))) }
        var selection = TunnelSelection(isBalanced: false)
        /// Chooses anew only when a tunnel says that something changed, as the control loop does. Returns true while
        /// packets that are sent arrive.
        func step() -> Bool {
            for tunnel in tunnels { tunnel.run(for: .milliseconds(10)) }
            if tunnels.contains(where: { $0.isChanged }) || selection.active == nil {
                for tunnel in tunnels { tunnel.isChanged = false }
                selection.update(
                    tunnels.enumerated().map {
                        TunnelSelection.Candidate(
                            name: "\($0)", priority: $0, weight: 1, health: $1.health)
                    })
            }
            return selection.isUsable && selection.active.map { !tunnels[$0].isCut } ?? false
        }
        func run(_ milliseconds: Int, cut: Set<Int>) -> Int {
            for (number, tunnel) in tunnels.enumerated() { tunnel.isCut = cut.contains(number) }
            var lastLost = 0
            for time in stride(from: 10, through: milliseconds, by: 10) where !step() { lastLost = time }
            return lastLost
        }
        let all = Set(0..<count)
        #expect(run(100, cut: []) == 0)
        for cut in 0..<10 {
            _ = run(2000, cut: all)
            #expect(!selection.isUsable, "nothing leads there: cut \(cut)")
            let back = run(cut % 2 == 0 ? 500 : 3000, cut: [])
            #expect(back <= interval + 20, "cut \(cut): back after \(back) ms")
            // Those that are held down for each other, too.
            guard count > 1, let active = selection.active else { continue }
            let moved = run(2000, cut: [active])
            #expect(moved <= 4 * interval, "cut \(cut): moved after \(moved) ms")
        }
    }
}
