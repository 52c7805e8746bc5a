/// What the data threads report, what timers ask for, and the few transport messages that control seals
/// itself.
extension Device {
    package mutating func handle(_ event: DatapathEvent, now: Instant) {
        switch event {
        case .handshakeMessage(let message, let underlay): receive(message, from: underlay, now: now)
        case .stage(let id, let packet): withPeer(id) { $0.stage(packet, $1, now: now) }
        case .dataSent(let id, let at):
            let jitter = jitter()
            withPeer(id) { $1.peer.dataSent(at: at, jitter: jitter) }
        case .dataReceived(let id, let at): withPeer(id) { $1.peer.dataReceived(at: at) }
        case .rekeyDue(let id):
            // It may have been raised before a rekey that is done by now.
            withPeer(id) { if $1.peer.isRekeyDue(at: now) { $0.startHandshake($1, now: now) } }
        case .keyConfirmed(let id, let index): withPeer(id) { $0.confirm(localIndex: index, $1, now: now) }
        case .roamed(let id): withPeer(id) { $0.follow($1) }
        // For the health of the tunnel, for its operator, and for another data thread: no business of the protocol's.
        case .probeReply, .sendTooBig, .stray, .sourceRefused: break
        }
    }

    /// After authentic data. Another address of ours that it came to is no news, and a handshake may have told
    /// of the new endpoint already.
    private mutating func follow(_ slot: Slot) {
        guard rememberEndpoint(of: slot), let underlay = slot.peer.path.underlay else { return }
        emit(.event(slot.peer.id, .roamed(underlay)))
    }

    /// Nothing for a peer that is gone: the threads may not know it yet.
    private mutating func withPeer(_ id: PeerID, _ body: (inout Device, Slot) -> Void) {
        guard let slot = slot(id) else { return }
        body(&self, slot)
        reschedule(slot)
    }

    private mutating func stage(_ packet: [UInt8], _ slot: Slot, now: Instant) {
        guard slot.peer.isEnabled else { return dropCounters.add(.peerDisabled) }
        if slot.peer.staged.append(packet) { dropCounters.add(.stagedQueueFull) }
        if let keypair = slot.peer.sendingKeypair(at: now) {
            _ = sendStaged(slot, under: keypair, now: now)
        }
        if !slot.peer.staged.isEmpty, !slot.peer.isConfirmationDue { startHandshake(slot, now: now) }
    }

    /// The inbound thread has heard the key, and may have published it for sending. What is right is published again
    /// here, whatever has happened since.
    private mutating func confirm(localIndex: UInt32, _ slot: Slot, now: Instant) {
        let confirmation = slot.peer.confirm(localIndex: localIndex, at: now)
        if case .promoted = confirmation {
            // An initiation of our own that is still out is no longer needed.
            free(slot.peer.endInitiation())
        }
        if let keypair = slot.peer.keypairs.current {
            if case .promoted = confirmation { _ = sendStaged(slot, under: keypair, now: now) }
            beginSending(slot, under: keypair)
        }
        switch confirmation {
        case .notAwaited: return
        case .promoted(let retired), .outrun(let retired): retire(retired)
        }
        follow(slot)
        emit(.event(slot.peer.id, .handshakeCompleted(.responder)))
    }

    // MARK: Timers

    mutating func perform(_ action: Peer.TimeoutAction, _ slot: Slot, now: Instant) {
        switch action {
        case .retryInitiation:
            if let reason = slot.peer.lastFailure?.reason {
                emit(
                    .event(slot.peer.id, .initiationUnanswered(reason, at: slot.peer.initiationEndpoint)))
            }
            retryInitiation(slot, now: now)
        case .gaveUp(let dropped, let freeIndex):
            free(freeIndex)
            dropCounters.add(.stagedExpired, count: dropped)
            emit(.event(slot.peer.id, .handshakeGaveUp(dropped: dropped)))
        case .sendKeepalive: sendKeepalive(slot, now: now)
        case .startHandshake:
            slot.peer.path.forgetSource()
            startHandshake(slot, now: now)
        case .expired(let keypairs, let sessionEnded):
            if sessionEnded {
                slot.peer.path.publish(sending: nil)
                emit(.event(slot.peer.id, .sessionExpired))
            }
            retire(keypairs)
        case .wiped(let keypairs, let freeIndex):
            slot.peer.path.publish(sending: nil)
            retire(keypairs)
            free(freeIndex)
            emit(.event(slot.peer.id, .keyMaterialWiped))
        }
    }

    // MARK: Sending

    /// Without a session this asks for one; its first packet will do for a keepalive.
    mutating func sendKeepalive(_ slot: Slot, now: Instant) {
        guard let keypair = slot.peer.sendingKeypair(at: now) else { return startHandshake(slot, now: now) }
        sendKeepalive(slot, under: keypair, now: now)
    }

    /// Without a session nothing is sent, and none is asked for.
    package mutating func sendKeepalive(to id: PeerID, now: Instant) { _ = sendProbe([], to: id, now: now) }

    mutating func sendKeepalive(_ slot: Slot, under keypair: Keypair, now: Instant) {
        _ = send([], slot, under: keypair, now: now)
    }

    /// Seals an inner packet of control's own, past whatever is staged. False without a session: it is not
    /// staged, and asks for none.
    package mutating func sendProbe(_ packet: [UInt8], to id: PeerID, now: Instant) -> Bool {
        guard let slot = slot(id), let keypair = slot.peer.sendingKeypair(at: now) else { return false }
        defer { reschedule(slot) }
        return send(packet, slot, under: keypair, now: now)
    }

    /// True when at least one packet went. Those that found the key used up stay, oldest first.
    mutating func sendStaged(_ slot: Slot, under keypair: Keypair, now: Instant) -> Bool {
        var count = 0
        for packet in slot.peer.staged.takeAll() {
            if send(packet, slot, under: keypair, now: now) {
                count += 1
            } else {
                _ = slot.peer.staged.append(packet)
            }
        }
        return count > 0
    }

    /// False when the key is used up. An empty packet is a keepalive.
    private mutating func send(_ packet: [UInt8], _ slot: Slot, under keypair: Keypair, now: Instant) -> Bool
    {
        guard let underlay = slot.peer.path.underlay else {
            if !packet.isEmpty { dropCounters.add(.noEndpoint) }
            return true
        }
        defer { chacha.wipe() }
        let innerMTU = slot.peer.path.innerMTU
        let limit = innerMTU > 0 ? min(innerMTU, mtu) : mtu
        guard let message = keypair.seal(packet, mtu: limit, by: &chacha) else { return false }
        let isFirstData = slot.peer.path.noteSent(
            bytes: message.count, packets: 1, at: now, hasData: !packet.isEmpty)
        if isFirstData { slot.peer.dataSent(at: now, jitter: jitter()) }
        emit(.transmit(bytes: message, to: underlay, kind: .transport, peer: slot.peer.id))
        if slot.peer.isRekeyDue(at: now) { startHandshake(slot, now: now) }
        return true
    }
}
