internal import WireGuard

enum WallClock {
    /// What the wall clock, as it is set now, would have shown at `instant`: in nanoseconds of Unix time, and never less
    /// than a second, as 0 stands for "never" at `wg`. `realtimeOffset` is the wall clock less boot time.
    static func unixNanoseconds(of instant: Instant, realtimeOffset: Int64) -> Int64 {
        max(1_000_000_000, Int64(truncatingIfNeeded: instant.nanoseconds) &+ realtimeOffset)
    }
}

/// Whether the wall clock and boot time go on together. A step of the wall clock parts them, and so does a virtual
/// machine that goes on from a snapshot, or as a clone of another, once its wall clock is set right. A suspend does not:
/// both count it.
struct ClockContinuity {
    /// Less is the daily business of a time daemon.
    static let tolerance: Duration = .seconds(5)

    private var offset: Int64?

    /// `realtimeOffset` is the wall clock less boot time, in nanoseconds. Returns by how much they have parted since the
    /// last call; nil where that is within the tolerance.
    mutating func parting(realtimeOffset: Int64) -> Duration? {
        defer { offset = realtimeOffset }
        guard let offset else { return nil }
        let parting = Duration.nanoseconds(realtimeOffset &- offset)
        return parting.magnitude > Self.tolerance ? parting : nil
    }
}

extension Duration {
    fileprivate var magnitude: Duration { self < .zero ? .zero - self : self }
}
