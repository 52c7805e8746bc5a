internal import WireGuard

/// How long an answer takes, and how long it is worth waiting for (RFC 6298, section 2).
struct RoundTripEstimator: Sendable {
    private var estimate: (smoothed: Int64, variation: Int64)?

    var smoothed: Duration? { estimate.map { .nanoseconds($0.smoothed) } }
    var variation: Duration? { estimate.map { .nanoseconds($0.variation) } }

    mutating func add(_ sample: Duration) {
        // An hour and a hundred hours are equally useless, and neither may overflow.
        let sample = min(max(sample.wholeNanoseconds, 0), 3_600_000_000_000)
        guard let (smoothed, variation) = estimate else {
            estimate = (sample, sample / 2)
            return
        }
        let deviation = abs(smoothed - sample)
        estimate = (smoothed + (sample - smoothed) / 8, variation + (deviation - variation) / 4)
    }

    /// Before anything was measured (RFC 6298, section 2.1).
    static let initialTimeout: Duration = .seconds(1)

    /// Section 2.3, within `bounds`.
    func timeout(within bounds: ClosedRange<Duration>) -> Duration {
        guard let (smoothed, variation) = estimate else { return Self.initialTimeout }
        return min(max(.nanoseconds(smoothed + 4 * variation), bounds.lowerBound), bounds.upperBound)
    }
}
