internal import LinuxIO
internal import Logging
internal import WireGuard

/// Between the device and the world: peers in, messages and events out.
extension ControlLoop {
    /// AF41, for what must not wait behind data (RFC 2597).
    private static let handshakeClass: UInt8 = 0x88
    /// Between two lines about a change of endpoint.
    private static let roamingInterval: Duration = .seconds(1)

    func addPeer(_ tunnel: Tunnel) {
        var underlay: UnderlayPath?
        if case .address(let endpoint) = tunnel.endpoint { underlay = UnderlayPath(endpoint: endpoint) }
        let peer = device.addPeer(
            PeerConfiguration(
                publicKey: tunnel.publicKey, presharedKey: tunnel.presharedKey, cipher: tunnel.cipher,
                underlay: underlay, persistentKeepalive: tunnel.persistentKeepalive), now: now)
        guard let peer else {
            log.error(
                "tunnel cannot be added: its public key is our own", metadata: ["tunnel": "\(tunnel.name)"])
            return
        }
        let connection = state.connection(of: tunnel.publicKey)?.name ?? tunnel.name
        notes[peer] = PeerNotes(connection: connection, tunnel: tunnel.name)
        if case .name = tunnel.endpoint { notes[peer]?.resolveAt = now }
    }

    func removePeer(_ key: PublicKey) {
        guard let peer = device.peerID(for: key) else { return }
        device.removePeer(peer, now: now)
        notes[peer] = nil
    }

    /// After every change of connections, prefixes or MTU.
    func publishForwarding() {
        let connections = state.connections.map { connection in
            ForwardingTable.Connection(
                prefixes: connection.prefixes,
                paths: connection.tunnels.compactMap { tunnel in
                    device.peerID(for: tunnel.publicKey).flatMap { device.path(of: $0) }
                })
        }
        dataPlane.publish(ForwardingTable(connections: connections, mtu: mtu))
    }

    /// Takes everything out of the device. Handshakes go to the wire only after the floor on disk covers
    /// them.
    func flush() {
        timestamps.keep(device.lastTimestamp, unixNanoseconds: SystemClock.unixNanoseconds())
        while let output = device.poll() {
            switch output {
            case .transmit(let bytes, let underlay, let kind, let peer): transmit(bytes, underlay, kind, peer)
            case .event(let peer, let event): report(event, of: peer)
            }
        }
    }

    private func transmit(_ bytes: [UInt8], _ underlay: UnderlayPath, _ kind: Device.Kind, _ peer: PeerID?) {
        guard let socket = sockets.control.socket(for: underlay.endpoint.address.family) else {
            device.dropCounters.add(.sendFailed)
            return
        }
        let result = socket.send(
            bytes, to: underlay, trafficClass: kind == .handshake ? Self.handshakeClass : 0)
        switch result {
        case .sent: note(sendProblem: nil, of: peer)
        case .sourceInvalid:
            if let peer { device.path(of: peer)?.forgetSource() }
            note(sendProblem: nil, of: peer)
        case .tooBig: device.dropCounters.add(.sendTooBig)
        case .failed(let code):
            device.dropCounters.add(.sendFailed)
            note(sendProblem: code, of: peer)
        }
    }

    /// A line when it begins, when it changes and when it ends.
    private func note(sendProblem code: Int32?, of peer: PeerID?) {
        guard let peer, notes[peer]?.sendProblem != code else { return }
        notes[peer]?.sendProblem = code
        if let code {
            log.warning(
                "sending fails", metadata: names(of: peer, adding: ["error": "\(SystemError.text(code))"]))
        } else {
            log.notice("sending works again", metadata: names(of: peer))
        }
    }

    private func report(_ event: PeerEvent, of peer: PeerID) {
        switch event {
        case .handshakeStarted:
            if notes[peer]?.askingSince == nil { notes[peer]?.askingSince = now }
            log.debug("handshake started", metadata: names(of: peer))
        case .handshakeCompleted(let role):
            let isNew = notes[peer]?.isUp != true
            notes[peer]?.isUp = true
            notes[peer]?.handshakeAt = Int64(truncatingIfNeeded: now.nanoseconds) &+ device.realtimeOffset
            notes[peer]?.hasGivenUp = false
            notes[peer]?.askingSince = nil
            let endpoint = device.path(of: peer)?.underlay.map { "\($0.endpoint)" } ?? "unknown"
            log.log(
                level: isNew ? .info : .debug, isNew ? "tunnel up" : "session renewed",
                metadata: names(of: peer, adding: ["role": "\(role)", "endpoint": "\(endpoint)"]))
        case .handshakeGaveUp(let dropped):
            let isNew = notes[peer]?.hasGivenUp != true
            notes[peer]?.hasGivenUp = true
            log.log(
                level: isNew ? .warning : .debug, "no answer to handshakes",
                metadata: names(
                    of: peer, adding: ["reason": "\(reason(of: peer) ?? "unknown")", "dropped": "\(dropped)"])
            )
        case .sessionExpired:
            notes[peer]?.isUp = false
            log.info("tunnel idle: its session has expired", metadata: names(of: peer))
        case .keyMaterialWiped:
            notes[peer]?.isUp = false
            log.debug("session keys wiped", metadata: names(of: peer))
        case .roamed(let underlay): report(underlay.endpoint, of: peer)
        case .removedAsOurself:
            log.warning("peer removed: it has our own public key", metadata: names(of: peer))
        }
    }

    /// A peer that comes from two places in turn, or two that share its key, would write a line a batch.
    private func report(_ endpoint: Endpoint, of peer: PeerID) {
        guard now >= notes[peer]?.roamingQuietUntil ?? now else {
            notes[peer]?.roamsUnreported += 1
            return
        }
        var metadata: Logger.Metadata = ["endpoint": "\(endpoint)"]
        if let left = notes[peer]?.roamsUnreported, left > 0 { metadata["unreported"] = "\(left)" }
        log.info("endpoint changed", metadata: names(of: peer, adding: metadata))
        notes[peer]?.roamingQuietUntil = now + Self.roamingInterval
        notes[peer]?.roamsUnreported = 0
    }

    func names(of peer: PeerID, adding more: Logger.Metadata = [:]) -> Logger.Metadata {
        var metadata: Logger.Metadata = more
        metadata["connection"] = "\(notes[peer]?.connection ?? "removed")"
        metadata["tunnel"] = "\(notes[peer]?.tunnel ?? "removed")"
        return metadata
    }
}
