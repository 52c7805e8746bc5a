internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// The gateway in the words of the control API.
extension ControlLoop {
    func gatewayStatus() -> GatewayStatus {
        var drops: [String: UInt64] = [:]
        for counted in [device.drops, dataPlane.drops, requestDrops.snapshot] {
            for (reason, count) in counted { drops[reason.name, default: 0] += count }
        }
        let overflow = queueDropsBefore + underlays.groups.queueDrops
        if overflow > 0 { drops[DropReason.receiveQueueFull.name, default: 0] += overflow }
        let udp = underlays.groups.present.flatMap(\.group.workers).flatMap(\.sockets).map(\.offloads)
        var status = GatewayStatus(
            version: Daemon.version, name: settings.name,
            interface: isTunHere ? tun.name : settings.interface,
            // In another namespace it is not ours to know.
            isInterfaceUp: isLinkUp || !isTunHere, mtu: mtu,
            addresses: settings.plan.addresses.map(\.description), listenPort: underlays.port,
            publicKey: state.privateKey?.publicKey.base64,
            firewallMark: state.firewallMark == 0 ? nil : state.firewallMark,
            uptime: seconds(since: startedAt),
            offloads: OffloadStatus(
                udpGSO: udp.contains { $0.gso }, udpGRO: udp.contains { $0.gro }, tunTSO: tun.offloads.tso,
                tunUSO: tun.offloads.uso),
            workers: underlays.workers, isSingleThreaded: dataPlane.isSingleThreaded,
            connections: state.connections.map { self.status(of: $0) }, drops: drops)
        status.hooks = hooks?.counts
        return status
    }

    private func status(of connection: Connection) -> ConnectionStatus {
        let tunnels = connection.tunnels.compactMap { status(of: $0, in: connection) }
        let state: ConnectionStatus.State =
            if tunnels.contains(where: { $0.state == .up }) {
                .up
            } else if tunnels.contains(where: { $0.state == .down }) {
                .down
            } else {
                .idle
            }
        return ConnectionStatus(
            name: connection.name, state: state, routes: connection.prefixes.map(\.description),
            policy: connection.policy.rawValue, tunnels: tunnels)
    }

    private func status(of tunnel: Tunnel, in connection: Connection) -> TunnelStatus? {
        guard let peer = device.peerID(for: tunnel.publicKey), let status = device.status(of: peer) else {
            return nil
        }
        var configured: String?
        if case .name = tunnel.endpoint { configured = tunnel.endpoint?.description }
        let state = state(of: status)
        return TunnelStatus(
            name: tunnel.name, connection: connection.name, publicKey: tunnel.publicKey.base64,
            hasPresharedKey: !tunnel.presharedKey.isNone, cipher: tunnel.cipher.rawValue, state: state,
            reason: state == .up ? nil : reason(of: peer),
            hint: state == .up ? nil : hint(for: status), endpoint: status.underlay?.endpoint.description,
            configuredEndpoint: configured,
            lastHandshake: tunnels[peer]?.handshakeAt.map { $0 / 1_000_000_000 },
            lastHandshakeAge: status.lastHandshake.map { seconds(since: $0) }, rxBytes: status.receivedBytes,
            txBytes: status.transmittedBytes, rxPackets: status.receivedPackets,
            txPackets: status.transmittedPackets,
            lastReceivedAge: device.path(of: peer)?.lastReceived.map { seconds(since: $0) },
            persistentKeepalive: tunnel.persistentKeepalive, stagedPackets: status.stagedPackets)
    }

    private func state(of status: PeerStatus) -> TunnelStatus.State {
        switch status.state {
        case .established: isUnanswered(status) ? .down : .up
        case .handshaking: status.lastFailure == nil ? .connecting : .down
        case .idle: status.lastFailure == nil && tunnels[status.id]?.nameProblem == nil ? .idle : .down
        }
    }

    /// A session in which nobody answers any more, neither to data nor to handshakes, though it has not expired.
    private func isUnanswered(_ status: PeerStatus) -> Bool {
        guard let asking = tunnels[status.id]?.askingSince, now > asking + Protocol.rekeyTimeout else {
            return false
        }
        guard let heard = device.path(of: status.id)?.lastReceived else { return true }
        return now > heard + Protocol.deadPeerTimeout
    }

    /// Nil where nothing is wrong.
    func reason(of peer: PeerID) -> String? {
        guard let status = device.status(of: peer) else { return nil }
        if let problem = tunnels[peer]?.nameProblem, status.underlay == nil { return problem }
        if state.privateKey == nil { return "this gateway has no private key" }
        guard let endpoint = status.underlay?.endpoint else {
            return "the far end's endpoint is not known: it must speak first"
        }
        if let code = tunnels[peer]?.sendProblem {
            return "sending to \(endpoint) fails: \(SystemError.text(code))"
        }
        switch status.lastFailure {
        case .noReply:
            let waiting = tunnels[peer]?.askingSince.map { " for \(Int(seconds(since: $0))) s" } ?? ""
            return "no answer from \(endpoint)\(waiting)"
        case .noEndpoint: return "the far end's endpoint is not known: it must speak first"
        case .noPrivateKey: return "this gateway has no private key"
        case .noFreeIndex: return "too many sessions"
        case .dropped(.cipherMismatch):
            let theirs = status.foreignCipher?.rawValue ?? "another"
            return "the far end uses cipher \(theirs), this end \(status.cipher.rawValue)"
        case .dropped(let reason): return "a handshake with \(endpoint) was refused: \(reason.name)"
        case nil:
            return if case .handshaking = status.state { "waiting for an answer from \(endpoint)" } else {
                nil
            }
        }
    }

    private func hint(for status: PeerStatus) -> String? {
        if tunnels[status.id]?.sendProblem != nil, let address = status.underlay?.endpoint.address {
            return "see 'ip route get \(address)' and the firewall of this host"
        }
        return switch status.lastFailure {
        case .noReply where status.cipher != .chacha20Poly1305:
            "is the far end a running vgwd with cipher \(status.cipher.rawValue) too, does UDP get there, and does it "
                + "know this gateway's public key?"
        case .noReply:
            "is the far end running, does UDP get there, and does it know this gateway's public key?"
        case .dropped(.cipherMismatch): "nothing is negotiated: write the same cipher at both ends"
        case .dropped(.handshakeDecryptionFailed):
            "the keys, or the pre-shared keys, of the two ends do not match"
        case .dropped(.mac1Invalid): "the far end has another public key for this gateway"
        case .dropped(.timestampNotNewer): "the far end's clock was set back, or its handshake was replayed"
        case .dropped(.peerUnknown): "the far end's public key is not configured here"
        default: nil
        }
    }

    private func seconds(since instant: Instant) -> Double {
        now > instant ? Double(now.nanoseconds &- instant.nanoseconds) / 1e9 : 0
    }
}
