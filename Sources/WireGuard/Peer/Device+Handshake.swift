/// Handshake messages, as they are met:
///
///     1. receive             type and length, then by type
///     2. checkMacs           mac1 always, by one of our keys; under load also mac2 and the rate, or a cookie
///                            goes back
///     3. receiveInitiation   decrypt, newer than all before, answer; the new keypair waits as `next`
///        receiveResponse     finish what we began; the new keypair is used at once
///        receiveCookieReply  the next initiation will carry it
///     4. startHandshake, sendInitiation   our own
extension Device {
    /// A datagram that is not transport data, whatever is in it.
    package mutating func receive(_ message: [UInt8], from underlay: UnderlayPath, now: Instant) {
        var sender: Slot?
        var initiator: PublicKey?
        do throws(DropReason) {
            guard message.count >= 4 else { throw .datagramTruncated }
            switch MessageType(of: message) {
            case .initiation:
                guard let initiation = HandshakeInitiation(message) else { throw .messageLengthWrong }
                try receiveInitiation(
                    initiation, message, from: underlay, now: now, sender: &sender, initiator: &initiator)
            case .response:
                guard let response = HandshakeResponse(message) else { throw .messageLengthWrong }
                try receiveResponse(response, message, from: underlay, now: now, sender: &sender)
            case .cookieReply:
                guard let reply = CookieReply(message) else { throw .messageLengthWrong }
                try receiveCookieReply(reply, now: now, sender: &sender)
                trace(.cookieReceived, of: sender, underlay.endpoint)
            case .transport, nil:
                // Transport data is the data threads' to take.
                throw .messageTypeUnknown
            }
            sender?.peer.path.noteHandshakeReceived(bytes: message.count)
        } catch {
            if error.comesAfterDiffieHellman { load.noteWorkInVain(now: now) }
            if error.isRefusal, MessageType(of: message) == .initiation {
                refusedHandshakes.note(error, of: initiator, from: underlay.endpoint, now: now)
            }
            trace(.refused(error, key: initiator), of: sender, underlay.endpoint)
            drop(error, of: sender, from: underlay.endpoint, now: now)
        }
        if let sender { reschedule(sender) }
    }

    /// Which of our keys an initiation was meant for, nil for the device's own: there is a hash for each key.
    private func addressee(of message: [UInt8]) throws(DropReason) -> PublicKey? {
        // Without a private key nothing can have been meant for us.
        if identity?.cookies.verifyMac1(message) == true { return nil }
        guard let own = ownIdentities.first(where: { $0.value.cookies.verifyMac1(message) }) else {
            throw .mac1Invalid
        }
        return own.key
    }

    /// `own` is the key of ours that mac1 was made for.
    private mutating func checkLoad(
        _ message: [UInt8], for own: PublicKey?, senderIndex: UInt32, mac2: [UInt8],
        from underlay: UnderlayPath, now: Instant
    ) throws(DropReason) {
        guard isUnderLoad(at: now) else { return }
        let endpoint = underlay.endpoint
        let isHeard = withIdentity(own) { $0.cookies.verifyMac2(message, from: endpoint, now: now) }
        guard isHeard == true else {
            var entropy = entropy
            let reply = withIdentity(own) {
                $0.cookies.makeReply(
                    for: message, from: endpoint, index: senderIndex, now: now, entropy: &entropy)
            }
            self.entropy = entropy
            if let reply {
                trace(.cookieSent, of: nil, endpoint)
                emit(.transmit(bytes: reply.bytes, to: underlay, kind: .handshake, peer: nil))
            }
            throw mac2.allSatisfy { $0 == 0 } ? .cookieRequired : .mac2Invalid
        }
        guard rateLimiter.allow(endpoint.address, now: now) else { throw .handshakeRateLimited }
    }

    private mutating func receiveInitiation(
        _ initiation: HandshakeInitiation, _ message: [UInt8], from underlay: UnderlayPath, now: Instant,
        sender: inout Slot?, initiator: inout PublicKey?
    ) throws(DropReason) {
        let own = try addressee(of: message)
        try checkLoad(
            message, for: own, senderIndex: initiation.senderIndex, mac2: initiation.mac2, from: underlay,
            now: now)
        guard let privateKey = own.map({ ownIdentities[$0]?.privateKey }) ?? privateKey else {
            throw .mac1Invalid
        }
        let received = try ReceivedInitiation.open(initiation, static: privateKey) { key in
            // A stranger's key is not proven: it is what the message says.
            initiator = key
            return slot(for: key, of: own)?.peer.staticStatic
        }
        guard let slot = slot(for: received.peer, of: own) else { throw .peerUnknown }
        sender = slot
        guard slot.peer.isEnabled else { throw .peerDisabled }
        guard received.cipher == slot.peer.cipher else {
            slot.peer.foreignCipher = received.cipher
            throw .cipherMismatch
        }
        try slot.peer.admit(received.timestamp, at: now)
        refusedHandshakes.forget(received.peer)
        trace(.initiationReceived, of: slot, underlay.endpoint)

        let worker = keypairs.worker(of: slot.peer.id)
        guard let index = keypairs.reserveIndex(for: worker, entropy: &entropy) else {
            throw .handshakeQueueFull
        }
        let answer: (message: HandshakeResponse, keys: SessionKeys)
        do throws(DropReason) {
            answer = try received.respond(
                presharedKey: slot.peer.presharedKey, index: index, entropy: &entropy)
        } catch {
            keypairs.release(index)
            throw error
        }
        if slot.peer.move(to: underlay, at: now) { rememberEndpoint(of: slot) }
        retire(install(answer.keys, for: slot, now: now).retired)
        var response = answer.message
        slot.peer.macs.stamp(&response, now: now)
        trace(.responseSent, of: slot, underlay.endpoint)
        transmitHandshake(response.bytes, to: slot.peer.path.learnable(underlay, at: now), slot)
    }

    private mutating func receiveResponse(
        _ response: HandshakeResponse, _ message: [UInt8], from underlay: UnderlayPath, now: Instant,
        sender: inout Slot?
    ) throws(DropReason) {
        // Whose it is says for which of our keys mac1 must be.
        guard let owner = indexOwners[response.receiverIndex] else { throw .receiverIndexUnknown }
        let slot = owner.slot
        guard identity(of: slot)?.cookies.verifyMac1(message) == true else { throw .mac1Invalid }
        try checkLoad(
            message, for: slot.peer.key.identity, senderIndex: response.senderIndex, mac2: response.mac2,
            from: underlay,
            now: now)
        sender = slot
        if case .keypair = owner { throw .responseUnexpected }
        guard case .awaitingResponse(let handshake) = slot.peer.initiation else { throw .responseUnexpected }
        let keys = try handshake.finish(response)
        trace(.responseReceived, of: slot, underlay.endpoint)
        if underlay.socket == slot.peer.path.socket {
            slot.peer.path.setUnderlay(heard: underlay, at: now)
            rememberEndpoint(of: slot)
        }
        let (keypair, retired) = install(keys, for: slot, now: now)
        emit(.event(slot.peer.id, .handshakeCompleted(.initiator)))
        // The responder may send nothing before it has heard us under the new key.
        if !sendStaged(slot, under: keypair, now: now) { sendKeepalive(slot, under: keypair, now: now) }
        beginSending(slot, under: keypair)
        retire(retired)
    }

    private mutating func receiveCookieReply(
        _ reply: CookieReply, now: Instant, sender: inout Slot?
    ) throws(DropReason) {
        switch indexOwners[reply.receiverIndex] {
        case .initiation(let owner), .keypair(let owner):
            sender = owner
            try owner.peer.macs.receive(reply, now: now)
        case nil: throw .receiverIndexUnknown
        }
    }

    /// From here on the data threads find it. Those out of use are the caller's to retire.
    private mutating func install(
        _ keys: SessionKeys, for slot: Slot, now: Instant
    ) -> (keypair: Keypair, retired: [Keypair]) {
        let keypair = Keypair(
            role: keys.role, localIndex: keys.localIndex, remoteIndex: keys.remoteIndex, send: keys.send,
            receive: keys.receive, path: slot.peer.path, createdAt: now)
        indexOwners[keypair.localIndex] = .keypair(slot)
        keypairs.install(keypair)
        return (keypair, slot.peer.begin(keypair, at: now))
    }

    // MARK: Our own initiations

    mutating func startHandshake(_ slot: Slot, now: Instant) {
        guard slot.peer.isEnabled else { return }
        switch slot.peer.wantHandshake(at: now) {
        case .wait: break
        case .sendNow: sendInitiation(slot, now: now)
        }
    }

    /// New ephemeral key, timestamp and index each time.
    /// To where the peer is, or to `elsewhere`.
    mutating func sendInitiation(_ slot: Slot, to elsewhere: UnderlayPath? = nil, now: Instant) {
        guard let underlay = elsewhere ?? slot.peer.path.underlay else {
            free(slot.peer.endInitiation())
            slot.peer.note(.noEndpoint, at: now)
            dropCounters.add(.noEndpoint, count: slot.peer.staged.takeAll().count)
            return
        }
        slot.peer.initiationEndpoint = underlay.endpoint
        guard let privateKey = identity(of: slot)?.privateKey else {
            return free(slot.peer.holdBack(.noPrivateKey, at: now))
        }
        guard let staticStatic = slot.peer.staticStatic else {
            return free(slot.peer.holdBack(.dropped(.lowOrderPoint), at: now))
        }
        let worker = keypairs.worker(of: slot.peer.id)
        guard let index = keypairs.reserveIndex(for: worker, entropy: &entropy) else {
            return free(slot.peer.holdBack(.noFreeIndex, at: now))
        }
        let wallClock = Int64(bitPattern: now.nanoseconds) &+ realtimeOffset
        let timestamp = slot.peer.nextTimestamp(wallClock: TAI64N(unixNanoseconds: wallClock))
        lastTimestamp = max(lastTimestamp ?? timestamp, timestamp)
        do throws(DropReason) {
            var (message, handshake) = try InitiatorHandshake.begin(
                static: privateKey, peer: slot.peer.publicKey, staticStatic: staticStatic,
                presharedKey: slot.peer.presharedKey, cipher: slot.peer.cipher, index: index,
                timestamp: timestamp, entropy: &entropy)
            slot.peer.macs.stamp(&message, now: now)
            free(slot.peer.initiationSent(handshake, at: now, jitter: jitter()))
            indexOwners[index] = .initiation(slot)
            if slot.peer.initiationsSent == 1 { emit(.event(slot.peer.id, .handshakeStarted)) }
            trace(.initiationSent(number: slot.peer.initiationsSent), of: slot, underlay.endpoint)
            transmitHandshake(message.bytes, to: underlay, slot)
        } catch {
            keypairs.release(index)
            free(slot.peer.holdBack(.dropped(error), at: now))
        }
    }

    /// No key that there is may be used any more: this machine may be running a second time from the same memory, and
    /// would seal other packets under the same counters. Whoever had a session, or waited for one, is asked for a new
    /// one at once. Returns how many there were.
    package mutating func retireSessions(now: Instant) -> Int {
        var count = 0
        for slot in slots {
            var isUsed = slot.peer.hasKeypairs
            if case .idle = slot.peer.initiation {} else { isUsed = true }
            guard isUsed else { continue }
            count += 1
            slot.peer.path.publish(sending: nil)
            let (retired, freeIndex) = slot.peer.forgetSessions()
            retire(retired)
            free(freeIndex)
            startHandshake(slot, now: now)
            reschedule(slot)
        }
        return count
    }

    private mutating func transmitHandshake(_ bytes: [UInt8], to underlay: UnderlayPath, _ slot: Slot) {
        slot.peer.path.noteHandshakeSent(bytes: bytes.count)
        emit(.transmit(bytes: bytes, to: underlay, kind: .handshake, peer: slot.peer.id))
    }
}

extension DropReason {
    /// True if an operator has something to mend at one end.
    fileprivate var isRefusal: Bool {
        switch self {
        case .mac1Invalid, .peerUnknown, .cipherMismatch, .timestampNotNewer: true
        default: false
        }
    }

    /// True if a Diffie-Hellman was done for the handshake message before the fault was found.
    fileprivate var comesAfterDiffieHellman: Bool {
        switch self {
        case .lowOrderPoint, .handshakeDecryptionFailed, .peerUnknown, .peerDisabled, .cipherMismatch,
            .timestampNotNewer, .initiationTooSoon:
            true
        default: false
        }
    }
}
