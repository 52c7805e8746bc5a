/// Handshakes that others began with us and that we refused: whoever has a wrong key hears nothing, so this end must say
/// who it was.
///
/// Holds few: a flood from many addresses pushes out what is oldest, and what names no key before what names one, as a key
/// has cost its sender a Diffie-Hellman.
package struct RefusedHandshakes {
    package struct Refusal: Hashable, Sendable {
        package let reason: DropReason
        /// The sender's static key; nil where the message was not for a key of ours, and could not be read.
        package let key: PublicKey?
        package let address: IPAddress
        /// The latest.
        package fileprivate(set) var endpoint: Endpoint
        package fileprivate(set) var count: UInt64
        package fileprivate(set) var last: Instant
    }

    private static let limit = 16

    /// The latest last.
    package private(set) var all: [Refusal] = []

    /// A sender that has another port now is the same one.
    mutating func note(_ reason: DropReason, of key: PublicKey?, from endpoint: Endpoint, now: Instant) {
        let address = endpoint.address
        let known = all.firstIndex { $0.reason == reason && $0.key == key && $0.address == address }
        var refusal =
            known.map { all.remove(at: $0) }
            ?? Refusal(reason: reason, key: key, address: address, endpoint: endpoint, count: 0, last: now)
        refusal.count += 1
        (refusal.endpoint, refusal.last) = (endpoint, now)
        if all.count == Self.limit { all.remove(at: all.firstIndex { $0.key == nil } ?? 0) }
        all.append(refusal)
    }

    /// Those whose key is let in now: they are no news any more.
    mutating func forget(_ key: PublicKey) { all.removeAll { $0.key == key } }
}
