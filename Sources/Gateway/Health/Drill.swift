package import WireGuard

/// A failover on purpose: takes a connection's active tunnel away as a cut cable would, measures by live
/// probes what its traffic sees, and puts it back.
///
///     1. `cut`, and from then on a live probe each 10 ms by whatever tunnel is active
///     2. after its duration `restore`; the probes go on
///     3. when the tunnel is back, 500 ms more of probes, to see the return to it; or 10 s after `restore`
///     4. 500 ms for the last answers, then `finished`
///
/// What is cut is restored, whatever happens in between. The shape is that of ``TunnelHealth``.
package struct Drill: Sendable {
    package enum Output: Hashable, Sendable {
        /// Drop whatever comes and goes by this tunnel, handshakes included.
        case cut(String)
        case probe(sequence: UInt32)
        case restore(String)
        case finished(DrillOutcome)
    }

    package enum Observation: Hashable, Sendable {
        case probeAnswered(sequence: UInt32)
        case state(of: String, HealthState)
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
    private var nextProbeAt: Instant
    /// By sequence number: when it was sent, and whether it was answered.
    private var probes: [(sentAt: Instant, isAnswered: Bool)] = []

    private var outputs: [Output] = []
    private var outputsTaken = 0

    /// `tunnels`: the state of each of the connection's. `duration` is brought within `durations`.
    package init(
        connection: String, tunnels: [String: HealthState], active: String?,
        duration: Duration = .seconds(10), objective: Duration? = nil, now: Instant
    ) {
        report = DrillOutcome(connection: connection)
        report.objective = objective
        cutAt = now
        nextProbeAt = now
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

    private static func refusal(tunnels: [String: HealthState], active: String?) -> DrillOutcome.Refusal? {
        if tunnels.count < 2, active != nil { return .onlyOneTunnel }
        guard let active, tunnels[active]?.isCarrying ?? false else { return .noActiveTunnel }
        let isSomeOtherUp = tunnels.contains { $0.key != active && $0.value.isCarrying }
        return isSomeOtherUp ? nil : .noOtherTunnelUp
    }

    // MARK: What happens

    package mutating func handle(_ observation: Observation, now: Instant) {
        guard phase != .finished else { return }
        switch observation {
        case .probeAnswered(let sequence):
            guard Int(sequence) < probes.count else { return }
            probes[Int(sequence)].isAnswered = true
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
        return phase.isProbing ? min(deadline, nextProbeAt) : deadline
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
        if phase.isProbing, nextProbeAt <= now {
            outputs.append(.probe(sequence: UInt32(probes.count)))
            probes.append((now, false))
            // None is caught up with: what was not sent was not lost.
            nextProbeAt = nextProbeAt + Self.probeInterval
            if nextProbeAt <= now { nextProbeAt = now + Self.probeInterval }
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
        count()
        outputs.append(.finished(report))
    }

    private mutating func count() {
        let end = restoredAt ?? cutAt
        let split = probes.firstIndex { $0.sentAt >= end } ?? probes.count
        report.probesSent = split
        report.probesLostAfter = probes[split...].count { !$0.isAnswered }
        var gapSince: Instant?
        for probe in probes[..<split] {
            if probe.isAnswered {
                if let since = gapSince { report.longestGap = max(report.longestGap, probe.sentAt - since) }
                gapSince = nil
            } else {
                report.probesLost += 1
                gapSince = gapSince ?? probe.sentAt
            }
        }
        if let since = gapSince { report.longestGap = max(report.longestGap, end - since) }
        guard let lastLost = probes[..<split].lastIndex(where: { !$0.isAnswered }) else {
            report.timeToRecover = split > 0 ? .zero : nil
            return
        }
        guard lastLost + 1 < split else { return }
        report.timeToRecover = probes[lastLost + 1].sentAt - cutAt
    }
}
