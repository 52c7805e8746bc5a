import ControlAPI
import Testing
import WireGuard

@testable import GatewayCore

extension Instant {
    static func at(_ duration: Duration) -> Instant { Instant(nanoseconds: 1_000_000_000_000) + duration }
}

/// A tunnel's health on virtual time, with a far end that answers as the test says.
final class SimulatedTunnel {
    var health: TunnelHealth
    private(set) var now = Instant.at(.zero)
    var roundTrip: Duration = .microseconds(500)
    /// Nothing passes either way, and nobody says so.
    var isCut = false
    /// One way only: what we send is lost.
    var isCutOut = false
    /// What comes beside answers, as acknowledgements of what we send do; nil is nothing.
    var dataInterval: Duration?
    /// Interval of the far end's own probes, which say what it hears; nil is no vgwd.
    var wordInterval: Duration?
    /// What we send arrives without a break, however long probes take.
    var isUploading = false
    /// Whether a probe that is not cut gets a reply.
    var isAnswered: (TunnelHealth.Probe) -> Bool = { _ in true }

    /// As the last output said.
    private(set) var toldLiveness = Liveness.silent
    /// A transition or another liveness was told: what makes the control loop choose anew.
    var isChanged = false
    private(set) var transitions: [TunnelHealth.Transition] = []
    private(set) var probes: [(probe: TunnelHealth.Probe, at: Instant)] = []
    private(set) var wakeUps = 0
    private var nextData = Instant.at(.zero)
    private var nextWord = Instant.at(.zero)
    private var lastReceived: Instant?
    private var word: (heardAt: Instant, saidAt: Instant)?
    private var reachedFarEnd = Instant.at(.zero)
    private var answers: [(probe: TunnelHealth.Probe, at: Instant)] = []

    init(_ settings: HealthSettings = HealthSettings(), phase: UInt32 = 0, canProbe: Bool = true) {
        health = TunnelHealth(settings: settings, phase: phase, canProbe: canProbe, now: now)
    }

    /// Probed, with a session, and up.
    static func up(_ settings: HealthSettings = HealthSettings(), phase: UInt32 = 0) -> SimulatedTunnel {
        let tunnel = SimulatedTunnel(settings, phase: phase)
        tunnel.tell(.sessionBegun)
        let interval = max(settings.interval, HealthSettings.shortestInterval)
        tunnel.run(for: interval * (settings.upAfter + 1) + .milliseconds(10))
        #expect(tunnel.health.state == .up)
        return tunnel
    }

    var state: TunnelState { health.state }
    var states: [TunnelState] { transitions.map(\.to) }

    func forgetHistory() {
        transitions = []
        probes = []
        wakeUps = 0
    }

    func tell(_ observation: TunnelHealth.Observation) {
        health.handle(observation, now: now)
        drain()
    }

    func run(for duration: Duration) { run(until: now + duration) }

    func run(until end: Instant) {
        var stuck = 0
        while true {
            let answer = answers.first?.at
            let data = dataInterval.map { _ in max(nextData, now) }
            let word = wordInterval.map { _ in max(nextWord, now) }
            let timeout = health.nextTimeout
            let next = Instant.earliest(.earliest(answer, data), .earliest(word, timeout))
            guard let next, next <= end else { break }
            stuck = next > now ? 0 : stuck + 1
            guard stuck < 1000 else {
                Issue.record("a timer that is due does nothing")
                break
            }
            now = max(now, next)
            if answer == next {
                let probe = answers.removeFirst().probe
                guard !isCut, !isCutOut else { continue }
                lastReceived = now
                health.handle(.heard(at: now), now: now)
                tell(.probeAnswered(sequence: probe.sequence, target: probe.target, at: now))
            } else if data == next || word == next {
                receive(isWord: data != next)
            } else {
                wakeUps += 1
                // As the control loop does: what the data threads noticed is told before.
                if let lastReceived { health.handle(.heard(at: lastReceived), now: now) }
                if let word = self.word {
                    health.handle(.heardByFarEnd(at: word.heardAt, said: word.saidAt), now: now)
                }
                health.handleTimeout(now: now)
                drain()
            }
        }
        now = end
    }

    private func receive(isWord: Bool) {
        if isUploading, !isCut, !isCutOut { reachedFarEnd = now }
        if isWord { nextWord = now + wordInterval! } else { nextData = now + dataInterval! }
        guard !isCut else { return }
        lastReceived = now
        if isWord { word = (reachedFarEnd, now) }
    }

    private func drain() {
        while let output = health.poll() {
            switch output {
            case .transition(let transition):
                transitions.append(transition)
                isChanged = true
            case .liveness(let liveness):
                toldLiveness = liveness
                isChanged = true
            case .targets: break
            case .probe(let probe):
                probes.append((probe, now))
                guard !isCut, !isCutOut, isAnswered(probe) else { continue }
                reachedFarEnd = max(reachedFarEnd, now)
                let at = now + roundTrip
                let place = answers.firstIndex { $0.at > at } ?? answers.count
                answers.insert((probe, at), at: place)
            }
        }
    }
}
