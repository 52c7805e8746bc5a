import ControlAPI
import Testing
import WireGuard

@testable import GatewayCore

/// What probes make of a tunnel's state, on virtual time.
@Suite struct ProbingTests {
    private func settings(interval: Duration = .milliseconds(200)) -> HealthSettings {
        var settings = HealthSettings()
        settings.interval = interval
        settings.holdDown = .zero
        return settings
    }

    // MARK: Down

    @Test(
        "1. a silent cut at any moment is found within downAfter intervals and the shortest timeout",
        arguments: [
            (interval: 200, limit: 660), (interval: 50, limit: 200), (interval: 10, limit: 50),
            (interval: 1000, limit: 3260),
        ])
    func detection(interval: Int, limit: Int) {
        var longest = Duration.zero
        for step in 0..<500 {
            let interval = Duration.milliseconds(interval)
            let tunnel = SimulatedTunnel.up(
                settings(interval: interval), phase: UInt32(truncatingIfNeeded: step &* 0x9e37_79b9))
            tunnel.run(for: interval * 3 + interval * step / 500)
            tunnel.forgetHistory()
            tunnel.isCut = true
            let cut = tunnel.now
            tunnel.run(for: .milliseconds(3 * limit))
            #expect(tunnel.states == [.down])
            #expect(tunnel.health.reason == .probeTimeout)
            if let down = tunnel.transitions.first { longest = max(longest, down.at - cut) }
        }
        #expect(longest <= .milliseconds(limit))
        #expect(longest > .milliseconds(interval * 3), "the worst moment was among them")
    }

    @Test("2. one or two lost probes in a row do nothing", arguments: [1, 2])
    func fewLost(inRow: Int) {
        let tunnel = SimulatedTunnel.up(settings())
        tunnel.isAnswered = { Int($0.sequence) % (inRow + 1) == 0 }
        tunnel.forgetHistory()
        tunnel.run(for: .seconds(60))
        #expect(tunnel.transitions.isEmpty)
        let loss = tunnel.health.statistics(now: tunnel.now).tenSeconds.loss ?? 0
        #expect(abs(loss - Double(inRow) / Double(inRow + 1)) < 0.03)
    }

    @Test("3. a late answer ends the row of unanswered ones, and is no longer lost")
    func lateAnswer() {
        let tunnel = SimulatedTunnel.up(settings())
        tunnel.forgetHistory()
        tunnel.roundTrip = .milliseconds(430)
        tunnel.run(for: .seconds(5))
        #expect(tunnel.transitions.isEmpty, "two were late before the first late answer came")
        tunnel.run(for: .seconds(20))
        let statistics = tunnel.health.statistics(now: tunnel.now)
        #expect(statistics.minute.lost == 0)
        #expect(statistics.tenSeconds.roundTrip == .milliseconds(430))
    }

    @Test("4. before any answer a probe is waited for a whole second")
    func firstTimeout() {
        let tunnel = SimulatedTunnel(settings())
        tunnel.isCut = true
        tunnel.tell(.sessionBegun)
        tunnel.run(for: .seconds(5))
        #expect(tunnel.transitions.map(\.to) == [.down])
        #expect(tunnel.transitions.first?.at == tunnel.probes[2].at + .seconds(1))
        #expect(tunnel.transitions.first?.from == .connecting)
    }

    @Test("5. a long round trip is waited for, and a cut is found all the same", arguments: [100, 300, 800])
    func longRoundTrip(milliseconds: Int) {
        let tunnel = SimulatedTunnel(settings())
        tunnel.roundTrip = .milliseconds(milliseconds)
        tunnel.tell(.sessionBegun)
        tunnel.run(for: .seconds(60))
        #expect(tunnel.states == [.up])
        #expect(tunnel.health.statistics(now: tunnel.now).minute.lost == 0)
        tunnel.isCut = true
        tunnel.run(for: .milliseconds(600 + 1000))
        #expect(tunnel.state == .down)
    }

    @Test("6. answers that nobody asked for change nothing: never sent, known already, or too old")
    func strangeAnswers() {
        let tunnel = SimulatedTunnel.up(settings())
        let count = tunnel.health.statistics(now: tunnel.now).minute.answered
        tunnel.isCut = true
        tunnel.forgetHistory()
        for sequence in [0, 1, 4, 1000, UInt32.max] {
            tunnel.tell(.probeAnswered(sequence: sequence, target: nil, at: tunnel.now))
            tunnel.tell(.probeAnswered(sequence: sequence, target: 0, at: tunnel.now))
            tunnel.tell(.probeAnswered(sequence: sequence, target: -1, at: tunnel.now))
        }
        #expect(tunnel.health.statistics(now: tunnel.now).minute.answered == count)
        tunnel.run(for: .milliseconds(660))
        #expect(tunnel.states == [.down])
        tunnel.run(for: .seconds(10))
        let old = tunnel.probes[0].probe.sequence
        tunnel.tell(.probeAnswered(sequence: old, target: nil, at: tunnel.now))
        #expect(tunnel.health.statistics(now: tunnel.now).minute.answered == count)
    }

    @Test("7. a control thread that stood still takes nobody down")
    func stall() {
        let tunnel = SimulatedTunnel.up(settings())
        var health = tunnel.health
        var now = tunnel.now
        for _ in 0..<20 {
            now = now + .seconds(3)
            health.handleTimeout(now: now)
            var sent: [UInt32] = []
            while let output = health.poll() {
                if case .probe(let probe) = output { sent.append(probe.sequence) }
            }
            #expect(sent.count == 1, "what was missed is not caught up with")
            for sequence in sent {
                health.handle(
                    .probeAnswered(sequence: sequence, target: nil, at: now + .milliseconds(1)),
                    now: now + .seconds(2))
            }
        }
        #expect(health.state == .up)
    }

    // MARK: Up

    @Test("8. upAfter answers in a row bring it up, not one less", arguments: [1, 2, 5, 20])
    func upAfter(count: Int) {
        var settings = settings()
        settings.upAfter = count
        let tunnel = SimulatedTunnel(settings)
        tunnel.tell(.sessionBegun)
        tunnel.run(for: .seconds(10))
        #expect(tunnel.transitions.map(\.to) == [.up])
        #expect(tunnel.transitions.first?.at == tunnel.probes[count - 1].at + tunnel.roundTrip)
        #expect(tunnel.transitions.first?.reason == .probesAnswered)

        let lossy = SimulatedTunnel(settings)
        lossy.isAnswered = { Int($0.sequence) % (count + 1) != count - 1 || count == 1 }
        lossy.tell(.sessionBegun)
        lossy.run(for: .milliseconds(200 * count + 100))
        #expect(lossy.state == (count == 1 ? .up : .connecting))
    }

    @Test("9. it comes back by itself once probes are answered again")
    func comesBack() {
        let tunnel = SimulatedTunnel.up(settings())
        tunnel.forgetHistory()
        tunnel.isCut = true
        tunnel.run(for: .seconds(3))
        tunnel.isCut = false
        let healed = tunnel.now
        tunnel.run(for: .seconds(3))
        #expect(tunnel.states == [.down, .up])
        #expect(tunnel.transitions.last.map { $0.at - healed <= .milliseconds(1001) } ?? false)
        #expect(!tunnel.health.hasFailed)
    }

    // MARK: When probes leave

    @Test("10. probes leave on the interval, each tunnel at its own phase, and wake nobody besides")
    func phases() {
        var places: Set<Duration> = []
        for index in 0..<100 {
            let tunnel = SimulatedTunnel.up(settings(), phase: UInt32(index) * (UInt32.max / 100))
            tunnel.forgetHistory()
            tunnel.run(for: .seconds(10))
            #expect(tunnel.probes.count == 50)
            #expect(tunnel.wakeUps == 50)
            for (earlier, later) in zip(tunnel.probes, tunnel.probes.dropFirst()) {
                #expect(later.at - earlier.at == .milliseconds(200))
                #expect(later.probe.sequence == earlier.probe.sequence + 1)
            }
            places.insert(.nanoseconds(Int64(tunnel.probes[0].at.nanoseconds % 200_000_000)))
        }
        #expect(places.count == 100)
    }

    @Test("11. without a session, when off, or disabled, nothing is sent and no timer runs")
    func quiet() {
        var off = settings()
        off.isOn = false
        let tunnel = SimulatedTunnel(settings())
        #expect(tunnel.health.nextTimeout == nil)
        tunnel.tell(.sessionBegun)
        #expect(tunnel.health.nextTimeout != nil)
        tunnel.tell(.sessionEnded)
        #expect(tunnel.health.nextTimeout == nil)
        tunnel.tell(.sessionBegun)
        tunnel.tell(.disabledByOperator)
        #expect(tunnel.health.nextTimeout == nil)
        tunnel.tell(.enabledByOperator)
        tunnel.tell(.interface(isUp: false))
        #expect(tunnel.health.nextTimeout == nil)
        let unprobed = SimulatedTunnel(off)
        unprobed.tell(.sessionBegun)
        unprobed.run(for: .seconds(100))
        #expect(unprobed.probes.isEmpty && unprobed.wakeUps == 0)
    }

    // MARK: Targets

    private func withTargets(_ count: Int) -> HealthSettings {
        var settings = settings()
        settings.targets = (0..<count).map {
            $0 % 2 == 0
                ? .echo(IPAddress(v4: 0x0a14_000a + UInt32($0)))
                : .tcp(IPAddress(v4: 0x0a14_000a + UInt32($0)), port: 443)
        }
        return settings
    }

    @Test("13. each target is probed at five intervals, and not all at once", arguments: 1...4)
    func targetInterval(count: Int) {
        let tunnel = SimulatedTunnel.up(withTargets(count))
        tunnel.run(for: .seconds(2))
        tunnel.forgetHistory()
        tunnel.run(for: .seconds(10))
        var instants: Set<Instant> = []
        for target in 0..<count {
            let probes = tunnel.probes.filter { $0.probe.target == target }
            #expect(probes.count == 10)
            instants.formUnion(probes.map(\.at))
        }
        #expect(instants.count == 10 * count)
    }

    @Test("14. one target that answers is enough; when none does but by others, the tunnel is down for it")
    func targets() {
        let tunnel = SimulatedTunnel.up(withTargets(3))
        tunnel.run(for: .seconds(2))
        tunnel.forgetHistory()
        tunnel.isAnswered = { $0.target == nil || $0.target == 1 }
        tunnel.run(for: .seconds(20))
        #expect(tunnel.transitions.isEmpty)
        #expect(tunnel.health.isReachable(target: 0) == false)
        #expect(tunnel.health.isReachable(target: 1) == true)
        tunnel.isAnswered = { $0.target == nil }
        let silent = tunnel.now
        tunnel.run(for: .milliseconds(1500))
        tunnel.tell(.others(.carry(targetsAnsweredAt: tunnel.now)))
        tunnel.run(for: .seconds(20))
        #expect(tunnel.states == [.down])
        #expect(tunnel.health.reason == .targetUnreachable)
        #expect(tunnel.transitions.first.map { $0.at - silent < .milliseconds(3500) } ?? false)
        #expect(tunnel.health.holdDownLeft(now: tunnel.now) == nil)
        tunnel.isAnswered = { $0.target == nil || $0.target == 2 }
        tunnel.run(for: .seconds(3))
        #expect(tunnel.states == [.down, .up])
    }

    @Test("15. where targets answer by another tunnel, one is not up before they answer by it, too")
    func targetFirst() {
        let tunnel = SimulatedTunnel(withTargets(1))
        tunnel.tell(.others(.carry(targetsAnsweredAt: tunnel.now)))
        tunnel.isAnswered = { $0.target == nil }
        tunnel.tell(.sessionBegun)
        tunnel.run(for: .seconds(3))
        #expect(tunnel.state == .connecting)
        tunnel.tell(.others(.carry(targetsAnsweredAt: tunnel.now)))
        tunnel.run(for: .seconds(7))
        #expect(tunnel.states == [.down])
        #expect(tunnel.health.reason == .targetUnreachable)
        #expect(tunnel.health.isReachable(target: 0) == false)
        #expect(tunnel.health.isReachable(target: 1) == nil)
    }

    @Test("16. of a TCP target the low 16 bits of a sequence are enough")
    func shortSequence() {
        var stream = ProbeStream(interval: .seconds(1), phase: 0, firstSequence: 0x0001_fffe)
        stream.start(at: .at(.zero))
        var sent: [UInt32] = []
        for second in 0..<5 { sent.append(stream.takeDue(at: .at(.seconds(second)))!) }
        #expect(sent == [0x1_fffe, 0x1_ffff, 0x2_0000, 0x2_0001, 0x2_0002])
        for sequence in sent {
            let whole = stream.sequence(endingIn: UInt16(truncatingIfNeeded: sequence))
            #expect(whole == sequence)
            #expect(stream.answer(whole, at: .at(.seconds(5))) != nil)
            #expect(stream.answer(whole, at: .at(.seconds(5))) == nil)
        }
    }

    // MARK: Degraded

    @Test("17. past the loss limit it is degraded, and up again below 80 % of it")
    func loss() {
        var settings = settings()
        settings.maxLoss = 0.2
        let tunnel = SimulatedTunnel.up(settings)
        tunnel.forgetHistory()
        tunnel.isAnswered = { $0.sequence % 4 != 0 }
        tunnel.run(for: .seconds(30))
        #expect(tunnel.states == [.degraded])
        #expect(tunnel.health.reason == .lossTooHigh)
        // 18 %: within the limit, but no relief yet.
        tunnel.isAnswered = { ![0, 5, 11, 16, 22, 27, 33, 38, 44].contains($0.sequence % 50) }
        tunnel.run(for: .seconds(30))
        #expect(tunnel.states == [.degraded])
        tunnel.isAnswered = { $0.sequence % 10 != 0 }
        tunnel.run(for: .seconds(30))
        #expect(tunnel.states == [.degraded, .up])
    }

    @Test("18. past the round-trip limit it is degraded, and up again below 80 % of it")
    func roundTrip() {
        var settings = settings()
        settings.maxRoundTrip = .milliseconds(100)
        let tunnel = SimulatedTunnel.up(settings)
        tunnel.forgetHistory()
        tunnel.roundTrip = .milliseconds(120)
        tunnel.run(for: .seconds(30))
        #expect(tunnel.states == [.degraded])
        #expect(tunnel.health.reason == .roundTripTooLong)
        tunnel.roundTrip = .milliseconds(90)
        tunnel.run(for: .seconds(30))
        #expect(tunnel.states == [.degraded])
        tunnel.roundTrip = .milliseconds(70)
        tunnel.run(for: .seconds(30))
        #expect(tunnel.states == [.degraded, .up])
        tunnel.isCut = true
        tunnel.run(for: .seconds(1))
        #expect(tunnel.states == [.degraded, .up, .down])
    }

    @Test("19. the outage that is over does not make it degraded; four probes are no judgement")
    func noGrudge() {
        var settings = settings(interval: .milliseconds(50))
        settings.maxLoss = 0.05
        let tunnel = SimulatedTunnel.up(settings)
        for _ in 0..<10 {
            tunnel.forgetHistory()
            tunnel.isCut = true
            tunnel.run(for: .milliseconds(3170))
            tunnel.isCut = false
            tunnel.run(for: .milliseconds(9050))
            #expect(tunnel.states == [.down, .up])
        }
        var slow = settings
        slow.interval = .seconds(5)
        let rare = SimulatedTunnel.up(slow)
        rare.forgetHistory()
        rare.isAnswered = { $0.sequence % 2 == 0 }
        rare.run(for: .seconds(60))
        #expect(rare.states == [.degraded], "a minute sees enough of rare probes")
    }
}
