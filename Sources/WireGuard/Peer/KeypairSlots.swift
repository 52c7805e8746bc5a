/// The sessions with one peer, at most three (whitepaper, section 6.3): packets under way when a new key came
/// may still arrive under `previous`; we send under `current`; a responder may not send under `next` until it
/// has heard it used.
///
/// Each change returns the keypairs that are out of use: the caller stops sending under them, then frees
/// their indices.
struct KeypairSlots {
    private(set) var previous: Keypair?
    private(set) var current: Keypair?
    private(set) var next: Keypair?

    private var all: [Keypair] { [previous, current, next].compactMap(\.self) }

    /// Local index of the peer's key when both began at once, as long as our own is `current`: each end sends
    /// under its own key, and hears the other's.
    private(set) var rival: UInt32?

    /// The initiator has the responder's proof: the new key is used at once.
    mutating func beginAsInitiator(_ keypair: Keypair) -> [Keypair] {
        let retired = makePrevious(lastHeard)
        current = keypair
        // Both began at once. The peer sends under what it did until its own handshake is done, and under
        // `next` from then on. It may be there already: its first packet can be late, or lost.
        rival = next?.localIndex
        return retired
    }

    /// What the peer sends under before it hears of a newer key: its own, where both began at once.
    private var lastHeard: Keypair? {
        if let previous, previous.localIndex == rival { return previous }
        return current
    }

    /// `keypair` is `previous` or `current`; what else was in these two is out of use.
    private mutating func makePrevious(_ keypair: Keypair?) -> [Keypair] {
        let retired = [previous, current].compactMap(\.self).filter { $0 !== keypair }
        previous = keypair
        current = nil
        return retired
    }

    /// The responder has yet to hear the new key used. `previous` stays until then: when both began at once,
    /// the peer sends under it for another round trip.
    mutating func beginAsResponder(_ keypair: Keypair) -> [Keypair] {
        defer { next = keypair }
        return [next].compactMap(\.self)
    }

    enum Confirmation {
        case notAwaited
        /// `next` is `current` now.
        case promoted(retired: [Keypair])
        /// `next` was the rival and is `previous` now; `current` stays.
        case outrun(retired: [Keypair])
    }

    /// The first packet under the key with that index was heard.
    mutating func confirm(localIndex: UInt32) -> Confirmation {
        guard let next, next.localIndex == localIndex else { return .notAwaited }
        self.next = nil
        if rival == localIndex {
            let retired = [previous].compactMap(\.self)
            previous = next
            return .outrun(retired: retired)
        }
        let retired = makePrevious(lastHeard)
        current = next
        rival = nil
        return .promoted(retired: retired)
    }

    mutating func removeExpired(at now: Instant) -> [Keypair] {
        let expired = all.filter { $0.createdAt + Protocol.rejectAfterTime <= now }
        if let keypair = previous, keypair.createdAt + Protocol.rejectAfterTime <= now { previous = nil }
        if let keypair = current, keypair.createdAt + Protocol.rejectAfterTime <= now { current = nil }
        if let keypair = next, keypair.createdAt + Protocol.rejectAfterTime <= now { next = nil }
        return expired
    }

    mutating func removeAll() -> [Keypair] {
        defer { self = KeypairSlots() }
        return all
    }

    var earliestExpiry: Instant? { all.map { $0.createdAt + Protocol.rejectAfterTime }.min() }
}
