package import ControlAPI
package import WireGuard

/// What one tunnel is good for, by handshakes, by the probes that it asks for, and by what is around it.
///
///     1. tell it what happened   handle, handleTimeout
///     2. take what it asks for   poll until nil: probes to send, transitions to tell others of
///     3. come back               at `nextTimeout`, or when something happens
///
/// Observations are kept as facts, and the state is what follows from all of them: so they may come in any
/// order, twice or late. The rules, from the first that applies:
///
/// | what is so | state |
/// |---|---|
/// | an operator turned it off | disabled |
/// | the interface that it leaves by is down | down |
/// | no session, and a handshake failed, or the endpoint does not resolve | down |
/// | no session, but probed, or a handshake is under way | connecting |
/// | no session | idle |
/// | not probed; handshakes fail, and nothing was heard for 15 s | down |
/// | not probed | up |
/// | probes are lost as ``TunnelProbes`` has it | down (up again as `HoldDown` has it) |
/// | targets answer by other tunnels and not by this one | the same |
/// | probed, and nothing known yet | connecting |
/// | too much loss, or too long a round trip | degraded until it is below 80 % of the limit |
/// | probes are answered | up |
///
/// Concurrency: a value, owned by the control thread.
package struct TunnelHealth: Sendable {
    package enum Observation: Hashable, Sendable {
        /// A handshake completed: there is a session, be it the first or the next one.
        case sessionBegun
        /// Expired, wiped or taken away, and no other took its place.
        case sessionEnded
        /// The first initiation of an attempt was sent.
        case handshakeStarted
        /// An initiation got no reply in time, or could not be sent: for what the far end's messages were dropped
        /// for, where that is known. By itself such a message changes nothing: anybody can send one.
        case handshakeUnanswered(HealthReason)
        /// `target` as in the probe; of a TCP target the low 16 bits of `sequence` suffice.
        case probeAnswered(sequence: UInt32, target: Int?, at: Instant)
        /// Anything authentic: to be told before `probeAnswered` and `handleTimeout`, too. With probes it counts as an
        /// answer, but for loss and round trip; without, it is what keeps a tunnel up while handshakes fail.
        case heard(at: Instant)
        /// The far end said so in a probe of its own: when it had last heard us, on this end's clock. Likewise.
        case heardByFarEnd(at: Instant, said: Instant)
        /// Whether another tunnel of the connection is known to carry packets.
        case alternative(Bool)
        case endpoint(EndpointKnowledge)
        /// What the other tunnels of its connection are good for; needed where there are targets.
        case others(OtherTunnels)
        /// The interface that the tunnel is bound to, or that its packets leave by.
        case interface(isUp: Bool)
        case disabledByOperator
        case enabledByOperator
    }

    package enum EndpointKnowledge: Hashable, Sendable {
        case known
        /// It has a name, which is being looked up for the first time.
        case awaited
        /// It has a name, and the name has no address.
        case unresolved
        /// None is configured, and the far end has not spoken yet.
        case unknown
    }

    package struct Probe: Hashable, Sendable {
        package var sequence: UInt32
        /// Nil for the far inside address, or an index into the settings' targets.
        package var target: Int?
    }

    package struct Transition: Hashable, Sendable {
        package var from: TunnelState
        package var to: TunnelState
        package var reason: HealthReason
        package var at: Instant
    }

    package enum Output: Hashable, Sendable {
        case probe(Probe)
        case transition(Transition)
        /// What `liveness` is now: whoever chooses among tunnels must look again, as the state may stay what it is.
        case liveness(Liveness)
        /// What targets say by this tunnel, for the others.
        case targets(TargetReach)
    }

    package let settings: HealthSettings
    package private(set) var state: TunnelState
    /// Why it is in that state: of up, how it came there; of any other, the newest that is known.
    package private(set) var reason = HealthReason.started
    /// When the state began.
    package private(set) var since: Instant
    /// It has been down, and neither up, degraded nor idle since.
    package private(set) var hasFailed = false
    package private(set) var liveness = Liveness.silent

    // Facts.
    private var isEnabled = true
    private var isInterfaceUp = true
    private let canProbe: Bool
    package private(set) var hasSession = false
    private var isHandshaking = false
    private var endpoint = EndpointKnowledge.known
    /// Why the last handshake failed; nil after one that completed.
    private var failure: HealthReason?
    private var lastHeard: Instant?
    /// What began the wait, or the session, of now.
    private var cause = HealthReason.started

    private var probes: TunnelProbes
    private var toldReach = TargetReach.unknown
    private var holdDown: HoldDown
    /// Since when it has been up or degraded.
    private var carriedSince: Instant?

    private var outputs: [Output] = []
    private var outputsTaken = 0

    /// `phase` in 2^32ths of an interval, another one for each tunnel.
    package init(settings: HealthSettings, phase: UInt32, canProbe: Bool, now: Instant) {
        self.settings = settings
        self.canProbe = canProbe
        probes = TunnelProbes(settings: settings, phase: phase)
        holdDown = HoldDown(base: settings.holdDown, maximum: settings.maxHoldDown)
        state = settings.isOn && canProbe ? .connecting : .idle
        since = now
    }

    // MARK: What happens

    package mutating func handle(_ observation: Observation, now: Instant) {
        switch observation {
        case .sessionBegun:
            hasSession = true
            isHandshaking = false
            failure = nil
            lastHeard = latest(lastHeard, now)
            probes.heard(at: now)
            cause = .handshakeCompleted
        case .sessionEnded:
            guard hasSession else { return }
            // What the probes found stays true until a new session shows otherwise.
            if case .failed = probes.verdict { failure = failure ?? .sessionExpired }
            hasSession = false
            cause = .sessionExpired
        case .handshakeStarted:
            isHandshaking = true
            if !hasSession { cause = .started }
        case .handshakeUnanswered(let reason):
            isHandshaking = true
            failure = reason
        case .probeAnswered(let sequence, let target, let at):
            probes.answer(
                sequence, target: target, at: min(at, now), now: now,
                holdDown: holdDown.span(carriedSince: nil, now: now))
        case .heard(let at):
            lastHeard = latest(lastHeard, min(at, now))
            probes.heard(at: min(at, now))
            if !isProbed, hasSession, state == .down { cause = .trafficHeard }
        case .heardByFarEnd(let at, let said):
            probes.heardByFarEnd(at: min(at, now), said: min(said, now))
        case .alternative(let isThere):
            probes.hasAlternative = isThere
        case .endpoint(let knowledge):
            if endpoint != .known, knowledge == .known, !hasSession { forgetHandshakes() }
            endpoint = knowledge
        case .others(let others):
            probes.note(others, now: now)
        case .interface(let isUp):
            guard isUp != isInterfaceUp else { return }
            isInterfaceUp = isUp
            forgetHandshakes()
            cause = .started
        case .disabledByOperator:
            isEnabled = false
        case .enabledByOperator:
            guard !isEnabled else { return }
            isEnabled = true
            forgetHandshakes()
            holdDown.forget()
            cause = .operator
        }
        settle(now: now)
    }

    /// What failed was asked of somebody else, or by another way: it says nothing of the next attempt.
    private mutating func forgetHandshakes() {
        failure = nil
        isHandshaking = false
    }

    // MARK: Time and output

    /// When `handleTimeout` has something to do; nil while nothing is awaited.
    package var nextTimeout: Instant? { probes.isRunning ? probes.nextTimeout : silenceDeadline }

    package mutating func handleTimeout(now: Instant) {
        probes.expire(now: now)
        while let probe = probes.takeDue(at: now) { outputs.append(.probe(probe)) }
        settle(now: now)
    }

    package mutating func poll() -> Output? {
        if outputsTaken < outputs.count {
            outputsTaken += 1
            return outputs[outputsTaken - 1]
        }
        outputs.removeAll(keepingCapacity: outputs.count <= 8)
        outputsTaken = 0
        return nil
    }

    // MARK: Looking

    package struct Statistics: Hashable, Sendable {
        package var second: ProbeStatistics.Window
        package var tenSeconds: ProbeStatistics.Window
        package var minute: ProbeStatistics.Window
        /// RFC 6298, section 2; nil before the first answer.
        package var smoothedRoundTrip: Duration?
        package var roundTripVariation: Duration?
    }

    /// What the probes to the far inside address found.
    package func statistics(now: Instant) -> Statistics {
        Statistics(
            second: probes.statistics.window(.second, at: now),
            tenSeconds: probes.statistics.window(.tenSeconds, at: now),
            minute: probes.statistics.window(.minute, at: now),
            smoothedRoundTrip: probes.estimator.smoothed, roundTripVariation: probes.estimator.variation)
    }

    package var isProbed: Bool { settings.isOn && canProbe }

    /// How long it would have to behave, were it to come up now.
    package func holdDown(now: Instant) -> Duration {
        holdDown.span(carriedSince: carriedSince, now: now)
    }

    /// How long probes must still be answered. Nil, unless they are answered well enough, and only for having flapped is
    /// it not up yet.
    package func holdDownLeft(now: Instant) -> Duration? {
        probes.holdDownLeft(of: holdDown(now: now), now: now)
    }

    /// Returns true if a probe was lost while it was held down: the span begins anew with the next answer.
    package var isHoldDownInterrupted: Bool { probes.isHoldDownInterrupted }

    package var targetReach: TargetReach { probes.targetReach }

    /// Returns true if the tunnel itself works, whatever its targets do.
    package var isWorking: Bool {
        liveness == .answering || state == .down && reason == .targetUnreachable
    }

    /// By index into the settings' targets; nil while that is not known.
    package func isReachable(target: Int) -> Bool? { probes.isReachable(target: target) }

    /// For how long the far end has not been heard: what probes tell it. Nil when it never was.
    package func silence(now: Instant) -> Duration? { lastHeard.map { now > $0 ? now - $0 : .zero } }

    // MARK: State

    /// Brings probing, the state and the liveness to what the facts say.
    private mutating func settle(now: Instant) {
        settleProbing(now: now)
        if probes.targetReach != toldReach {
            toldReach = probes.targetReach
            outputs.append(.targets(toldReach))
        }
        settleState(now: now)
        let next = state.isCarrying ? .answering : probes.liveness
        guard next != liveness else { return }
        liveness = next
        outputs.append(.liveness(next))
    }

    private mutating func settleProbing(now: Instant) {
        let shouldProbe = isProbed && isEnabled && isInterfaceUp && hasSession
        if shouldProbe, !probes.isRunning {
            // One that was up without probes stays so until they show otherwise.
            probes.start(at: now, as: state.isCarrying ? .answered : .awaited)
        } else if !shouldProbe, probes.isRunning {
            probes.stop()
        }
    }

    private mutating func settleState(now: Instant) {
        let (next, why) = conclusion(at: now)
        guard next != state else {
            if state != .up { reason = why }
            return
        }
        switch (state.isCarrying, next.isCarrying) {
        case (false, true): carriedSince = now
        case (true, false):
            if next == .down { holdDown.flap(carriedSince: carriedSince, now: now) }
            carriedSince = nil
        default: break
        }
        if next == .down { hasFailed = true } else if next != .connecting { hasFailed = false }
        outputs.append(.transition(Transition(from: state, to: next, reason: why, at: now)))
        state = next
        reason = why
        since = now
    }

    /// The table at the top.
    private func conclusion(at now: Instant) -> (TunnelState, HealthReason) {
        guard isEnabled else { return (.disabled, .operator) }
        guard isInterfaceUp else { return (.down, .interfaceDown) }
        guard hasSession else {
            if let failure { return (.down, failure) }
            switch endpoint {
            case .unresolved: return (.down, .endpointUnresolved)
            case .awaited: return (isProbed ? .connecting : .idle, .endpointAwaited)
            case .unknown: return (isProbed ? .connecting : .idle, .endpointUnknown)
            case .known: return (isProbed || isHandshaking ? .connecting : .idle, cause)
            }
        }
        guard isProbed else {
            if let failure, !isHeard(at: now) { return (.down, failure) }
            return (.up, cause)
        }
        switch probes.verdict {
        case .awaited: return (.connecting, cause)
        case .failed(let reason): return (.down, reason)
        case .answered: return probes.complaint.map { (.degraded, $0) } ?? (.up, .probesAnswered)
        }
    }

    private func isHeard(at now: Instant) -> Bool {
        guard let lastHeard else { return false }
        return now < lastHeard + Protocol.deadPeerTimeout
    }

    /// When a session without probes, whose handshakes fail, has been silent for too long.
    private var silenceDeadline: Instant? {
        guard isEnabled, isInterfaceUp, hasSession, !isProbed, failure != nil, state == .up else {
            return nil
        }
        return lastHeard.map { $0 + Protocol.deadPeerTimeout }
    }
}

private func latest(_ a: Instant?, _ b: Instant) -> Instant { a.map { max($0, b) } ?? b }
