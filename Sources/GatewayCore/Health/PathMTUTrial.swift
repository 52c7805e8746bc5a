internal import WireGuard

/// One size that is tried on a path, and the evidence of whether it passes.
///
/// That large packets are lost while small ones arrive does not make a path small: a policer, or a queue that is
/// full, loses the larger packet more often too. Sizes that are near each other meet nearly the same fate there, and
/// a different one only at the path's own limit. So references, which are a ladder of smaller sizes, are sent at the
/// same moments, and the largest one that is ever answered is compared:
///
/// 1. the first try goes alone. Most often it is answered, and that is all;
/// 2. when it is not, rounds follow: another try, and behind it the references down to the largest that was answered.
///    Any answer to a try, however late, shows that the size passes. The rounds are `pace` apart, with a jitter, as
///    a policer lets packets pass in a rhythm of its own;
/// 3. when in each of the first twelve rounds the reference is answered and the try is not, the size does not pass;
/// 4. when the reference is lost in some of them, the path is loaded, and more is asked for: no try answered in 36
///    rounds, and the reference in at least half of them;
/// 5. when the reference is lost in five rounds in a row, or in more than half of the first twelve, nothing can be
///    said of the size now.
struct PathMTUTrial: Sendable {
    enum Step: Hashable, Sendable {
        /// Probes of these sizes are to be sent, in this order.
        case send([Int])
        case decided(Verdict)
    }

    enum Verdict: Hashable, Sendable {
        /// `failing`, which is the size or a reference, does not pass, and `passing` does. `isLoaded`: the path loses
        /// that now and then, too.
        case tooLarge(failing: Int, passing: Int, isLoaded: Bool)
        /// As many references are lost: that says nothing of the size.
        case unclear
        /// Nothing at all was answered.
        case silent
    }

    /// The first twelve rounds, and the two waits for answers of up to 900 ms around them, take less than three
    /// seconds.
    private static let pace: Duration = .milliseconds(100)
    /// In nanoseconds.
    private static let jitter: UInt64 = 80_000_000
    private static let firstRounds = 12
    private static let allRounds = 36
    private static let lostInRow = 5

    let size: Int
    let begin: Instant
    /// When `next` has something to do.
    private(set) var deadline: Instant

    /// The largest first.
    private let references: [Int]
    private var roundsSentAt: [Instant] = []
    /// A bit a round, by reference: it was answered.
    private var answered: [UInt64]

    private var ticks = 0
    private var noise: UInt64

    /// `seed` makes the jitter of one trial another one than that of the next.
    init(_ size: Int, references: [Int], now: Instant, timeout: Duration, seed: UInt32) {
        self.size = size
        noise = UInt64(seed) &* 0x9e37_79b9_7f4a_7c15 | 1
        self.references = references
        begin = now
        deadline = now + timeout
        answered = references.map { _ in 0 }
    }

    /// An answer to a probe of `size` that was sent at `sentAt`; it may be of another trial.
    mutating func noteAnswer(size: Int, sentAt: Instant) {
        guard let reference = references.firstIndex(of: size),
            let round = roundsSentAt.firstIndex(of: sentAt)
        else { return }
        answered[reference] |= 1 << UInt64(round)
    }

    /// To be called at `deadline`. `timeout` is how long an answer may take.
    mutating func next(now: Instant, timeout: Duration) -> Step {
        let over = roundsSentAt.prefix { $0 + timeout <= now }.count
        if over > 0, let verdict = verdict(after: over) { return .decided(verdict) }
        ticks += 1
        deadline = (roundsSentAt.first ?? now) + Self.pace * ticks + nextJitter()
        guard roundsSentAt.count < Self.allRounds else { return .send([]) }
        roundsSentAt.append(now)
        return .send([size] + references.prefix((largestAnswered ?? references.count) + 1))
    }

    private mutating func nextJitter() -> Duration {
        // Xorshift (Marsaglia 2003).
        noise ^= noise << 13
        noise ^= noise >> 7
        noise ^= noise << 17
        return .nanoseconds(Int64(noise % Self.jitter))
    }

    private var largestAnswered: Int? { answered.firstIndex { $0 != 0 } }

    /// What the first `over` rounds say, whose answers have had their time.
    private func verdict(after over: Int) -> Verdict? {
        guard let reference = largestAnswered else { return .silent }
        func answers(_ rounds: Range<Int>) -> Int {
            rounds.count { answered[reference] & 1 << UInt64($0) != 0 }
        }
        func tooLarge(isLoaded: Bool) -> Verdict {
            .tooLarge(
                failing: reference == 0 ? size : references[reference - 1], passing: references[reference],
                isLoaded: isLoaded)
        }
        if over >= Self.lostInRow, answers(over - Self.lostInRow..<over) == 0 { return .unclear }
        guard over >= Self.firstRounds else { return nil }
        let first = answers(0..<Self.firstRounds)
        if first == Self.firstRounds { return tooLarge(isLoaded: false) }
        if first * 2 < Self.firstRounds { return .unclear }
        guard over >= Self.allRounds else { return nil }
        return answers(0..<over) * 2 >= over ? tooLarge(isLoaded: true) : .unclear
    }
}
