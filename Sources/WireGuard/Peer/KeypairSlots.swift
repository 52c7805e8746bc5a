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

    /// The initiator has the responder's proof: the new key is used at once. `initiatedAt` is when it asked.
    mutating func beginAsInitiator(_ keypair: Keypair, initiatedAt: Instant) -> [Keypair] {
        defer { current = keypair }
        if let next, next.createdAt >= initiatedAt {
            // The peer sends under `current` until its own handshake is done, and under `next` from then on.
            rival = next.localIndex
            defer { previous = current }
            return [previous].compactMap(\.self)
        }
        // A `next` from before we asked would have been confirmed by now, if the peer used it and we heard
        // it.
        defer {
            previous = current ?? next
            next = nil
            rival = nil
        }
        return [previous, current == nil ? nil : next].compactMap(\.self)
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
        let retired = [previous].compactMap(\.self)
        self.next = nil
        if rival == localIndex {
            previous = next
            return .outrun(retired: retired)
        }
        previous = current
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
