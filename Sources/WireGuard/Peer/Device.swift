/// All peers of a gateway: handshakes, sessions and timers, without sockets and without a clock.
///
///     1. tell it what happened   receive, handle, handleTimeout, and what an operator wants
///     2. take what it asks for   poll until nil: messages to send, events to log
///     3. come back               at `nextTimeout`, or when something happens
///
/// Calls that come early, late or twice do no harm. Sessions are installed in the ``KeypairTable`` and
/// published in each peer's ``TunnelPath`` by the device itself: the latter when `poll` has given out the
/// staged packets and the confirming keepalive, so that nothing overtakes what is sent before the next call. Only in
/// place of an older key that is in use does the inbound thread publish one, as soon as it is heard.
///
/// Concurrency: owned by the control thread. The same calls with the same instants and entropy give the same
/// outputs.
package struct Device: ~Copyable {
    package enum Output: Sendable {
        case transmit(bytes: [UInt8], to: UnderlayPath, kind: Kind, peer: PeerID?)
        case event(PeerID, PeerEvent)
        /// Only while `tracesHandshakes` is on.
        case trace(HandshakeTrace)
    }

    /// What a message is, for whoever marks the outer packet.
    package enum Kind: Hashable, Sendable {
        case handshake
        case transport
    }

    final class Slot {
        var peer: Peer
        init(_ peer: consuming Peer) { self.peer = peer }
    }

    /// Who is found by a local index of ours.
    enum IndexOwner {
        case initiation(Slot)
        case keypair(Slot)

        var slot: Slot {
            switch self {
            case .initiation(let slot), .keypair(let slot): slot
            }
        }
    }

    let keypairs: KeypairTable
    var entropy: any Entropy
    /// Keys of every peer that has none of its own.
    private(set) var identity: Identity?
    /// Keys of single peers, by our public key.
    var ownIdentities: [PublicKey: Identity] = [:]
    var rateLimiter = InitiationRateLimiter()
    var load = HandshakeLoad()

    var chacha = ChaCha20Poly1305()
    private(set) var slots: [Slot] = []
    private static let never = Instant(nanoseconds: .max)
    /// By index in `slots`: each peer's earliest deadline, the end of time for none. A scan of a thousand
    /// words takes less than keeping a heap in order would.
    private var deadlines: [Instant] = []
    private var indices: [PeerID: Int] = [:]
    private var slotsByKey: [PeerKey: Slot] = [:]
    var indexOwners: [UInt32: IndexOwner] = [:]
    /// Who was last known at an address, so that what is wrong with a message that cannot be read is shown
    /// with its likely sender. Nothing but the status depends on it.
    private var endpointOwners: [Endpoint: PeerID] = [:]
    private var knownEndpoints: [PeerID: Endpoint] = [:]
    /// Numbers are not used again: an event of a data thread that comes late must not reach another peer.
    private var nextID = 0

    private enum Pending {
        case output(Output)
        /// The data threads seal under it from here on.
        case beginSending(Slot, Keypair)
        /// Behind the event that tells of it: who hears that may send it elsewhere.
        case retryInitiation(Slot, now: Instant)
    }

    private var outputs: [Pending] = []
    private var outputsTaken = 0

    /// CLOCK_REALTIME less `Instant`, in nanoseconds. The caller refreshes it; initiations carry the sum.
    package var realtimeOffset: Int64 = 0
    /// MTU of the TUN: padding of what is sent here stays within it.
    package var mtu = 1420
    /// The greatest timestamp of any initiation sent, or the floor that the device began with. It never goes
    /// back, and must be on disk for the next run.
    package internal(set) var lastTimestamp: TAI64N?
    /// Whether each handshake message is told of: what a flood of them costs is then an output each.
    package var tracesHandshakes = false
    /// What was dropped here; the data threads count their own.
    package let dropCounters = DropCounters()
    package internal(set) var refusedHandshakes = RefusedHandshakes()

    package init(
        privateKey: PrivateKey?, keypairs: KeypairTable, entropy: some Entropy, timestampFloor: TAI64N? = nil
    ) {
        self.keypairs = keypairs
        self.entropy = entropy
        identity = privateKey.map { Identity($0) }
        lastTimestamp = timestampFloor
    }

    package var privateKey: PrivateKey? { identity?.privateKey }
    package var publicKey: PublicKey? { identity?.publicKey }
    package var drops: [DropReason: UInt64] { dropCounters.snapshot }
    package var peers: [PeerID] { slots.map { $0.peer.id } }

    // MARK: Configuration

    /// A new identity of the peers that have none of their own: sessions end, and what is staged asks for new
    /// ones. A peer that has this public key is removed. The same key again changes nothing.
    package mutating func setPrivateKey(_ key: PrivateKey?, now: Instant) {
        guard key?.publicKey != publicKey else { return }
        identity = key.map { Identity($0) }
        if let own = key?.publicKey, let slot = slot(for: own, of: nil) {
            emit(.event(slot.peer.id, .removedAsOurself))
            removePeer(slot.peer.id)
        }
        for slot in slots where slot.peer.key.identity == nil {
            let (retired, freeIndex) = slot.peer.forgetSessions()
            slot.peer.path.publish(sending: nil)
            retire(retired)
            free(freeIndex)
            introduce(slot)
            if !slot.peer.staged.isEmpty { startHandshake(slot, now: now) }
            reschedule(slot)
        }
    }

    /// Nil for our own public key, and when there are as many peers as the keypair table has room for. A pair of
    /// keys that is known already keeps its number and takes the new settings. No handshake starts by itself.
    package mutating func addPeer(_ configuration: PeerConfiguration, now: Instant) -> PeerID? {
        let own = configuration.privateKey.map { Identity($0) }
        guard configuration.publicKey != own?.publicKey ?? publicKey else { return nil }
        let key = PeerKey(identity: own?.publicKey, peer: configuration.publicKey)
        if let known = slotsByKey[key]?.peer.id {
            setPresharedKey(configuration.presharedKey, for: known)
            setUnderlay(configuration.underlay, for: known)
            setPersistentKeepalive(configuration.persistentKeepalive, for: known, now: now)
            return known
        }
        guard slots.count < keypairs.capacity / KeypairTable.indicesPerPeer else { return nil }
        let id = PeerID(nextID)
        nextID += 1
        let slot = Slot(
            Peer(id: id, key: key, configuration: configuration, timestampFloor: lastTimestamp, now: now))
        if let own { ownIdentities[own.publicKey, default: own].users += 1 }
        introduce(slot)
        indices[id] = slots.count
        slots.append(slot)
        deadlines.append(Self.never)
        slotsByKey[key] = slot
        rememberEndpoint(of: slot)
        reschedule(slot)
        return id
    }

    /// What follows from our key and the peer's.
    private func introduce(_ slot: Slot) {
        let theirs = slot.peer.publicKey
        let ours = identity(of: slot)
        slot.peer.staticStatic = try? ours?.privateKey.sharedSecret(with: theirs)
        slot.peer.yields = ours.map { theirs.bytes.lexicographicallyPrecedes($0.publicKey.bytes) } ?? false
    }

    /// The one that the peer knows us by.
    func identity(of slot: Slot) -> Identity? {
        slot.peer.key.identity.map { ownIdentities[$0] } ?? identity
    }

    /// In index: its cookies have a secret that changes.
    mutating func withIdentity<Result>(_ own: PublicKey?, _ body: (inout Identity) -> Result) -> Result? {
        guard let own else { return identity == nil ? nil : body(&identity!) }
        return ownIdentities[own] == nil ? nil : body(&ownIdentities[own]!)
    }

    /// Frees all that the peer held. Its path seals nothing more.
    package mutating func removePeer(_ id: PeerID) {
        guard let slot = slot(id), let index = indices.removeValue(forKey: id) else { return }
        slot.peer.path.publish(sending: nil)
        let (retired, freeIndex) = slot.peer.forgetSessions()
        retire(retired)
        free(freeIndex)
        slotsByKey[slot.peer.key] = nil
        if let own = slot.peer.key.identity {
            ownIdentities[own]?.users -= 1
            if ownIdentities[own]?.users == 0 { ownIdentities[own] = nil }
        }
        forgetEndpoint(of: id)
        slots.swapAt(index, slots.count - 1)
        deadlines.swapAt(index, slots.count - 1)
        slots.removeLast()
        deadlines.removeLast()
        if index < slots.count { indices[slots[index].peer.id] = index }
    }

    /// For the next handshake; the session in use goes on.
    package mutating func setPresharedKey(_ key: PresharedKey, for id: PeerID) {
        slot(id)?.peer.presharedKey = key
    }

    /// What is sent from now on goes there, until the peer is heard from elsewhere.
    package mutating func setUnderlay(_ underlay: UnderlayPath?, for id: PeerID) {
        guard let slot = slot(id) else { return }
        slot.peer.path.setUnderlay(underlay)
        rememberEndpoint(of: slot)
    }

    /// In seconds, 0 for off. One is sent at once when it was off.
    package mutating func setPersistentKeepalive(_ seconds: UInt16, for id: PeerID, now: Instant) {
        guard let slot = slot(id), slot.peer.persistentKeepalive != seconds else { return }
        let wasOff = slot.peer.persistentKeepalive == 0
        slot.peer.setPersistentKeepalive(seconds, at: now)
        if wasOff { sendKeepalive(slot, now: now) }
        reschedule(slot)
    }

    /// A peer that is off has no session, begins none and answers none; all else of it stays.
    package mutating func setEnabled(_ isEnabled: Bool, for id: PeerID) {
        guard let slot = slot(id), slot.peer.isEnabled != isEnabled else { return }
        slot.peer.isEnabled = isEnabled
        // What was refused while it was off says nothing of what comes.
        guard !isEnabled else { return slot.peer.forgetFailure() }
        slot.peer.path.publish(sending: nil)
        let (retired, freeIndex) = slot.peer.forgetSessions()
        retire(retired)
        free(freeIndex)
        dropCounters.add(.peerDisabled, count: slot.peer.staged.takeAll().count)
        reschedule(slot)
    }

    /// Asks for a session now, as on start; an old one is used until the new one is there.
    package mutating func initiate(_ id: PeerID, now: Instant) {
        guard let slot = slot(id) else { return }
        startHandshake(slot, now: now)
        reschedule(slot)
    }

    /// As `initiate`, but the first initiation goes to another endpoint than the one in use: whoever answers
    /// there is used from then on. False when a handshake is under way, or was a moment ago.
    package mutating func initiate(_ id: PeerID, at underlay: UnderlayPath, now: Instant) -> Bool {
        guard let slot = slot(id), slot.peer.isEnabled, case .idle = slot.peer.initiation,
            case .sendNow = slot.peer.wantHandshake(at: now)
        else { return false }
        sendInitiation(slot, to: underlay, now: now)
        reschedule(slot)
        return true
    }

    // MARK: Looking

    /// `identity` is our public key where the peer has one of its own, else nil.
    package func peerID(for key: PublicKey, of identity: PublicKey? = nil) -> PeerID? {
        slot(for: key, of: identity)?.peer.id
    }

    package func path(of id: PeerID) -> TunnelPath? { slot(id)?.peer.path }

    /// Our answers to the peer's initiations since it last used a key, and when the latest was sent; nil where it uses
    /// what it gets.
    package func unconfirmedAnswers(of id: PeerID) -> (count: Int, last: Instant)? {
        slot(id)?.peer.unconfirmedAnswers
    }

    package func status(of id: PeerID) -> PeerStatus? {
        guard let slot = slot(id) else { return nil }
        let path = slot.peer.path
        return PeerStatus(
            id: id, publicKey: slot.peer.publicKey, presharedKey: slot.peer.presharedKey,
            cipher: slot.peer.cipher, foreignCipher: slot.peer.foreignCipher, underlay: path.underlay,
            persistentKeepalive: slot.peer.persistentKeepalive, state: slot.peer.state,
            lastHandshake: slot.peer.lastHandshake, sessionSince: slot.peer.keypairs.current?.createdAt,
            lastFailure: slot.peer.lastFailure?.reason, lastFailureAt: slot.peer.lastFailure?.at,
            stagedPackets: slot.peer.staged.count,
            transmittedBytes: path.transmittedBytes,
            transmittedPackets: path.transmittedPackets, receivedBytes: path.receivedBytes,
            receivedPackets: path.receivedPackets)
    }

    func slot(_ id: PeerID) -> Slot? { indices[id].map { slots[$0] } }

    func slot(for key: PublicKey, of identity: PublicKey?) -> Slot? {
        slotsByKey[PeerKey(identity: identity, peer: key)]
    }

    // MARK: Load

    /// The caller says how full the queue that handshakes arrive by is, 0 to 1.
    package mutating func noteQueue(fill: Double, now: Instant) { load.noteQueue(fill: fill, now: now) }

    package func isUnderLoad(at now: Instant) -> Bool { load.isHigh(at: now) }

    // MARK: Time and output

    /// When `handleTimeout` has something to do; nil while nothing is awaited.
    package var nextTimeout: Instant? {
        let earliest = deadlines.min() ?? Self.never
        return earliest == Self.never ? nil : earliest
    }

    package mutating func handleTimeout(now: Instant) {
        for index in slots.indices where deadlines[index] <= now {
            let slot = slots[index]
            while let action = slot.peer.handleTimeout(now: now, jitter: jitter()) {
                perform(action, slot, now: now)
            }
            reschedule(slot)
        }
    }

    /// After every call that may have touched the peer's timers.
    mutating func reschedule(_ slot: Slot) {
        guard let index = indices[slot.peer.id] else { return }
        deadlines[index] = slot.peer.timers.earliest ?? Self.never
    }

    package mutating func poll() -> Output? {
        while outputsTaken < outputs.count {
            outputsTaken += 1
            switch outputs[outputsTaken - 1] {
            case .output(let output): return output
            case .beginSending(let slot, let keypair):
                // Unless it has ended, or a newer one begun, in the meantime.
                if slot.peer.keypairs.current === keypair { slot.peer.path.publish(sending: keypair) }
            case .retryInitiation(let slot, let now):
                if case .idle = slot.peer.initiation { continue }
                slot.peer.path.forgetSource()
                sendInitiation(slot, now: now)
                reschedule(slot)
            }
        }
        outputs.removeAll(keepingCapacity: outputs.count <= 256)
        outputsTaken = 0
        return nil
    }

    mutating func emit(_ output: Output) { outputs.append(.output(output)) }

    mutating func trace(_ step: HandshakeTrace.Step, of slot: Slot?, _ endpoint: Endpoint) {
        guard tracesHandshakes else { return }
        emit(.trace(HandshakeTrace(step: step, peer: slot?.peer.id, endpoint: endpoint)))
    }

    mutating func retryInitiation(_ slot: Slot, now: Instant) {
        outputs.append(.retryInitiation(slot, now: now))
    }

    /// Behind all that was emitted so far.
    mutating func beginSending(_ slot: Slot, under keypair: Keypair) {
        outputs.append(.beginSending(slot, keypair))
    }

    /// 0 to 333 ms, so that two ends that began together do not retry together.
    mutating func jitter() -> Duration {
        let span = UInt64(Protocol.rekeyTimeoutJitter.wholeNanoseconds)
        return .nanoseconds(Int64(entropy.next(UInt64.self) % (span + 1)))
    }

    // MARK: Bookkeeping

    /// They are out of use. Whatever the data threads seal under until then, the table sees to it.
    mutating func retire(_ retired: [Keypair]) { for keypair in retired { free(keypair.localIndex) } }

    mutating func free(_ index: UInt32?) {
        guard let index else { return }
        indexOwners[index] = nil
        keypairs.release(index)
    }

    /// Call when control learns that the peer is, or is to be, somewhere else. False when it is not.
    @discardableResult
    mutating func rememberEndpoint(of slot: Slot) -> Bool {
        let id = slot.peer.id
        let endpoint = slot.peer.path.underlay?.endpoint
        guard knownEndpoints[id] != endpoint else { return false }
        forgetEndpoint(of: id)
        guard let endpoint else { return true }
        knownEndpoints[id] = endpoint
        endpointOwners[endpoint] = id
        return true
    }

    private mutating func forgetEndpoint(of id: PeerID) {
        guard let endpoint = knownEndpoints.removeValue(forKey: id), endpointOwners[endpoint] == id else {
            return
        }
        endpointOwners[endpoint] = nil
    }

    /// Counts, and shows it with the peer that sent the message, or else with one known to live where it came
    /// from.
    func drop(_ reason: DropReason, of sender: Slot?, from endpoint: Endpoint, now: Instant) {
        dropCounters.add(reason)
        guard let slot = sender ?? endpointOwners[endpoint].flatMap({ slot($0) }) else { return }
        slot.peer.note(.dropped(reason), at: now)
    }
}
