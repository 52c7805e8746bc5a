internal import WireGuard

/// How long a tunnel that comes and goes must behave before it is used again.
///
/// Nothing before the first flap, then the base, doubled by each flap up to the maximum, and halved by each
/// whole minute that the tunnel carried traffic in one go. Less than the base counts as nothing.
struct HoldDown: Sendable {
    let base: Duration
    let maximum: Duration
    /// As the last flap left it: `carriedSince` says what has to be taken off.
    private var level: Duration = .zero

    init(base: Duration, maximum: Duration) {
        self.base = base
        self.maximum = maximum
    }

    /// What a flap of now would double. `carriedSince` is nil while the tunnel carries nothing.
    func span(carriedSince: Instant?, now: Instant) -> Duration {
        guard let carriedSince, now > carriedSince else { return level }
        let minutes = (now - carriedSince).wholeNanoseconds / 60_000_000_000
        // A level of more than 2^62 minutes does not exist.
        let left = minutes > 62 ? .zero : level / (1 << minutes)
        return left < base ? .zero : left
    }

    /// The tunnel fell after it had carried traffic since then.
    mutating func flap(carriedSince: Instant?, now: Instant) {
        let left = span(carriedSince: carriedSince, now: now)
        level = min(max(base, left * 2), max(maximum, .zero))
    }

    mutating func forget() { level = .zero }
}
