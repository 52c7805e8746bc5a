/// An outbound thread's shapers, one for each limiter that it has met.
///
/// Concurrency: a local of the thread.
@safe struct ShaperSet: ~Copyable {
    private var shapers: [Shaper] = []

    var count: Int { shapers.count }

    var isEmpty: Bool { shapers.isEmpty }

    subscript(number: Int) -> Shaper { shapers[number] }

    func begin(now: Instant) {
        for shaper in shapers { shaper.begin(now: now) }
    }

    /// Made when its first packet comes: the queues take memory.
    mutating func shaper(
        for limiter: RateLimiter, isOfPath: Bool, overhead: Int, now: Instant
    ) -> Unmanaged<Shaper> {
        if let known = shapers.first(where: { $0.limiter === limiter }) {
            return unsafe .passUnretained(known)
        }
        let shaper = Shaper(limiter: limiter, isOfPath: isOfPath, overhead: overhead)
        shaper.begin(now: now)
        shapers.append(shaper)
        return unsafe .passUnretained(shaper)
    }

    /// Those of limiters that are no longer there let go of what they hold.
    mutating func follow(_ table: ForwardingTable) {
        for shaper in shapers {
            shaper.isRetired = !table.limiters.contains { $0 === shaper.limiter }
        }
    }

    /// Between batches.
    mutating func removeRetired() { shapers.removeAll { $0.isRetired && $0.isEmpty } }

    /// When the first of what is held may go; nil while nothing is.
    var nextOpening: Instant? {
        var next: Instant?
        for shaper in shapers {
            guard let opening = shaper.nextOpening else { continue }
            if next.map({ opening < $0 }) ?? true { next = opening }
        }
        return next
    }
}
