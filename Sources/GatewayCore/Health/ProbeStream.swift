internal import WireGuard

/// The probes to one address: when the next is due, which are awaited, and how many in a row were answered or
/// not.
///
/// Probes leave on a grid of the interval, laid by the stream's phase from the origin of time: whenever
/// probing begins, many tunnels do not probe at once. A probe that is late is sent once and not caught up
/// with. In a hurry they leave eight times as often, between the lines of the grid.
struct ProbeStream: Sendable {
    struct Answer: Hashable, Sendable {
        var sentAt: Instant
        var roundTrip: Duration
        /// It had been taken for lost.
        var wasLost: Bool
    }

    let interval: Duration
    /// In a hurry.
    let shortInterval: Duration
    private let timeouts: ClosedRange<Duration>
    /// Nanoseconds from the origin of time to the grid.
    private let offset: UInt64
    private(set) var estimator = RoundTripEstimator()

    /// When each of the last probes was sent, by its sequence number; `answered` once that is so. It covers `longestAge`,
    /// in a hurry `longestTimeout`, and as many probes as take a tunnel down. A probe that has left it is not awaited any more.
    private var sentAt: [UInt64] = []
    private let capacity: UInt32
    private static let answered = UInt64.max
    private(set) var nextSequence: UInt32 = 0
    /// Those from here on have neither been answered nor given up.
    private var oldestAwaited: UInt32 = 0

    private var nextProbeAt: Instant?
    /// In a row, up to now. One of them is 0.
    private(set) var answeredInRow = 0
    private(set) var unansweredInRow = 0

    /// The longest that an answer is waited for: a deep queue on the way takes seconds.
    static let longestTimeout: Duration = .seconds(4)
    /// An answer that took longer says nothing any more: twice the longest timeout.
    private static let longestAge: Duration = .seconds(8)

    /// `phase` in 2^32ths of an interval. `depth`: how many unanswered probes in a row are to be remembered.
    init(interval: Duration, phase: UInt32, depth: Int = 0, firstSequence: UInt32 = 0) {
        let interval = max(interval, HealthSettings.shortestInterval)
        self.interval = interval
        shortInterval = max(interval / 8, HealthSettings.shortestInterval)
        timeouts = min(interval / 4, .seconds(1))...Self.longestTimeout
        let nanoseconds = UInt64(interval.wholeNanoseconds)
        offset = nanoseconds.multipliedFullWidth(by: UInt64(phase) << 32).high
        let wanted = UInt32(
            clamping: 2
                + max(
                    Self.longestAge.wholeNanoseconds / interval.wholeNanoseconds,
                    Self.longestTimeout.wholeNanoseconds / shortInterval.wholeNanoseconds))
        capacity = max(8, wanted.nextPowerOfTwo, UInt32(clamping: depth).nextPowerOfTwo)
        nextSequence = firstSequence
        oldestAwaited = firstSequence
    }

    /// How long the next probe will be waited for.
    var timeout: Duration { estimator.timeout(within: timeouts) }

    /// Likewise where the round trip does not matter.
    var shortestTimeout: Duration { timeouts.lowerBound }

    /// When the probe was sent that was the `count`th since `instant` without an answer, or would have been without a
    /// hurry; nil while there are fewer, or when one among the last `count` was answered.
    func sending(ofUnanswered count: Int, since instant: Instant) -> Instant? {
        guard !sentAt.isEmpty else { return nil }
        var first = nextSequence
        while nextSequence &- first < capacity {
            let sent = sentAt[place(of: first &- 1)]
            guard sent != Self.answered, sent >= instant.nanoseconds else { break }
            first &-= 1
        }
        let last = UInt32(clamping: max(count, 1) - 1)
        guard nextSequence &- first > last else { return nil }
        return max(
            Instant(nanoseconds: sentAt[place(of: first &+ last)]),
            Instant(nanoseconds: sentAt[place(of: first)]) + interval * Int(last))
    }

    // MARK: Time

    mutating func start(at now: Instant) {
        if sentAt.isEmpty { sentAt = [UInt64](repeating: Self.answered, count: Int(capacity)) }
        nextProbeAt = slot(notBefore: now)
    }

    /// Nothing is awaited any more. What was learned of the round trip stays.
    mutating func stop() {
        nextProbeAt = nil
        giveUp()
        for place in sentAt.indices { sentAt[place] = Self.answered }
    }

    /// Starts anew: what is awaited is no longer taken for lost, but an answer to it counts.
    mutating func giveUp() {
        oldestAwaited = nextSequence
        answeredInRow = 0
        unansweredInRow = 0
    }

    var nextTimeout: Instant? {
        guard let nextProbeAt else { return nil }
        guard let sent = awaitedSince else { return nextProbeAt }
        return min(nextProbeAt, sent + timeout)
    }

    private func slot(notBefore now: Instant) -> Instant {
        let width = UInt64(interval.wholeNanoseconds)
        let past = (now.nanoseconds % width + width - offset) % width
        return past == 0 ? now : now + .nanoseconds(Int64(width - past))
    }

    // MARK: Probes

    /// The sequence number of a probe to be sent now, or nil when it is not time.
    mutating func takeDue(at now: Instant, isHurried: Bool = false) -> UInt32? {
        guard let due = nextProbeAt, due <= now else { return nil }
        nextProbeAt = slot(notBefore: now + .nanoseconds(1))
        if isHurried { hurry(at: now) }
        let sequence = nextSequence
        nextSequence &+= 1
        sentAt[place(of: sequence)] = min(now.nanoseconds, Self.answered - 1)
        if nextSequence &- oldestAwaited > capacity { oldestAwaited &+= 1 }
        return sequence
    }

    /// Has the next one leave soon.
    mutating func hurry(at now: Instant) {
        nextProbeAt = nextProbeAt.map { min($0, now + shortInterval) }
    }

    /// The oldest probe whose time is over, one at a time; when it was sent.
    mutating func takeExpired(at now: Instant) -> Instant? {
        guard let sent = awaitedSince, sent + timeout <= now else { return nil }
        oldestAwaited &+= 1
        skipAnswered()
        answeredInRow = 0
        unansweredInRow = min(unansweredInRow + 1, 1 << 20)
        return sent
    }

    /// Nil for what was never sent, was answered before, or is too old. A late answer counts like any other,
    /// and says that the way is open again.
    mutating func answer(_ sequence: UInt32, at instant: Instant) -> Answer? {
        let age = nextSequence &- sequence
        guard age >= 1, age <= capacity, !sentAt.isEmpty else { return nil }
        let sent = sentAt[place(of: sequence)]
        let sentAt = Instant(nanoseconds: sent)
        guard sent != Self.answered, instant <= sentAt + Self.longestAge else { return nil }
        self.sentAt[place(of: sequence)] = Self.answered
        let wasLost = age > nextSequence &- oldestAwaited
        skipAnswered()
        // The stamp may come from a coarser clock than the one that it is compared with.
        let roundTrip = instant > sentAt ? instant - sentAt : .zero
        estimator.add(roundTrip)
        unansweredInRow = 0
        answeredInRow = min(answeredInRow + 1, 1 << 20)
        return Answer(sentAt: sentAt, roundTrip: roundTrip, wasLost: wasLost)
    }

    /// The newest sequence number that ends in these bits: of a probe that had no room for more.
    func sequence(endingIn low: UInt16) -> UInt32 {
        let newest = nextSequence &- 1
        return newest &- UInt32(UInt16(truncatingIfNeeded: newest) &- low)
    }

    private func place(of sequence: UInt32) -> Int { Int(sequence & (capacity - 1)) }

    private var awaitedSince: Instant? {
        oldestAwaited == nextSequence ? nil : Instant(nanoseconds: sentAt[place(of: oldestAwaited)])
    }

    /// Keeps the oldest awaited one an awaited one.
    private mutating func skipAnswered() {
        while oldestAwaited != nextSequence, sentAt[place(of: oldestAwaited)] == Self.answered {
            oldestAwaited &+= 1
        }
    }
}

extension UInt32 {
    /// Up to 2^31; what is larger becomes that.
    fileprivate var nextPowerOfTwo: UInt32 {
        self <= 1 ? 1 : self > 1 << 31 ? 1 << 31 : 1 << UInt32(32 - (self - 1).leadingZeroBitCount)
    }
}
