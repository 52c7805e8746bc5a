import ControlAPI
import FoundationEssentials
import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

/// Whatever happens in whatever order, no rule is broken, and a tunnel that is well ends up so.
///
/// A failing seed is named with the failure; `VGWD_SIM_SEED=17 swift test --filter HealthStormTests` runs it
/// alone.
@Suite struct HealthStormTests {
    private static let seeds: [Range<UInt64>] = {
        let environment = ProcessInfo.processInfo.environment
        if let seed = environment["VGWD_SIM_SEED"].flatMap({ UInt64($0) }) { return [seed..<seed + 1] }
        let count = environment["VGWD_SIM_SEEDS"].flatMap { UInt64($0) } ?? 200
        return stride(from: 0, to: count, by: 50).map { $0..<min($0 + 50, count) }
    }()

    @Test("a storm of events breaks no rule, and then the tunnel comes up", arguments: seeds)
    func survives(seeds: Range<UInt64>) {
        for seed in seeds {
            var storm = HealthStorm(seed: seed)
            let problems = storm.run()
            #expect(
                problems == [], "seed \(seed): VGWD_SIM_SEED=\(seed) swift test --filter HealthStormTests")
        }
    }
}

struct HealthStorm {
    private var random: SplitMix
    private let tunnel: SimulatedTunnel
    private var problems: [String] = []
    private var isEnabled = true
    private var isInterfaceUp = true
    private var hasSession = false

    init(seed: UInt64) {
        random = SplitMix(seed: seed)
        tunnel = SimulatedTunnel(
            Self.settings(using: &random), phase: UInt32(truncatingIfNeeded: random.next()),
            canProbe: Bool.random(using: &random))
    }

    private static func settings(using random: inout SplitMix) -> HealthSettings {
        var settings = HealthSettings()
        settings.interval = .milliseconds([0, 10, 50, 200, 1000, 7000].randomElement(using: &random)!)
        settings.downAfter = [0, 1, 3, 10].randomElement(using: &random)!
        settings.upAfter = [0, 1, 5].randomElement(using: &random)!
        settings.holdDown = .milliseconds([0, 1000].randomElement(using: &random)!)
        settings.maxHoldDown = .seconds([0, 1, 60].randomElement(using: &random)!)
        settings.isOn = Int.random(in: 0..<8, using: &random) > 0
        settings.maxLoss = [nil, 0, 0.1].randomElement(using: &random)!
        settings.maxRoundTrip = [nil, .milliseconds(30)].randomElement(using: &random)!
        settings.targets = (0..<Int.random(in: 0...2, using: &random)).map {
            $0 == 0 ? .tcp(IPAddress(v4: 1), port: 1) : .echo(IPAddress(v4: 2))
        }
        return settings
    }

    mutating func run() -> [String] {
        for _ in 0..<150 {
            step()
            check()
            tunnel.run(for: .milliseconds([0, 1, 30, 200, 1500, 20_000].randomElement(using: &random)!))
            check()
        }
        heal()
        checkHistory()
        return problems
    }

    private mutating func step() {
        switch Int.random(in: 0..<15, using: &random) {
        case 0, 1:
            hasSession = true
            tunnel.tell(.sessionBegun)
        case 2:
            hasSession = false
            tunnel.tell(.sessionEnded)
        case 3: tunnel.tell(.handshakeStarted)
        case 4: tunnel.tell(.handshakeUnanswered(.noReplyToHandshake))
        case 5:
            tunnel.tell(
                .handshakeUnanswered([.mac1Wrong, .timestampNotNewer].randomElement(using: &random)!))
        case 6:
            let knowledge = [TunnelHealth.EndpointKnowledge.known, .awaited, .unresolved, .unknown]
            tunnel.tell(.endpoint(knowledge.randomElement(using: &random)!))
        case 7:
            isInterfaceUp.toggle()
            tunnel.tell(.interface(isUp: isInterfaceUp))
        case 8:
            isEnabled.toggle()
            tunnel.tell(isEnabled ? .enabledByOperator : .disabledByOperator)
        case 9: tunnel.isCut.toggle()
        case 10:
            let loss = Int.random(in: 1...4, using: &random)
            tunnel.isAnswered = { Int($0.sequence) % 5 >= loss }
        case 11: tunnel.roundTrip = .milliseconds([0, 1, 40, 450, 1800].randomElement(using: &random)!)
        case 12:
            let ago = Duration.milliseconds(Int.random(in: -5...20_000, using: &random))
            tunnel.tell(.heard(at: tunnel.now - ago))
        case 13:
            let seen = [nil, tunnel.now, tunnel.now + .seconds(3)].randomElement(using: &random)!
            let others = OtherTunnels.carry(targetsAnsweredAt: seen)
            tunnel.tell(.others([others, .noneCarries].randomElement(using: &random)!))
        default:
            tunnel.tell(
                .probeAnswered(
                    sequence: UInt32.random(in: 0...300, using: &random),
                    target: [nil, 0, 1, 7, -3].randomElement(using: &random)!, at: tunnel.now))
        }
    }

    private mutating func check() {
        let health = tunnel.health
        func demand(_ condition: Bool, _ rule: String) {
            if !condition { problems.append("\(rule): \(health.state), \(health.reason)") }
        }
        demand((health.state == .disabled) == !isEnabled, "disabled, and only then, by an operator")
        if isEnabled, !isInterfaceUp {
            demand(health.state == .down && health.reason == .interfaceDown, "no interface, no tunnel")
        }
        if health.state.isCarrying { demand(hasSession, "what carries has a session") }
        if health.state == .idle { demand(!health.isProbed && !hasSession, "a probed tunnel is never idle") }
        if health.state == .down { demand(health.hasFailed, "down is failed") }
        if health.state.isCarrying || health.state == .idle {
            demand(!health.hasFailed, "well is not failed")
        }
        if health.holdDownLeft(now: tunnel.now) != nil {
            demand(!health.state.isCarrying && hasSession, "held down is not up")
            demand(health.liveness == .answering, "held down is answering")
        }
        if health.state.isCarrying { demand(health.liveness == .answering, "what carries answers") }
        if !hasSession { demand(health.liveness == .silent, "no session, no answer") }
        let isProbing = health.isProbed && hasSession && isEnabled && isInterfaceUp
        if isProbing { demand(health.nextTimeout != nil, "a probed tunnel has a timer") }
        if !hasSession || !isEnabled || !isInterfaceUp {
            demand(health.nextTimeout == nil, "no timer without need")
        }
    }

    /// Each transition begins where the one before ended.
    private mutating func checkHistory() {
        for (earlier, later) in zip(tunnel.transitions, tunnel.transitions.dropFirst()) {
            if earlier.to != later.from || later.from == later.to || later.at < earlier.at {
                problems.append("a transition from nowhere: \(earlier) \(later)")
            }
        }
        if let last = tunnel.transitions.last, last.to != tunnel.state || last.at != tunnel.health.since {
            problems.append("a state that was not told")
        }
        if tunnel.toldLiveness != tunnel.health.liveness { problems.append("a liveness that was not told") }
    }

    private mutating func heal() {
        tunnel.isCut = false
        tunnel.isAnswered = { _ in true }
        tunnel.roundTrip = .milliseconds(1)
        if !isInterfaceUp { tunnel.tell(.interface(isUp: true)) }
        if !isEnabled { tunnel.tell(.enabledByOperator) }
        isInterfaceUp = true
        isEnabled = true
        hasSession = true
        tunnel.tell(.sessionBegun)
        // The longest hold-down, or all that the statistics remember, and as many probes as that takes.
        tunnel.run(for: .seconds(70) + tunnel.health.settings.interval * 20)
        check()
        if tunnel.state != .up { problems.append("it does not come up: \(tunnel.state)") }
    }
}
