internal import WireGuard

/// The probes that a drill sends at a steady pace, and what became of each.
struct LiveProbes: Sendable {
    let interval: Duration
    private(set) var nextAt: Instant
    /// By sequence number: when it was sent, and whether it was answered.
    private var probes: [(sentAt: Instant, isAnswered: Bool)] = []

    init(each interval: Duration, from now: Instant) {
        self.interval = interval
        nextAt = now
    }

    /// The sequence number of a probe to be sent now, or nil when it is not time.
    mutating func takeDue(at now: Instant) -> UInt32? {
        guard nextAt <= now else { return nil }
        probes.append((now, false))
        // None is caught up with: what was not sent was not lost.
        nextAt = nextAt + interval
        if nextAt <= now { nextAt = now + interval }
        return UInt32(probes.count - 1)
    }

    mutating func answered(_ sequence: UInt32) {
        guard Int(sequence) < probes.count else { return }
        probes[Int(sequence)].isAnswered = true
    }

    /// What the outage from `cutAt` to `end` was to them.
    func measure(from cutAt: Instant, to end: Instant) -> DrillOutcome.Measure {
        var measure = DrillOutcome.Measure()
        let split = probes.firstIndex { $0.sentAt >= end } ?? probes.count
        measure.sent = split
        measure.lostAfter = probes[split...].count { !$0.isAnswered }
        var gapSince: Instant?
        for probe in probes[..<split] {
            if probe.isAnswered {
                if let since = gapSince { measure.longestGap = max(measure.longestGap, probe.sentAt - since) }
                gapSince = nil
            } else {
                measure.lost += 1
                gapSince = gapSince ?? probe.sentAt
            }
        }
        if let since = gapSince { measure.longestGap = max(measure.longestGap, end - since) }
        guard let lastLost = probes[..<split].lastIndex(where: { !$0.isAnswered }) else {
            measure.timeToRecover = split > 0 ? .zero : nil
            return measure
        }
        if lastLost + 1 < split { measure.timeToRecover = probes[lastLost + 1].sentAt - cutAt }
        return measure
    }
}
