internal import WireGuard

/// Whether a tunnel that answers does so well enough.
struct ProbeQuality: Hashable, Sendable {
    /// Nil: nothing to complain of.
    private(set) var complaint: HealthReason?
    /// What was before, such as the outage that is over, does not count. Nil counts all.
    private var since: Instant?

    /// A judgement takes at least so many probes, and a complaint ends at this share of its limit.
    static let leastProbes = 5
    static let relief = 0.8

    init(since: Instant? = nil) { self.since = since }

    mutating func judge(_ statistics: ProbeStatistics, _ settings: HealthSettings, at now: Instant) {
        guard settings.maxLoss != nil || settings.maxRoundTrip != nil else {
            complaint = nil
            return
        }
        // Ten seconds, or a minute where ten seconds see too few probes.
        let isRare = settings.interval * Self.leastProbes > .seconds(10)
        let window = statistics.window(isRare ? .minute : .tenSeconds, at: now, since: since)
        guard window.count >= Self.leastProbes else { return }
        let share = complaint == nil ? 1 : Self.relief
        if let limit = settings.maxLoss, let loss = window.loss, loss > limit * share {
            complaint = .lossTooHigh
        } else if let limit = settings.maxRoundTrip, let roundTrip = window.roundTrip,
            roundTrip > limit * share
        {
            complaint = .roundTripTooLong
        } else {
            complaint = nil
        }
    }
}
