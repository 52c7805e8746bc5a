internal import WireGuard

/// The probes of one tunnel, to the far inside address and to the targets behind it, and what they say.
struct TunnelProbes: Sendable {
    enum Verdict: Hashable, Sendable {
        /// `upAfter` have yet to be answered, or `downAfter` to be lost.
        case awaited
        case failed(HealthReason)
        case answered
    }

    /// How far a tunnel that is not up has come.
    private enum Recovery: Hashable {
        case silent
        /// From the first answer until `downAfter` are lost in a row.
        case answering
        /// So many were answered in a row that it would be up, had it not flapped: likewise. `since` is when the probe
        /// was sent that completed them; nil: one was lost, and the hold-down begins anew with the next so many.
        case heldDown(since: Instant?)
    }

    private enum TargetState: Hashable {
        case awaited
        case reachable
        case unreachable
    }

    private let settings: HealthSettings
    private var tunnel: ProbeStream
    private var targets: [(stream: ProbeStream, state: TargetState)]

    private(set) var isRunning = false
    private(set) var verdict = Verdict.awaited
    private(set) var statistics = ProbeStatistics()
    private var quality = ProbeQuality()
    private var recovery = Recovery.silent

    /// `phase` is which part of an interval they leave at, in 2^32ths.
    init(settings: HealthSettings, phase: UInt32) {
        self.settings = settings
        tunnel = ProbeStream(interval: settings.interval, phase: phase)
        targets = Self.layTargets(settings, phase: phase)
    }

    private static func layTargets(
        _ settings: HealthSettings, phase: UInt32
    ) -> [(stream: ProbeStream, state: TargetState)] {
        let interval = max(settings.interval, HealthSettings.shortestInterval)
        let share = UInt32.max / UInt32(clamping: max(settings.targets.count, 1))
        return settings.targets.indices.map { index in
            // Not all of them at once.
            let stream = ProbeStream(
                interval: interval * HealthSettings.targetIntervals,
                phase: phase &+ share &* UInt32(truncatingIfNeeded: index))
            return (stream, .awaited)
        }
    }

    // MARK: Looking

    var estimator: RoundTripEstimator { tunnel.estimator }

    /// What is wrong with a tunnel that answers.
    var complaint: HealthReason? { quality.complaint }

    var liveness: Liveness { verdict == .answered || recovery != .silent ? .answering : .silent }

    /// Returns what is left of a hold-down of this length; nil when it is not held down.
    func holdDownLeft(of span: Duration, now: Instant) -> Duration? {
        guard case .heldDown(let since) = recovery else { return nil }
        return since.map { now >= $0 + span ? .zero : $0 + span - now } ?? span
    }

    /// By index into the settings' targets; nil while that is not known.
    func isReachable(target: Int) -> Bool? {
        guard targets.indices.contains(target), targets[target].state != .awaited else { return nil }
        return targets[target].state == .reachable
    }

    private var isSomeTargetReachable: Bool {
        targets.isEmpty || targets.contains { $0.state == .reachable }
    }

    private var isEveryTargetUnreachable: Bool {
        !targets.isEmpty && targets.allSatisfy { $0.state == .unreachable }
    }

    // MARK: Time

    mutating func start(at now: Instant, as verdict: Verdict) {
        isRunning = true
        self.verdict = verdict
        tunnel.start(at: now)
        for index in targets.indices { targets[index].stream.start(at: now) }
    }

    /// Nothing is awaited, and nothing known, any more. The statistics stay.
    mutating func stop() {
        isRunning = false
        verdict = .awaited
        recovery = .silent
        quality = ProbeQuality()
        tunnel.stop()
        for index in targets.indices {
            targets[index].stream.stop()
            targets[index].state = .awaited
        }
    }

    var nextTimeout: Instant? {
        targets.reduce(tunnel.nextTimeout) { earliest, target in
            guard let earliest, let next = target.stream.nextTimeout else { return earliest }
            return min(earliest, next)
        }
    }

    /// A probe to be sent now, one at a time.
    mutating func takeDue(at now: Instant) -> TunnelHealth.Probe? {
        if let sequence = tunnel.takeDue(at: now) {
            return TunnelHealth.Probe(sequence: sequence, target: nil)
        }
        for index in targets.indices {
            guard let sequence = targets[index].stream.takeDue(at: now) else { continue }
            return TunnelHealth.Probe(sequence: sequence, target: index)
        }
        return nil
    }

    /// Takes those whose time is over for lost.
    mutating func expire(now: Instant) {
        var isSomeLost = false
        while let sentAt = tunnel.takeExpired(at: now) {
            statistics.noteLost(sentAt: sentAt)
            if case .heldDown = recovery { recovery = .heldDown(since: nil) }
            isSomeLost = true
            guard tunnel.unansweredInRow >= settings.downAfter else { continue }
            verdict = .failed(.probeTimeout)
            recovery = .silent
        }
        for index in targets.indices {
            while targets[index].stream.takeExpired(at: now) != nil {
                guard targets[index].stream.unansweredInRow >= settings.downAfter else { continue }
                targets[index].state = .unreachable
            }
        }
        if isEveryTargetUnreachable, verdict == .awaited || verdict == .answered || recovery != .silent {
            verdict = .failed(.targetUnreachable)
            startOver()
        }
        if isSomeLost { judgeQuality(at: now) }
    }

    // MARK: Answers

    /// Of a TCP target the low 16 bits of the sequence suffice. `holdDown`: how long it must go on answering
    /// before it is up.
    mutating func answer(_ sequence: UInt32, target: Int?, at: Instant, now: Instant, holdDown: Duration) {
        guard isRunning else { return }
        if let target {
            noteAnswer(sequence, of: target, at: at)
        } else if let answer = tunnel.answer(sequence, at: at) {
            statistics.noteAnswered(
                sentAt: answer.sentAt, roundTrip: answer.roundTrip, wasLost: answer.wasLost)
            if verdict == .answered {
                judgeQuality(at: now)
            } else {
                considerUp(answer, now: now, holdDown: holdDown)
            }
        }
    }

    private mutating func noteAnswer(_ sequence: UInt32, of target: Int, at: Instant) {
        guard targets.indices.contains(target) else { return }
        var sequence = sequence
        if case .tcp = settings.targets[target] {
            sequence = targets[target].stream.sequence(endingIn: UInt16(truncatingIfNeeded: sequence))
        }
        guard targets[target].stream.answer(sequence, at: at) != nil else { return }
        targets[target].state = .reachable
    }

    private mutating func considerUp(_ answer: ProbeStream.Answer, now: Instant, holdDown: Duration) {
        guard isSomeTargetReachable else {
            // What is wrong is no longer the tunnel.
            if isEveryTargetUnreachable { verdict = .failed(.targetUnreachable) }
            return startOver()
        }
        if recovery == .silent { recovery = .answering }
        guard tunnel.answeredInRow >= settings.upAfter else { return }
        var start = answer.sentAt
        if case .heldDown(let since?) = recovery { start = since }
        recovery = .heldDown(since: start)
        guard answer.sentAt >= start + holdDown else { return }
        recovery = .silent
        verdict = .answered
        // The outage that is over is not held against it.
        quality = ProbeQuality(since: now)
    }

    /// What was answered up to now brings the tunnel up no more.
    private mutating func startOver() {
        tunnel.forgetRows()
        recovery = .silent
    }

    private mutating func judgeQuality(at now: Instant) {
        guard verdict == .answered else { return }
        quality.judge(statistics, settings, at: now)
    }
}
