/// What a peer may be waiting for. The order is that in which timers are handled that are due together, whichever fell
/// due first: after a suspend all of them are. So what has ended is cleared away before anything new begins; else the
/// wipe would take along the handshake that another timer has just begun.
///
/// | timer | set when | fires after | then |
/// |---|---|---|---|
/// | keypairExpiry | a session begins | 180 s | removes that keypair |
/// | wipe | a session begins | 540 s | wipes all key material |
/// | handshakeGiveUp | a handshake is first wanted | 90 s | gives up, drops what is staged |
/// | handshakeRetry | an initiation is sent | 5 s + jitter | forgets the source, sends another |
/// | | an initiation is wanted too soon | 5 s after the last | sends it |
/// | keepalive | data received | 10 s with nothing sent | sends one keepalive |
/// | deadPeer | data sent | 15 s + jitter with nothing received | starts a handshake |
/// | persistentKeepalive | configured | its interval with no packet either way | sends a keepalive |
enum PeerTimer: Int, CaseIterable {
    case keypairExpiry
    case wipe
    case handshakeGiveUp
    case handshakeRetry
    case keepalive
    case deadPeer
    case persistentKeepalive
}

/// The deadlines of one peer: a table of optional instants, no more.
struct PeerTimers {
    private var deadlines = InlineArray<7, Instant?>(repeating: nil)

    /// Nil while the timer is not running.
    subscript(timer: PeerTimer) -> Instant? {
        get { deadlines[timer.rawValue] }
        set { deadlines[timer.rawValue] = newValue }
    }

    var earliest: Instant? {
        var earliest: Instant?
        for index in deadlines.indices {
            guard let deadline = deadlines[index] else { continue }
            earliest = earliest.map { min($0, deadline) } ?? deadline
        }
        return earliest
    }

    /// Stops and returns the first timer, in the order of `PeerTimer`, that is due; nil when none is.
    mutating func takeDue(at now: Instant) -> PeerTimer? {
        for timer in PeerTimer.allCases {
            guard let deadline = self[timer], deadline <= now else { continue }
            self[timer] = nil
            return timer
        }
        return nil
    }
}
