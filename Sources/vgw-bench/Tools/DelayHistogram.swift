/// Delays in nanoseconds, counted in buckets no wider than 1/64 of their value: millions of samples in a few
/// kilobytes, and percentiles to 1.6 %.
struct DelayHistogram {
    private static let steps = 64
    private static let stepBits = 6

    private var counts = [Int](repeating: 0, count: (64 - stepBits + 1) * steps)
    private(set) var total = 0

    mutating func add(_ nanoseconds: UInt64) {
        counts[Self.bucket(nanoseconds)] += 1
        total += 1
    }

    /// The delay that `share` of all are not above, in milliseconds; nil without samples.
    func milliseconds(at share: Double) -> Double? {
        guard total > 0 else { return nil }
        let rank = Int((Double(total) * share).rounded(.up))
        var seen = 0
        for (bucket, count) in counts.enumerated() {
            seen += count
            if seen >= rank { return Double(Self.top(of: bucket)) / 1e6 }
        }
        return nil
    }

    private static func bucket(_ value: UInt64) -> Int {
        guard value >= UInt64(steps) else { return Int(value) }
        let shift = 63 - value.leadingZeroBitCount - stepBits
        return (shift + 1) * steps + Int(value >> UInt64(shift)) - steps
    }

    private static func top(of bucket: Int) -> UInt64 {
        guard bucket >= steps else { return UInt64(bucket) }
        let shift = UInt64(bucket / steps - 1)
        return (UInt64(bucket % steps + steps) << shift) &+ ((1 << shift) - 1)
    }
}
