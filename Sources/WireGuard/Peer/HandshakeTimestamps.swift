/// The order of initiations between us and one peer, both ways. It outlives sessions and keys: otherwise an
/// old initiation could be played back, or ours would be taken for one.
struct HandshakeTimestamps {
    /// What the peer must exceed.
    private var received: TAI64N?
    private var receivedAt: Instant?
    /// What we must exceed.
    private var sent: TAI64N?

    /// `floor`: the greatest that this peer may have seen of us in an earlier run.
    init(floor: TAI64N?) { sent = floor }

    /// Throws unless the initiation is newer than all before it, and comes 20 ms after the last.
    mutating func admit(_ timestamp: TAI64N, at now: Instant) throws(DropReason) {
        if let received, timestamp <= received { throw .timestampNotNewer }
        if let receivedAt, now < receivedAt + Protocol.initiationInterval { throw .initiationTooSoon }
        received = timestamp
        receivedAt = now
    }

    /// For an initiation at `wallClock`, wherever that clock has been set to.
    mutating func next(wallClock: TAI64N) -> TAI64N {
        var timestamp = wallClock
        if let sent, timestamp <= sent { timestamp = sent.next() }
        sent = timestamp
        return timestamp
    }
}
