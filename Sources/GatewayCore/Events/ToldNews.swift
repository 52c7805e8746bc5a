internal import WireGuard

/// What the log and the events have said of troubles that strangers and far ends make: of each kind once a minute, and of
/// all together no more than a flood of made-up ones may write.
struct ToldNews<Kind: Hashable> {
    private static var interval: Duration { .seconds(60) }
    private static var limitInInterval: Int { 10 }

    private var told: [Kind: (count: UInt64, at: Instant)] = [:]
    private var budget = Self.limitInInterval
    private var budgetSince: Instant?

    /// `count` is how many there were of the kind so far. Returns how many of them are to be told of now; nil is none.
    mutating func news(of kind: Kind, count: UInt64, now: Instant) -> UInt64? {
        let before = told[kind]
        // A kind that was forgotten and came again counts from the beginning.
        let new = before.map { $0.count <= count ? count - $0.count : count } ?? count
        guard new > 0, before.map({ now - $0.at >= Self.interval }) ?? true else { return nil }
        if budgetSince.map({ now - $0 >= Self.interval }) ?? true {
            (budget, budgetSince) = (Self.limitInInterval, now)
            told = told.filter { now - $0.value.at < Self.interval * 10 }
        }
        guard budget > 0 else { return nil }
        budget -= 1
        told[kind] = (count, now)
        return new
    }
}
