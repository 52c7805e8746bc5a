internal import WireGuard

/// The rate limiters of connections and tunnels. One stays while its rate does, whatever else of the forwarding table
/// changes: a new one would give its burst away again, and let go of what waits.
///
/// Owned by the control thread.
struct RateLimiters {
    enum Owner: Hashable {
        case connection(String)
        case tunnel(String)
    }

    private struct Entry {
        let rate: UInt64
        let limiter: RateLimiter
    }

    private var entries: [Owner: Entry] = [:]

    /// `rate` in bits a second; nil is no limit. `mtu` is that of the TUN.
    mutating func limiter(of owner: Owner, rate: UInt64?, mtu: Int, now: Instant) -> RateLimiter? {
        guard let rate else {
            entries[owner] = nil
            return nil
        }
        if let entry = entries[owner], entry.rate == rate { return entry.limiter }
        let limiter = RateLimiter(rate: rate / 8, largest: mtu + Self.overhead, now: now)
        entries[owner] = Entry(rate: rate, limiter: limiter)
        return limiter
    }

    /// IPv6 and UDP headers, and what a message has beside the inner packet.
    private static let overhead = 80

    /// Those of connections and tunnels that are gone go too.
    mutating func keep(_ isThere: (Owner) -> Bool) { entries = entries.filter { isThere($0.key) } }
}
