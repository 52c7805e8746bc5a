/// Under load, how many handshakes an address that has shown a cookie may cost us: a token bucket of 20 a
/// second, 5 at once, per IPv4 address or IPv6 /64 (section 5.3).
///
/// Memory is bounded: buckets live in two generations, and the older one is let go as a whole. A bucket is
/// full again after a quarter of a second, so forgetting one that lay still for a second gives nobody a token
/// more.
package struct InitiationRateLimiter: Sendable {
    private struct Bucket {
        /// Time saved up; one handshake costs `price`.
        var credit: Int64
        var at: Instant
    }

    private static let price: Int64 = 1_000_000_000 / Int64(Protocol.handshakesPerSecond)
    private static let fullCredit = price * Int64(Protocol.handshakeBurst)
    private static let generation: Duration = .seconds(1)

    private let capacity: Int
    private var current: [IPAddress: Bucket] = [:]
    private var previous: [IPAddress: Bucket] = [:]
    private var generationBegan: Instant?

    /// `capacity` is how many addresses may be new in a second; past it new ones are refused, known ones are
    /// not.
    package init(capacity: Int = 8192) { self.capacity = capacity }

    /// Whether one more handshake from `address` may be worked on now; takes its token.
    package mutating func allow(_ address: IPAddress, now: Instant) -> Bool {
        turnGeneration(now)
        let source = Self.aggregate(address)
        guard current[source] != nil || previous[source] != nil || current.count < capacity else {
            return false
        }
        var bucket = current[source] ?? previous[source] ?? Bucket(credit: Self.fullCredit, at: now)
        let elapsed = min(max((now - bucket.at).wholeNanoseconds, 0), Self.fullCredit)
        bucket.credit = min(bucket.credit + elapsed, Self.fullCredit)
        bucket.at = max(bucket.at, now)
        let isAllowed = bucket.credit >= Self.price
        if isAllowed { bucket.credit -= Self.price }
        current[source] = bucket
        return isAllowed
    }

    /// Addresses held; at most twice the capacity.
    package var count: Int { current.count + previous.count }

    private mutating func turnGeneration(_ now: Instant) {
        guard let began = generationBegan, now - began < Self.generation else {
            previous = current
            current = [:]
            generationBegan = now
            return
        }
    }

    /// A /64 is one subscriber: whoever has one has all its addresses.
    private static func aggregate(_ address: IPAddress) -> IPAddress {
        address.family == .v4 ? address : IPAddress(v6: (address.bits >> 64) << 64)
    }
}
