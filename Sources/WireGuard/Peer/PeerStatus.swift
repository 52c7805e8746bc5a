/// What an operator says of one peer.
package struct PeerConfiguration: Sendable {
    package var publicKey: PublicKey
    /// Ours in sessions with this peer; nil is the device's.
    package var privateKey: PrivateKey?
    package var presharedKey: PresharedKey
    /// The same at both ends; it does not change while the peer is known.
    package var cipher: Cipher
    /// Nil: the peer must come to us first.
    package var underlay: UnderlayPath?
    /// In seconds; 0 is off.
    package var persistentKeepalive: UInt16
    /// The socket group that it is reached by; it does not change while the peer is known.
    package var socket: UInt8
    package var inside: InsideLink?

    package init(
        publicKey: PublicKey, privateKey: PrivateKey? = nil, presharedKey: PresharedKey = .none,
        cipher: Cipher = .chacha20Poly1305, underlay: UnderlayPath? = nil, persistentKeepalive: UInt16 = 0,
        socket: UInt8 = 0, inside: InsideLink? = nil
    ) {
        self.publicKey = publicKey
        self.privateKey = privateKey
        self.socket = socket
        self.inside = inside
        self.presharedKey = presharedKey
        self.cipher = cipher
        self.underlay = underlay
        self.persistentKeepalive = persistentKeepalive
    }
}

/// Why there is no session, in the words that `status` shows.
package enum HandshakeFailure: Hashable, Sendable, CustomStringConvertible {
    case noReply
    case noEndpoint
    case noPrivateKey
    /// The table of local indices is full.
    case noFreeIndex
    /// A handshake message from this peer, or from its address, was dropped.
    case dropped(DropReason)

    package var description: String {
        switch self {
        case .noReply: "no reply to handshake"
        case .noEndpoint: "no endpoint"
        case .noPrivateKey: "no private key"
        case .noFreeIndex: "no free session index"
        case .dropped(let reason): String(reason.name.map { $0 == "-" ? " " : $0 })
        }
    }
}

/// How far a peer is from carrying packets.
package enum PeerState: Hashable, Sendable {
    /// No session, and none asked for.
    case idle
    /// No session yet; `attempts` initiations sent in the last 90 s.
    case handshaking(attempts: Int)
    case established
}

/// A peer at one moment, for people and for `wg show`.
package struct PeerStatus: Sendable {
    package var id: PeerID
    package var publicKey: PublicKey
    /// For whoever may ask for keys: it exports itself only on demand.
    package var presharedKey: PresharedKey
    package var cipher: Cipher
    /// What it last asked for in place of that.
    package var foreignCipher: Cipher?
    package var underlay: UnderlayPath?
    package var persistentKeepalive: UInt16
    package var state: PeerState
    /// When a session was last known to be good at both ends.
    package var lastHandshake: Instant?
    /// Since when the session in use exists.
    package var sessionSince: Instant?
    /// What last went wrong since the last completed handshake.
    package var lastFailure: HandshakeFailure?
    package var lastFailureAt: Instant?
    package var stagedPackets: Int
    package var transmittedBytes: UInt64
    package var transmittedPackets: UInt64
    package var receivedBytes: UInt64
    package var receivedPackets: UInt64
}

/// What happens to a peer, for the log and for health.
package enum PeerEvent: Hashable, Sendable {
    /// The first initiation of an attempt was sent.
    case handshakeStarted
    case handshakeCompleted(Role)
    /// An initiation is about to be sent again: the one before, to there, had no answer, or could not be sent. Who
    /// hears of it may set another endpoint first.
    case initiationUnanswered(HandshakeFailure, at: Endpoint?)
    /// 90 s without an answer; so many staged packets were dropped.
    case handshakeGaveUp(dropped: Int)
    /// The session in use reached its 180 s and no other took its place.
    case sessionExpired
    /// 540 s without a new session.
    case keyMaterialWiped
    case roamed(UnderlayPath)
    /// Its public key is now our own: it is no longer a peer.
    case removedAsOurself
}
