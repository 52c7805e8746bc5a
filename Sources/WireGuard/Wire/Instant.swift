/// A point on the monotonic clock: nanoseconds since an origin that only its owner knows.
///
/// The core never reads a clock. The daemon passes `CLOCK_BOOTTIME`, a simulation passes whatever it likes.
package struct Instant: Hashable, Comparable, Sendable {
    package var nanoseconds: UInt64

    @inlinable package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    @inlinable package static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }

    /// Saturates at both ends: a deadline past the end of time never fires, and never traps.
    @inlinable package static func + (instant: Instant, duration: Duration) -> Instant {
        let offset = duration.wholeNanoseconds
        if offset >= 0 {
            let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(UInt64(offset))
            return Instant(nanoseconds: overflow ? .max : sum)
        }
        let (difference, overflow) = instant.nanoseconds.subtractingReportingOverflow(offset.magnitude)
        return Instant(nanoseconds: overflow ? 0 : difference)
    }

    @inlinable package static func - (instant: Instant, duration: Duration) -> Instant {
        instant + .nanoseconds(0 &- duration.wholeNanoseconds)
    }

    @inlinable package static func - (later: Instant, earlier: Instant) -> Duration {
        .nanoseconds(Int64(bitPattern: later.nanoseconds &- earlier.nanoseconds))
    }
}

extension Instant {
    /// Nil where both are.
    @inlinable package static func earliest(_ a: Instant?, _ b: Instant?) -> Instant? {
        guard let a, let b else { return a ?? b }
        return min(a, b)
    }
}

extension Duration {
    /// Whole nanoseconds, clamped to what 64 bits hold (292 years).
    @inlinable package var wholeNanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        if overflow { return seconds < 0 ? .min + 1 : .max }
        let (sum, carry) = scaled.addingReportingOverflow(attoseconds / 1_000_000_000)
        return carry ? (seconds < 0 ? .min + 1 : .max) : sum
    }
}
