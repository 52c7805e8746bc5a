/// One peer: what is known of it, what is awaited from it, and when to act if nothing comes.
///
/// It decides and remembers; ``Device``, its owner, does the cryptography and the sending. So its transitions
/// take facts and the time, and return what to do: a decision, a ``TimeoutAction``, or the keypairs that are
/// out of use.
struct Peer: ~Copyable {
    /// What the initiator's half of us waits for. The responder's half waits for nothing between two
    /// messages.
    enum Initiation {
        case idle
        /// A handshake is wanted, but the last initiation is less than REKEY_TIMEOUT old, or could not be
        /// made. The retry timer runs.
        case heldBack
        /// The retry timer runs.
        case awaitingResponse(InitiatorHandshake)
    }

    let id: PeerID
    let key: PeerKey
    let path: TunnelPath
    var presharedKey: PresharedKey
    let cipher: Cipher
    /// What the peer last asked for in place of that, for the status.
    var foreignCipher: Cipher?
    /// Nil without a private key of ours, or when the peer's key is a point of low order.
    var staticStatic: SecretBytes?
    var macs: MacGenerator
    /// False: an operator has turned it off.
    var isEnabled = true
    private(set) var persistentKeepalive: UInt16
    /// Whether the peer's key comes before ours in an order that both ends see alike.
    var yields = false

    private(set) var initiation = Initiation.idle
    /// Since a session was first wanted: until it is there, or for 90 s.
    private(set) var initiationsSent = 0
    private(set) var keypairs = KeypairSlots()
    private(set) var timers = PeerTimers()
    var staged = StagedPackets()

    private var timestamps: HandshakeTimestamps
    /// Since we started, the peer has used a key that it asked for: from here on its initiations cannot be
    /// old ones, played back by somebody who hopes that we forgot them.
    private var isProven = false
    private var lastInitiationSent: Instant?
    /// Where the last one went.
    var initiationEndpoint: Endpoint?
    private(set) var lastHandshake: Instant?
    /// Our answers to its initiations since it last used a key, and when the latest was sent.
    private(set) var unconfirmedAnswers: (count: Int, last: Instant)?
    private(set) var lastFailure: (reason: HandshakeFailure, at: Instant)?

    /// Handshake messages, which the stamps of the path do not cover.
    private var handshakeSentAt: Instant?
    private var handshakeReceivedAt: Instant?

    init(
        id: PeerID, key: PeerKey, configuration: PeerConfiguration, timestampFloor: TAI64N?, now: Instant
    ) {
        self.id = id
        self.key = key
        path = TunnelPath(peer: id, socket: configuration.socket, inside: configuration.inside)
        presharedKey = configuration.presharedKey
        cipher = configuration.cipher
        macs = MacGenerator(peer: configuration.publicKey)
        persistentKeepalive = configuration.persistentKeepalive
        timestamps = HandshakeTimestamps(floor: timestampFloor)
        path.setUnderlay(configuration.underlay)
        if persistentKeepalive > 0 { timers[.persistentKeepalive] = now + .seconds(persistentKeepalive) }
    }

    var publicKey: PublicKey { key.peer }

    var state: PeerState {
        if keypairs.current != nil { return .established }
        if case .idle = initiation { return .idle }
        return .handshaking(attempts: initiationsSent)
    }

    var hasKeypairs: Bool { keypairs.earliestExpiry != nil }

    /// What may be sealed under now.
    func sendingKeypair(at now: Instant) -> Keypair? {
        guard let keypair = keypairs.current, !keypair.isExpired(at: now) else { return nil }
        return keypair
    }

    /// The inbound thread has heard the next key, and control is about to hear of it: that sends what is staged. A reply to
    /// the first packet under the key may come to control before the news of the key.
    var isConfirmationDue: Bool { keypairs.rival == nil && keypairs.next?.isConfirmed == true }

    /// Whether the initiator, or whoever has used up its counter, asks for a new session because it sends or
    /// receives under the one in use (whitepaper, section 6.2).
    func isRekeyDue(at now: Instant) -> Bool {
        guard let keypair = keypairs.current else { return false }
        if keypair.sendCounter >= Protocol.rekeyAfterMessages { return true }
        // Ends that began at once would do so again and again: one of them lets the other go first.
        let patience = keypairs.rival != nil && yields ? Protocol.rekeyTimeout * 2 : .zero
        return keypair.role == .initiator && now >= keypair.createdAt + Protocol.rekeyAfterTime + patience
    }

    mutating func note(_ failure: HandshakeFailure, at now: Instant) { lastFailure = (failure, now) }

    mutating func forgetFailure() { lastFailure = nil }

    // MARK: Initiating

    enum InitiationDecision {
        case sendNow
        /// Under way, or held back until the retry timer fires.
        case wait
    }

    mutating func wantHandshake(at now: Instant) -> InitiationDecision {
        guard case .idle = initiation else { return .wait }
        initiationsSent = 0
        timers[.handshakeGiveUp] = now + Protocol.rekeyAttemptTime
        if let last = lastInitiationSent, now < last + Protocol.rekeyTimeout {
            initiation = .heldBack
            timers[.handshakeRetry] = last + Protocol.rekeyTimeout
            return .wait
        }
        return .sendNow
    }

    /// An initiation could not be made; it is tried again after REKEY_TIMEOUT. Returns an index to free.
    mutating func holdBack(_ failure: HandshakeFailure, at now: Instant) -> UInt32? {
        note(failure, at: now)
        let index = outstandingIndex
        initiation = .heldBack
        timers[.handshakeRetry] = now + Protocol.rekeyTimeout
        return index
    }

    mutating func nextTimestamp(wallClock: TAI64N) -> TAI64N { timestamps.next(wallClock: wallClock) }

    /// Returns an index to free: that of the initiation which this one replaces.
    mutating func initiationSent(_ handshake: InitiatorHandshake, at now: Instant, jitter: Duration)
        -> UInt32?
    {
        let replaced = outstandingIndex
        initiation = .awaitingResponse(handshake)
        initiationsSent += 1
        lastInitiationSent = now
        noteHandshakeSent(at: now)
        timers[.handshakeRetry] = now + Protocol.rekeyTimeout + jitter
        return replaced
    }

    /// Ends the attempt, whatever its end. Returns an index to free.
    mutating func endInitiation() -> UInt32? {
        let index = outstandingIndex
        initiation = .idle
        timers[.handshakeRetry] = nil
        timers[.handshakeGiveUp] = nil
        return index
    }

    private var outstandingIndex: UInt32? {
        guard case .awaitingResponse(let handshake) = initiation else { return nil }
        return handshake.index
    }

    // MARK: Sessions

    /// Throws when an authentic initiation must not be answered.
    mutating func admit(_ timestamp: TAI64N, at now: Instant) throws(DropReason) {
        try timestamps.admit(timestamp, at: now)
        noteHandshakeReceived(at: now)
    }

    /// An authentic initiation came from there. False when its freshness has yet to be shown: the first message under the
    /// key that it asks for then moves the peer to where that message comes from, as all data does.
    mutating func move(to underlay: UnderlayPath, at now: Instant) -> Bool {
        guard underlay.socket == path.socket else { return false }
        let known = path.underlay?.endpoint
        guard isProven || known == nil || known == underlay.endpoint else { return false }
        path.setUnderlay(heard: underlay, at: now)
        return true
    }

    mutating func begin(_ keypair: Keypair, at now: Instant) -> [Keypair] {
        let retired: [Keypair]
        switch keypair.role {
        case .initiator:
            retired = keypairs.beginAsInitiator(keypair)
            // The index lives on as the keypair's.
            _ = endInitiation()
            noteHandshakeReceived(at: now)
            completed(at: now)
        case .responder:
            retired = keypairs.beginAsResponder(keypair)
            noteHandshakeSent(at: now)
            unconfirmedAnswers = ((unconfirmedAnswers?.count ?? 0) + 1, now)
        }
        timers[.keypairExpiry] = keypairs.earliestExpiry
        timers[.wipe] = now + Protocol.wipeAfterTime
        return retired
    }

    /// The peer is heard under the key with that index for the first time. What is out of use, and whether
    /// there is a new key to send under.
    mutating func confirm(localIndex: UInt32, at now: Instant) -> KeypairSlots.Confirmation {
        let confirmation = keypairs.confirm(localIndex: localIndex)
        if case .notAwaited = confirmation { return .notAwaited }
        timers[.keypairExpiry] = keypairs.earliestExpiry
        isProven = true
        completed(at: now)
        return confirmation
    }

    private mutating func completed(at now: Instant) {
        lastHandshake = now
        lastFailure = nil
        unconfirmedAnswers = nil
    }

    /// Everything that a change of our own key makes worthless. Timestamps stay.
    mutating func forgetSessions() -> (retired: [Keypair], freeIndex: UInt32?) {
        let index = endInitiation()
        lastInitiationSent = nil
        timers[.keypairExpiry] = nil
        timers[.wipe] = nil
        return (keypairs.removeAll(), index)
    }

    // MARK: Traffic

    private var lastSent: Instant? { latest(path.lastSent, handshakeSentAt) }
    private var lastReceived: Instant? { latest(path.lastReceived, handshakeReceivedAt) }

    private mutating func noteHandshakeSent(at now: Instant) {
        handshakeSentAt = now
        path.handshakeAnswersDataReceived()
    }

    private mutating func noteHandshakeReceived(at now: Instant) {
        handshakeReceivedAt = now
        path.handshakeAnswersDataSent()
    }

    /// The data threads raise this once; they are asked to again when the timer that it starts falls due. What waits
    /// for an answer by then, and since when, the path knows.
    mutating func dataReceived(at: Instant) {
        guard timers[.keepalive] == nil else { return }
        timers[.keepalive] = at + Protocol.keepaliveTimeout
    }

    /// Likewise.
    mutating func dataSent(at: Instant, jitter: Duration) {
        guard timers[.deadPeer] == nil else { return }
        timers[.deadPeer] = at + Protocol.deadPeerTimeout + jitter
    }

    mutating func setPersistentKeepalive(_ seconds: UInt16, at now: Instant) {
        persistentKeepalive = seconds
        timers[.persistentKeepalive] = seconds > 0 ? now + .seconds(seconds) : nil
    }

    // MARK: Timeouts

    enum TimeoutAction {
        case retryInitiation
        case gaveUp(dropped: Int, freeIndex: UInt32?)
        case sendKeepalive
        case startHandshake
        case expired([Keypair], sessionEnded: Bool)
        case wiped([Keypair], freeIndex: UInt32?)
    }

    /// What the timers that are due by now ask for, one at a time; nil when none is left. `jitter` serves at
    /// most one timer.
    mutating func handleTimeout(now: Instant, jitter: Duration) -> TimeoutAction? {
        while let timer = timers.takeDue(at: now) {
            switch timer {
            case .handshakeGiveUp:
                noteNoReply(at: now)
                return .gaveUp(dropped: staged.takeAll().count, freeIndex: endInitiation())
            case .handshakeRetry:
                if case .awaitingResponse = initiation { noteNoReply(at: now) }
                return .retryInitiation
            case .keypairExpiry:
                let hadSession = keypairs.current != nil
                let expired = keypairs.removeExpired(at: now)
                timers[.keypairExpiry] = keypairs.earliestExpiry
                return .expired(expired, sessionEnded: hadSession && keypairs.current == nil)
            case .wipe:
                return .wiped(keypairs.removeAll(), freeIndex: wipeInitiation())
            case .keepalive:
                if isKeepaliveDue(at: now) { return .sendKeepalive }
            case .deadPeer:
                if isPeerDead(at: now, jitter: jitter) { return .startHandshake }
            case .persistentKeepalive:
                let interval = Duration.seconds(persistentKeepalive)
                let due = (latest(lastSent, lastReceived) ?? now) + interval
                timers[.persistentKeepalive] = due > now ? due : now + interval
                if due <= now || latest(lastSent, lastReceived) == nil { return .sendKeepalive }
            }
        }
        return nil
    }

    /// A reason seen since the last initiation says more than that no reply came.
    private mutating func noteNoReply(at now: Instant) {
        if let lastFailure, let lastInitiationSent, lastFailure.at >= lastInitiationSent { return }
        note(.noReply, at: now)
    }

    private mutating func wipeInitiation() -> UInt32? {
        guard let index = outstandingIndex else { return nil }
        initiation = .heldBack
        return index
    }

    private mutating func isKeepaliveDue(at now: Instant) -> Bool {
        // First, so that data from here on raises the event.
        path.disarmDataReceived()
        guard let received = path.unansweredDataReceived else { return false }
        let due = received + Protocol.keepaliveTimeout
        guard due > now else { return true }
        timers[.keepalive] = due
        return false
    }

    private mutating func isPeerDead(at now: Instant, jitter: Duration) -> Bool {
        path.disarmDataSent()
        guard let sent = path.unansweredDataSent else { return false }
        let due = sent + Protocol.deadPeerTimeout
        guard due > now else { return true }
        timers[.deadPeer] = due + jitter
        return false
    }
}

private func latest(_ a: Instant?, _ b: Instant?) -> Instant? {
    guard let a, let b else { return a ?? b }
    return max(a, b)
}
