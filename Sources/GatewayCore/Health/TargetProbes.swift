internal import WireGuard

/// The probes through one tunnel to the targets behind it.
///
/// A target that does not answer may be off, or may know no way back to where it was asked from. So silence counts
/// against a tunnel only where a target answered by another tunnel of the connection in the middle of it: after the
/// first, and before the last, of the probes that each target left unanswered by this one.
struct TargetProbes: Sendable {
    private enum State: Hashable {
        case awaited
        case answered(at: Instant)
        /// The first of the unanswered probes was sent at that time.
        case unanswered(since: Instant)
    }

    private struct Target {
        var stream: ProbeStream
        var state = State.awaited
        /// When the first and the last of the probes in a row that were lost were sent.
        var lostSince: Instant?
        var lastLost: Instant?
    }

    private let settings: HealthSettings
    private var targets: [Target]
    private(set) var others = OtherTunnels.noneCarries
    /// When a probe was sent that was answered by another tunnel, the first since all targets fell silent by this one.
    private var answeredElsewhere: Instant?

    /// `phase` is which part of an interval they leave at, in 2^32ths.
    init(settings: HealthSettings, phase: UInt32) {
        self.settings = settings
        let interval = max(settings.interval, HealthSettings.shortestInterval)
        let share = UInt32.max / UInt32(clamping: max(settings.targets.count, 1))
        targets = settings.targets.indices.map { index in
            // Not all of them at once.
            Target(
                stream: ProbeStream(
                    interval: interval * HealthSettings.targetIntervals,
                    phase: phase &+ share &* UInt32(truncatingIfNeeded: index)))
        }
    }

    // MARK: Looking

    /// By index into the settings' targets; nil while that is not known.
    func isAnswered(_ target: Int) -> Bool? {
        guard targets.indices.contains(target) else { return nil }
        return switch targets[target].state {
        case .awaited: nil
        case .answered: true
        case .unanswered: false
        }
    }

    /// One that answers is enough.
    var reach: TargetReach {
        var newest: Instant?
        var silentSince: Instant?
        var isSomeAwaited = false
        for target in targets {
            switch target.state {
            case .awaited: isSomeAwaited = true
            case .answered(let at): newest = max(newest ?? at, at)
            case .unanswered(let since): silentSince = max(silentSince ?? since, since)
            }
        }
        if let newest { return .answered(at: newest) }
        guard !isSomeAwaited, let silentSince else { return .unknown }
        return .unanswered(since: silentSince)
    }

    /// Returns true if it is the tunnel's fault that no target answers.
    var isTunnelToBlame: Bool {
        guard others != .noneCarries, case .unanswered = reach, let answeredElsewhere else { return false }
        return targets.allSatisfy { $0.lastLost.map { $0 > answeredElsewhere } ?? false }
    }

    /// Returns true if the tunnel may come up; `wasBlamed` where it was taken down for its targets.
    func mayComeUp(wasBlamed: Bool) -> Bool {
        switch (others, reach) {
        case (.noneCarries, _), (_, .answered): true
        case (.carry(let answeredAt), _): targets.isEmpty || answeredAt == nil && !wasBlamed
        }
    }

    mutating func note(_ others: OtherTunnels) {
        self.others = others
        guard case .carry(let answeredAt?) = others, answeredElsewhere == nil,
            targets.allSatisfy({ $0.lostSince.map { $0 < answeredAt } ?? false })
        else { return }
        answeredElsewhere = answeredAt
    }

    // MARK: Time

    mutating func start(at now: Instant) {
        for index in targets.indices { targets[index].stream.start(at: now) }
    }

    mutating func stop() {
        for index in targets.indices { targets[index].stream.stop() }
        forget()
    }

    /// What a tunnel that is dead itself has lost says nothing of its targets.
    mutating func forget() {
        for index in targets.indices {
            targets[index].state = .awaited
            targets[index].lostSince = nil
            targets[index].lastLost = nil
            targets[index].stream.giveUp()
        }
        answeredElsewhere = nil
    }

    var nextTimeout: Instant? {
        var next: Instant?
        for target in targets { next = .earliest(next, target.stream.nextTimeout) }
        return next
    }

    /// A probe to be sent now, one at a time.
    mutating func takeDue(at now: Instant) -> TunnelHealth.Probe? {
        for index in targets.indices {
            guard let sequence = targets[index].stream.takeDue(at: now) else { continue }
            return TunnelHealth.Probe(sequence: sequence, target: index)
        }
        return nil
    }

    /// Takes those whose time is over for lost.
    mutating func expire(now: Instant) {
        for index in targets.indices {
            while let sentAt = targets[index].stream.takeExpired(at: now) {
                let since = targets[index].lostSince ?? sentAt
                targets[index].lostSince = since
                targets[index].lastLost = sentAt
                guard targets[index].stream.unansweredInRow >= settings.downAfter else { continue }
                targets[index].state = .unanswered(since: since)
            }
        }
    }

    /// For a TCP target the low 16 bits of the sequence suffice.
    mutating func answer(_ sequence: UInt32, of target: Int, at: Instant) {
        guard targets.indices.contains(target) else { return }
        var sequence = sequence
        if case .tcp = settings.targets[target] {
            sequence = targets[target].stream.sequence(endingIn: UInt16(truncatingIfNeeded: sequence))
        }
        guard let answer = targets[target].stream.answer(sequence, at: at) else { return }
        targets[target].lostSince = nil
        targets[target].lastLost = nil
        answeredElsewhere = nil
        var newest = answer.sentAt
        if case .answered(let before) = targets[target].state { newest = max(newest, before) }
        targets[target].state = .answered(at: newest)
    }
}
