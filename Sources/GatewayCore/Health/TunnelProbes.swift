internal import WireGuard

/// The probes of one tunnel, to the far inside address and to the targets behind it, and what they say.
///
/// Probes alone tell loss and round trip. Whether the tunnel is down is told by all that is heard: a queue on the way out
/// holds back or drops probes for seconds while data gets there. It is down when, of its last probes,
///
/// | | what is so |
/// |---|---|
/// | cut | nothing at all was heard since the `downAfter`th but last, and the time limit of the last is over |
/// | one way | the far end says that it heard nothing since then, though it is heard itself |
/// | one way, and the far end does not say what it hears | none was answered for 4 s, whatever is heard |
///
/// The time limit follows the round trip where there is no other tunnel; where there is one, switching is cheap, and a
/// quarter of an interval is enough. Where answers to probes are all that is heard, a queue that fills must not look like
/// a cut: with the first sign of one, an answer that is late or missing, probes leave more often for a while.
struct TunnelProbes: Sendable {
    enum Verdict: Hashable, Sendable {
        /// `upAfter` have yet to be answered, or `downAfter` to be lost.
        case awaited
        case failed(HealthReason)
        case answered
    }

    /// What the far end said of what it hears, in the newest of its probes.
    private struct Word {
        var heardAt: Instant
        var saidAt: Instant
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

    private let settings: HealthSettings
    private let downAfter: Int
    private var tunnel: ProbeStream
    private var targets: TargetProbes

    private(set) var isRunning = false
    private(set) var verdict = Verdict.awaited
    private(set) var statistics = ProbeStatistics()
    private var quality = ProbeQuality()
    private var recovery = Recovery.silent
    /// When something authentic came by the tunnel last, as far as was told.
    private var lastHeard = Instant(nanoseconds: 0)
    /// Something was heard since it was last found to be cut.
    private var isHeard = false
    private var lastAnswer = Instant(nanoseconds: 0)
    /// When something else than an answer came last, and before that: what is heard is told before the answer that it is.
    private var lastOther = (newest: Instant(nanoseconds: 0), former: Instant(nanoseconds: 0))
    /// When probes were last found to be lost.
    private var lostAt = Instant(nanoseconds: 0)
    /// Until then probes leave more often.
    private var hurriedUntil = Instant(nanoseconds: 0)
    private var word: Word?
    /// When time was last told, and before it all that is heard.
    private var lookedAt = Instant(nanoseconds: 0)
    /// Another tunnel of the connection is known to carry packets.
    var hasAlternative = false

    /// How long a far end that does not say what it hears may leave every probe unanswered: with an interval and a time
    /// limit, less than 5 s.
    private static let patience: Duration = .seconds(4)

    /// `phase` is which part of an interval they leave at, in 2^32ths.
    init(settings: HealthSettings, phase: UInt32) {
        self.settings = settings
        downAfter = max(settings.downAfter, 1)
        tunnel = ProbeStream(interval: settings.interval, phase: phase, depth: downAfter)
        targets = TargetProbes(settings: settings, phase: phase)
    }

    // MARK: Looking

    var estimator: RoundTripEstimator { tunnel.estimator }

    /// What is wrong with a tunnel that answers.
    var complaint: HealthReason? { quality.complaint }

    var liveness: Liveness {
        verdict == .answered || recovery != .silent ? .answering : isHeard ? .heard : .silent
    }

    /// Returns what is left of a hold-down of this length; nil when it is not held down.
    func holdDownLeft(of span: Duration, now: Instant) -> Duration? {
        guard case .heldDown(let since) = recovery else { return nil }
        return since.map { now >= $0 + span ? .zero : $0 + span - now } ?? span
    }

    var isHoldDownInterrupted: Bool { recovery == .heldDown(since: nil) }

    /// By index into the settings' targets; nil while that is not known.
    func isReachable(target: Int) -> Bool? { targets.isAnswered(target) }

    var targetReach: TargetReach { targets.reach }

    // MARK: Time

    mutating func start(at now: Instant, as verdict: Verdict) {
        isRunning = true
        self.verdict = verdict
        lastAnswer = now
        tunnel.start(at: now)
        targets.start(at: now)
    }

    /// Nothing is awaited, and nothing known, any more. The statistics stay.
    mutating func stop() {
        isRunning = false
        verdict = .awaited
        recovery = .silent
        isHeard = false
        quality = ProbeQuality()
        tunnel.stop()
        targets.stop()
    }

    var nextTimeout: Instant? {
        let next = Instant.earliest(tunnel.nextTimeout, targets.nextTimeout)
        guard next != nil, !isSettled else { return next }
        return .earliest(.earliest(next, cutDeadline), .earliest(unheardDeadline, nextLook))
    }

    /// A probe to be sent now, one at a time.
    mutating func takeDue(at now: Instant) -> TunnelHealth.Probe? {
        if let sequence = tunnel.takeDue(at: now, isHurried: isHurried(at: now)) {
            return TunnelHealth.Probe(sequence: sequence, target: nil)
        }
        return targets.takeDue(at: now)
    }

    /// Takes those whose time is over for lost, and sees whether the tunnel is down.
    mutating func expire(now: Instant) {
        var isSomeLost = false
        while let sentAt = tunnel.takeExpired(at: now) {
            statistics.noteLost(sentAt: sentAt)
            if case .heldDown = recovery { recovery = .heldDown(since: nil) }
            isSomeLost = true
        }
        if isSomeLost { noteSlowness(isLasting: tunnel.unansweredInRow > 1, now: now) }
        if !isSettled { judge(now: now) }
        lookedAt = now
        targets.expire(now: now)
        if verdict == .failed(.probeTimeout), lastAnswer <= lostAt { targets.forget() }
        judgeTargets(now: now)
        if isSomeLost { judgeQuality(at: now) }
    }

    // MARK: Hurry

    /// A probe is lost, or its answer is late. `isLasting`: as by a queue that fills; a single one may be so by chance.
    private mutating func noteSlowness(isLasting: Bool, now: Instant) {
        // What is lost of a full queue is found with the longest time limit.
        let span = isLasting ? ProbeStream.longestTimeout + .seconds(2) : tunnel.interval * 4
        hurriedUntil = max(hurriedUntil, now + span)
        if isHurried(at: now) { tunnel.hurry(at: now) }
    }

    private mutating func judgeSlowness(of roundTrip: Duration, before: RoundTripEstimator, now: Instant) {
        guard let smoothed = before.smoothed, let variation = before.variation else { return }
        let excess = roundTrip - smoothed
        guard excess > max(tunnel.shortInterval, variation * 4) else { return }
        noteSlowness(isLasting: excess > tunnel.interval, now: now)
    }

    /// Neither the word of a vgwd nor anything but answers comes.
    private func isHurried(at now: Instant) -> Bool {
        now < hurriedUntil && verdict == .answered && now > lastOther.newest + tunnel.shortestTimeout
            && word.map { now >= $0.saidAt + Self.patience } ?? true
    }

    // MARK: Down

    /// Nothing can become worse.
    private var isSettled: Bool { verdict != .awaited && liveness == .silent }

    private mutating func judge(now: Instant) {
        let isCut = cutDeadline.map { $0 <= now } ?? false
        if isCut { isHeard = false }
        guard isCut || unheardDeadline.map({ $0 <= now }) ?? false || isUnanswered(at: now) else { return }
        verdict = .failed(.probeTimeout)
        recovery = .silent
        lostAt = now
    }

    /// When the tunnel is cut, should nothing be heard before.
    private var cutDeadline: Instant? {
        let limit = hasAlternative && verdict != .awaited ? tunnel.shortestTimeout : tunnel.timeout
        return tunnel.sending(ofUnanswered: downAfter, since: lastHeard).map { $0 + limit }
    }

    /// When our packets do not get there, by the far end's word, should it say nothing else before. It need not have
    /// said so of the last of the probes: that would take an interval more.
    private var unheardDeadline: Instant? {
        guard let word, liveness == .answering || verdict == .awaited,
            let denied = tunnel.sending(ofUnanswered: downAfter - 1, since: word.heardAt),
            denied + tunnel.shortestTimeout <= word.saidAt
        else { return nil }
        return tunnel.sending(ofUnanswered: downAfter, since: word.heardAt).map {
            $0 + tunnel.shortestTimeout
        }
    }

    /// When to ask the data threads for a newer word, though nothing else is due: with a long round trip that may be an
    /// interval later. Only when the word that is known could be the last one before a cut, and for an interval.
    private var nextLook: Instant? {
        guard let word, liveness == .answering || verdict == .awaited,
            let sent = tunnel.sending(ofUnanswered: downAfter, since: word.heardAt)
        else { return nil }
        let look = max(sent, lookedAt) + tunnel.shortestTimeout
        return look < sent + tunnel.interval ? look : nil
    }

    /// What the far end says counts for as long as no answer would take.
    private func isUnanswered(at now: Instant) -> Bool {
        if let word, now < word.saidAt + Self.patience { return false }
        return tunnel.unansweredInRow >= downAfter && now >= lastAnswer + Self.patience
    }

    // MARK: What is heard

    /// Something authentic came by the tunnel.
    mutating func heard(at instant: Instant) {
        guard instant > lastHeard else { return }
        lastHeard = instant
        isHeard = isRunning
        lastOther = (instant, lastOther.newest)
    }

    /// What the far end said at `instant`: that it last heard us then.
    mutating func heardByFarEnd(at heardAt: Instant, said instant: Instant) {
        word = Word(heardAt: heardAt, saidAt: instant)
    }

    // MARK: Targets

    /// What the connection's other tunnels are good for decides what targets say of this one.
    mutating func note(_ others: OtherTunnels, now: Instant) {
        targets.note(others)
        judgeTargets(now: now)
    }

    private mutating func judgeTargets(now: Instant) {
        guard isRunning else { return }
        if targets.isTunnelToBlame, verdict == .awaited || verdict == .answered || recovery != .silent {
            verdict = .failed(.targetUnreachable)
            recovery = .silent
        } else if verdict == .failed(.targetUnreachable), targets.others == .noneCarries {
            // It is all there is, and need not behave before it is used.
            verdict = tunnel.answeredInRow >= settings.upAfter ? .answered : .awaited
            recovery = verdict == .awaited && tunnel.answeredInRow > 0 ? .answering : .silent
            quality = ProbeQuality(since: now)
        }
    }

    // MARK: Answers

    /// For a TCP target the low 16 bits of the sequence suffice. `holdDown`: how long it must go on answering
    /// before it is up.
    mutating func answer(_ sequence: UInt32, target: Int?, at: Instant, now: Instant, holdDown: Duration) {
        guard isRunning else { return }
        if let target {
            targets.answer(sequence, of: target, at: at)
        } else {
            let before = tunnel.estimator
            guard let answer = tunnel.answer(sequence, at: at) else { return }
            heard(at: at)
            if lastOther.newest == at { lastOther = (lastOther.former, lastOther.former) }
            lastAnswer = max(lastAnswer, at)
            judgeSlowness(of: answer.roundTrip, before: before, now: now)
            statistics.noteAnswered(
                sentAt: answer.sentAt, roundTrip: answer.roundTrip, wasLost: answer.wasLost)
            if verdict == .answered {
                judgeQuality(at: now)
            } else {
                considerUp(answer, now: now, holdDown: holdDown)
            }
        }
    }

    private mutating func considerUp(_ answer: ProbeStream.Answer, now: Instant, holdDown: Duration) {
        guard targets.mayComeUp(wasBlamed: verdict == .failed(.targetUnreachable)) else {
            // What is wrong is no longer the tunnel.
            if targets.isTunnelToBlame { verdict = .failed(.targetUnreachable) }
            recovery = .silent
            return
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

    private mutating func judgeQuality(at now: Instant) {
        guard verdict == .answered else { return }
        quality.judge(statistics, settings, at: now)
    }
}
