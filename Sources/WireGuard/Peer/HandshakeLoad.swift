/// When a sender must show a cookie before we do a Diffie-Hellman for it (whitepaper, section 5.3): for a second after
/// the queue of handshakes was an eighth full, or too much work was done for nothing.
///
/// What is counted is the work: who knows our public key can make us do it with each message, and need not fill the
/// queue for that. A message that proves to be a known peer's, and new, does not count: so a gateway that a thousand
/// far ends ask at once, as after its restart, answers all of them at once.
struct HandshakeLoad {
    private static let duration: Duration = .seconds(1)
    /// Messages in vain at once that are put up with. One costs some 60 µs.
    static let burst = 16
    /// And one more in each of these times: 3 % of a processor.
    static let interval: Duration = .milliseconds(2)

    private var highUntil: Instant?
    /// When the work in vain so far will have been made up for.
    private var evenAt: Instant?

    func isHigh(at now: Instant) -> Bool { highUntil.map { now < $0 } ?? false }

    mutating func noteQueue(fill: Double, now: Instant) {
        if fill >= 0.125 { highUntil = now + Self.duration }
    }

    /// A Diffie-Hellman was done for a message that was then dropped.
    mutating func noteWorkInVain(now: Instant) {
        let even = max(evenAt ?? now, now) + Self.interval
        evenAt = even
        if even - now >= Self.interval * Self.burst { highUntil = now + Self.duration }
    }
}
