package import ControlAPI
package import WireGuard

/// A failover on purpose: takes a connection's active tunnel away as a cut cable would, measures by live
/// probes what its traffic sees, and puts it back.
///
///     1. `cut`, and from then on live probes by whatever tunnel is active: each 10 ms one to the far gateway, and
///        each 100 ms one to the targets behind it, whose owners did not ask for more
///     2. after its duration `restore`; the probes go on
///     3. when the tunnel is back, 500 ms more of probes, to see the return to it; or 10 s after `restore`
///     4. 500 ms for the last answers, then `finished`
///
/// What is cut is restored, whatever happens in between. The shape is that of ``TunnelHealth``.
package struct Drill: Sendable {
    package enum Output: Hashable, Sendable {
        /// Drop whatever comes and goes by this tunnel, handshakes included.
        case cut(String)
        case probe(Destination, sequence: UInt32)
        case restore(String)
        case finished(DrillOutcome)
    }

    package enum Destination: Hashable, Sendable {
        /// The far end of the inside link: it answers by the tunnel that it was asked by.
        case gateway
        /// What is behind it: answers come back as the far site's traffic does.
        case target
    }

    package enum Observation: Hashable, Sendable {
        /// One target that answers is enough.
        case probeAnswered(Destination, sequence: UInt32)
        case state(of: String, TunnelState)
        /// The connection's active tunnel is now this one.
        case active(String?)
        /// An operator, or a change of configuration, ends it.
        case abort
    }

    private enum Phase: Hashable {
        case cut(until: Instant)
        /// Waits for the tunnel to be up.
        case restored(until: Instant)
        /// It is; probes go on.
        case returned(until: Instant)
        case collecting(until: Instant)
        case finished

        var deadline: Instant? {
            switch self {
            case .cut(let until), .restored(let until), .returned(let until), .collecting(let until): until
            case .finished: nil
            }
        }

        var isProbing: Bool {
            switch self {
            case .cut, .restored, .returned: true
            case .collecting, .finished: false
            }
        }
    }

    package static let probeInterval: Duration = .milliseconds(10)
    package static let targetInterval: Duration = .milliseconds(100)
    package static let durations: ClosedRange<Duration> = .seconds(1)...(.seconds(600))
    static let returnTimeout: Duration = .seconds(10)
    static let settling: Duration = .milliseconds(500)

    private var phase = Phase.finished
    private var report: DrillOutcome
    private let tunnel: String
    private var isTunnelCarrying = true
    private let cutAt: Instant
    private var restoredAt: Instant?
    private var active: String?
    private var probes: LiveProbes
    /// Nil where there is no target.
    private var targetProbes: LiveProbes?

    private var outputs: [Output] = []
    private var outputsTaken = 0

    /// `tunnels`: the state of each of the connection's. `duration` is brought within `durations`.
    package init(
        connection: String, tunnels: [String: TunnelState], active: String?, hasTargets: Bool = false,
        duration: Duration = .seconds(10), objective: Duration? = nil, now: Instant
    ) {
        report = DrillOutcome(connection: connection)
        report.objective = objective
        cutAt = now
        probes = LiveProbes(each: Self.probeInterval, from: now)
        targetProbes = hasTargets ? LiveProbes(each: Self.targetInterval, from: now) : nil
        tunnel = active ?? ""
        self.active = active
        if let refusal = Self.refusal(tunnels: tunnels, active: active) {
            report.refusal = refusal
            report.activeAfter = active
            outputs.append(.finished(report))
            return
        }
        report.cut = active
        phase = .cut(until: now + min(max(duration, Self.durations.lowerBound), Self.durations.upperBound))
        outputs.append(.cut(tunnel))
    }

    private static func refusal(tunnels: [String: TunnelState], active: String?) -> DrillOutcome.Refusal? {
        if tunnels.count < 2, active != nil { return .onlyOneTunnel }
        guard let active, tunnels[active]?.isCarrying ?? false else { return .noActiveTunnel }
        let isSomeOtherUp = tunnels.contains { $0.key != active && $0.value.isCarrying }
        return isSomeOtherUp ? nil : .noOtherTunnelUp
    }

    // MARK: What happens

    package mutating func handle(_ observation: Observation, now: Instant) {
        guard phase != .finished else { return }
        switch observation {
        case .probeAnswered(.gateway, let sequence): probes.answered(sequence)
        case .probeAnswered(.target, let sequence): targetProbes?.answered(sequence)
        case .state(let name, let state):
            guard name == tunnel else { return }
            isTunnelCarrying = state.isCarrying
            switch phase {
            case .cut where !isTunnelCarrying && report.timeToDetect == nil:
                report.timeToDetect = now - cutAt
            case .restored where isTunnelCarrying: returned(at: now)
            default: break
            }
        case .active(let name):
            active = name
        case .abort:
            guard phase.isProbing else { return }
            report.wasAborted = true
            if case .cut = phase { restore(at: now) }
            collect(from: now)
        }
    }

    // MARK: Time and output

    /// When `handleTimeout` has something to do; nil once it has finished.
    package var nextTimeout: Instant? {
        guard let deadline = phase.deadline else { return nil }
        guard phase.isProbing else { return deadline }
        return min(deadline, probes.nextAt, targetProbes?.nextAt ?? deadline)
    }

    package mutating func handleTimeout(now: Instant) {
        if let deadline = phase.deadline, deadline <= now {
            switch phase {
            case .cut: restore(at: now)
            case .restored, .returned: collect(from: now)
            case .collecting: finish()
            case .finished: break
            }
        }
        guard phase.isProbing else { return }
        if let sequence = probes.takeDue(at: now) { outputs.append(.probe(.gateway, sequence: sequence)) }
        if let sequence = targetProbes?.takeDue(at: now) {
            outputs.append(.probe(.target, sequence: sequence))
        }
    }

    package mutating func poll() -> Output? {
        if outputsTaken < outputs.count {
            outputsTaken += 1
            return outputs[outputsTaken - 1]
        }
        outputs.removeAll(keepingCapacity: true)
        outputsTaken = 0
        return nil
    }

    package var isFinished: Bool { phase == .finished }

    // MARK: Phases

    private mutating func restore(at now: Instant) {
        restoredAt = now
        report.activeWhileCut = active
        outputs.append(.restore(tunnel))
        phase = .restored(until: now + Self.returnTimeout)
        // Health that never noticed has nothing to come back from.
        if isTunnelCarrying { returned(at: now) }
    }

    private mutating func returned(at now: Instant) {
        report.timeToReturn = restoredAt.map { now - $0 }
        phase = .returned(until: now + Self.settling)
    }

    private mutating func collect(from now: Instant) { phase = .collecting(until: now + Self.settling) }

    private mutating func finish() {
        phase = .finished
        report.activeAfter = active
        report.hasFailedBack = report.activeWhileCut != tunnel && active == tunnel
        let end = restoredAt ?? cutAt
        report.gateway = probes.measure(from: cutAt, to: end)
        report.targets = targetProbes?.measure(from: cutAt, to: end)
        outputs.append(.finished(report))
    }
}
