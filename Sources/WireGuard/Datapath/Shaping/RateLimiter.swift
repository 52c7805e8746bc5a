internal import Synchronization

/// A rate that is kept by whoever sends for one tunnel or one connection: a token bucket of one word.
///
/// The bucket is a clock that counts bytes. `spent` is where all that was let through ends, if it had gone at
/// the rate exactly; the time is where the rate has got to since the start. A packet may go while the first is
/// not further ahead of the second than the burst. The time is computed from the start each time, so no
/// rounding adds up.
///
/// Bulk may not use the last part of the burst, the reserve. So small always finds it there, but for a packet that
/// each thread may have booked, and while small has to wait, bulk has to as well: small goes first, by one
/// comparison, also among several threads.
///
/// Concurrency: any thread may take; one word is shared.
package final class RateLimiter: Sendable {
    /// Bytes a second, of outer packets with their IP headers: what a provider counts.
    package let rate: UInt64
    /// Bytes that may go at once.
    package let burst: UInt64
    /// Part of the burst that bulk leaves to small.
    package let reserve: UInt64
    private let start: Instant
    private let spent = Atomic<UInt64>(0)

    /// 100 Gbit/s: the clock then runs for 46 years.
    package static let maximumRate: UInt64 = 12_500_000_000
    private static let burstTime: UInt64 = 10_000_000
    private static let reserveTime: UInt64 = 5_000_000
    private static let smallestBurst: UInt64 = 65_536
    private static let smallestReserve: UInt64 = 16_384
    private static let second: UInt64 = 1_000_000_000

    /// `rate` in bytes a second, at least 1000; `largest` is the longest outer packet. Bulk may send 10 ms of
    /// the rate at once, and a whole superpacket; small has 5 ms beyond that, and a packet more than the
    /// largest, so that bulk never goes while it waits.
    package init(rate: UInt64, largest: Int, now: Instant) {
        self.rate = min(max(rate, 1000), Self.maximumRate)
        start = now
        let largest = UInt64(max(largest, 0))
        reserve = max(Self.smallestReserve, largest, self.rate * Self.reserveTime / Self.second)
        burst = reserve + max(Self.smallestBurst + largest, self.rate * Self.burstTime / Self.second)
    }

    /// Where the clock of bytes stands: once a batch.
    @inline(__always)
    package func position(at now: Instant) -> UInt64 {
        guard now > start else { return 0 }
        let elapsed = now.nanoseconds &- start.nanoseconds
        let product = elapsed.multipliedFullWidth(by: rate)
        // The quotient fits while the rate is below its maximum and the clock of nanoseconds in 64 bits.
        guard product.high < Self.second else { return .max }
        return Self.second.dividingFullWidth(product).quotient
    }

    /// Whether a packet of `count` bytes may go now; then it is counted. `position` may be of an earlier
    /// batch: then less goes.
    @inline(__always)
    package func take(_ count: Int, of traffic: QueueClass, at position: UInt64) -> Bool {
        let size = UInt64(truncatingIfNeeded: count)
        let limit = position &+ (traffic == .small ? burst : burst &- reserve)
        var current = spent.load(ordering: .relaxed)
        while true {
            // What was not used in time is gone.
            let end = max(current, position) &+ size
            guard end <= limit else { return false }
            let (exchanged, original) = spent.weakCompareExchange(
                expected: current, desired: end, ordering: .relaxed)
            if exchanged { return true }
            current = original
        }
    }

    /// Counts a bulk packet that waits as gone, ahead of its time, so that nobody who asks oftener or later can go
    /// past it for ever: of several threads each has its next packet in one line. The position from which it goes.
    func book(_ count: Int) -> UInt64 {
        let size = UInt64(truncatingIfNeeded: count)
        let end = spent.wrappingAdd(size, ordering: .relaxed).newValue
        return end - min(end, burst - reserve)
    }

    /// When the clock of bytes stands there: for a timer.
    func time(of position: UInt64) -> Instant {
        // Rounded up: at the instant itself it does.
        let (whole, rest) = position.quotientAndRemainder(dividingBy: rate)
        let (nanoseconds, overflow) = whole.multipliedReportingOverflow(by: Self.second)
        guard !overflow else { return Instant(nanoseconds: .max) }
        let fraction = (rest * Self.second + rate - 1) / rate
        return start + .nanoseconds(Int64(clamping: nanoseconds &+ fraction))
    }

    /// When a packet that may not go now will be free to: for a timer. No packet is longer than what bulk
    /// may send at once.
    package func opening(for count: Int, of traffic: QueueClass) -> Instant {
        let allowance = traffic == .small ? burst : burst - reserve
        let end = spent.load(ordering: .relaxed) &+ UInt64(truncatingIfNeeded: count)
        return end > allowance ? time(of: end - allowance) : start
    }
}
