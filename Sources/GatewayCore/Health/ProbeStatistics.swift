package import WireGuard

/// Round-trip time, jitter and loss of one tunnel's probes over the last 1, 10 and 60 seconds.
///
/// Two rings of buckets, by the time at which a probe was sent: ten of 100 ms for the shortest window, sixty
/// of a second for the others. So a window ends with the bucket of now, and is shorter than it says by what
/// that one has yet to see. 1.7 KB a tunnel at any interval, and nothing before the first probe.
package struct ProbeStatistics: Sendable {
    package enum Span: Int, Sendable, CaseIterable {
        case second = 1
        case tenSeconds = 10
        case minute = 60
    }

    /// Probes that are still awaited are in none.
    package struct Window: Hashable, Sendable {
        package var answered = 0
        package var lost = 0
        /// Mean, shortest and longest; nil when none was answered.
        package var roundTrip: Duration?
        package var shortest: Duration?
        package var longest: Duration?
        /// Mean difference between the round trips of successive answered probes: the D of RFC 3550, section
        /// 6.4.1, averaged over the window. Nil below two of them.
        package var jitter: Duration?

        package var count: Int { answered + lost }
        /// 0 to 1; nil when there was no probe.
        package var loss: Double? { count == 0 ? nil : Double(lost) / Double(count) }
    }

    private var fine = BucketRing(width: 100_000_000, count: 10)
    private var coarse = BucketRing(width: 1_000_000_000, count: 60)
    private var lastRoundTrip: UInt32?

    package init() {}

    /// `wasLost`: it had been counted as lost before the answer came.
    package mutating func noteAnswered(sentAt: Instant, roundTrip: Duration, wasLost: Bool) {
        let microseconds = UInt32(clamping: roundTrip.wholeNanoseconds / 1000)
        let deviation = lastRoundTrip.map { max($0, microseconds) - min($0, microseconds) }
        lastRoundTrip = microseconds
        func note(_ bucket: inout Bucket) {
            if wasLost, bucket.lost > 0 { bucket.lost -= 1 }
            bucket.add(roundTrip: microseconds, deviation: deviation)
        }
        fine.update(at: sentAt, note)
        coarse.update(at: sentAt, note)
    }

    package mutating func noteLost(sentAt: Instant) {
        fine.update(at: sentAt) { $0.lost = $0.lost.saturatingIncrement }
        coarse.update(at: sentAt) { $0.lost = $0.lost.saturatingIncrement }
    }

    /// Only of whole buckets behind `start`, where that is given.
    package func window(_ span: Span, at now: Instant, since start: Instant? = nil) -> Window {
        switch span {
        case .second: fine.window(buckets: 10, at: now, since: start)
        case .tenSeconds, .minute: coarse.window(buckets: span.rawValue, at: now, since: start)
        }
    }
}

/// Times are in microseconds: a clock that is read once a batch knows no less.
private struct Bucket: Sendable {
    var answered: UInt16 = 0
    var lost: UInt16 = 0
    var deviations: UInt16 = 0
    var roundTrips: UInt32 = 0
    var deviationSum: UInt32 = 0
    var shortest: UInt32 = .max
    var longest: UInt32 = 0

    mutating func add(roundTrip: UInt32, deviation: UInt32?) {
        answered = answered.saturatingIncrement
        roundTrips = roundTrips.saturatingSum(roundTrip)
        shortest = min(shortest, roundTrip)
        longest = max(longest, roundTrip)
        if let deviation {
            deviations = deviations.saturatingIncrement
            deviationSum = deviationSum.saturatingSum(deviation)
        }
    }
}

private struct BucketRing: Sendable {
    /// Nanoseconds.
    let width: UInt64
    let count: Int
    private var buckets: [Bucket] = []
    /// Number of the newest bucket, counted from the origin of time.
    private var newest: UInt64 = 0

    init(width: UInt64, count: Int) {
        self.width = width
        self.count = count
    }

    /// What is older than the ring is not noted.
    mutating func update(at instant: Instant, _ body: (inout Bucket) -> Void) {
        let number = instant.nanoseconds / width
        if buckets.isEmpty {
            buckets = [Bucket](repeating: Bucket(), count: count)
            newest = number
        }
        if number > newest {
            if number - newest >= UInt64(count) {
                for place in buckets.indices { buckets[place] = Bucket() }
            } else {
                for skipped in newest + 1...number { buckets[place(of: skipped)] = Bucket() }
            }
            newest = number
        }
        guard newest - number < UInt64(count) else { return }
        body(&buckets[place(of: number)])
    }

    private func place(of number: UInt64) -> Int { Int(number % UInt64(count)) }

    func window(buckets wanted: Int, at now: Instant, since start: Instant?) -> ProbeStatistics.Window {
        var window = ProbeStatistics.Window()
        guard !buckets.isEmpty else { return window }
        let last = now.nanoseconds / width
        var first = last >= UInt64(wanted) ? last - UInt64(wanted) + 1 : 0
        if newest >= UInt64(count) { first = max(first, newest - UInt64(count) + 1) }
        // The bucket that `start` lies in holds what was before it, too.
        if let start { first = max(first, (start + .nanoseconds(Int64(width) - 1)).nanoseconds / width) }
        let end = min(last, newest)
        guard first <= end else { return window }
        var sum: UInt64 = 0
        var deviationSum: UInt64 = 0
        var deviations = 0
        var shortest = UInt32.max
        var longest: UInt32 = 0
        for number in first...end {
            let bucket = buckets[place(of: number)]
            window.answered += Int(bucket.answered)
            window.lost += Int(bucket.lost)
            sum += UInt64(bucket.roundTrips)
            deviationSum += UInt64(bucket.deviationSum)
            deviations += Int(bucket.deviations)
            shortest = min(shortest, bucket.shortest)
            longest = max(longest, bucket.longest)
        }
        if window.answered > 0 {
            window.roundTrip = .microseconds(Int64(sum) / Int64(window.answered))
            window.shortest = .microseconds(Int64(shortest))
            window.longest = .microseconds(Int64(longest))
        }
        if deviations > 0 { window.jitter = .microseconds(Int64(deviationSum) / Int64(deviations)) }
        return window
    }
}

extension FixedWidthInteger {
    fileprivate var saturatingIncrement: Self { self == .max ? self : self + 1 }

    fileprivate func saturatingSum(_ other: Self) -> Self {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
