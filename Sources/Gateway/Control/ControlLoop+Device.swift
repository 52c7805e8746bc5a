internal import LinuxIO
internal import Logging
internal import WireGuard

/// Between the device and the world: peers in, messages and events out.
extension ControlLoop {
    /// AF41, for what must not wait behind data (RFC 2597).
    private static let handshakeTOS: UInt8 = 0x88
    /// Between two lines about a change of endpoint.
    private static let roamingInterval: Duration = .seconds(1)

    func handle(_ event: DatapathEvent) {
        switch event {
        case .probeReply(let peer, let packet, let length, let at):
            probeWasAnswered(packet, length: length, by: peer, at: at)
        case .sendTooBig(let peer): sendWasTooBig(peer)
        case .sourceRefused(let peer, let packet, let length):
            sourceWasRefused(packet, length: length, by: peer)
        case .stray(let message, let underlay, let tos):
            passOn(message, from: underlay, tos: tos)
        default: device.handle(event, now: now)
        }
    }

    /// Takes everything out of the device. Handshakes go to the wire only after the floor on disk covers
    /// them.
    func flush() {
        while let output = device.poll() {
            switch output {
            case .transmit(let bytes, let underlay, let kind, let peer): transmit(bytes, underlay, kind, peer)
            case .event(let peer, let event): report(event, of: peer)
            case .trace(let trace): log(trace)
            }
        }
    }

    /// For LOG_LEVEL=debug: each message of a handshake, at both ends.
    private func log(_ trace: HandshakeTrace) {
        var metadata: Logger.Metadata = ["endpoint": "\(trace.endpoint)"]
        let message: Logger.Message
        switch trace.step {
        case .initiationSent(let number):
            metadata["number"] = "\(number)"
            message = "handshake initiation sent"
        case .initiationReceived: message = "handshake initiation received"
        case .responseSent: message = "handshake response sent"
        case .responseReceived: message = "handshake response received"
        case .cookieSent: message = "handshake cookie sent: this end is under load"
        case .cookieReceived: message = "handshake cookie received: the far end is under load"
        case .refused(let reason, let key):
            metadata["reason"] = "\(reason.name)"
            metadata["key"] = key.map { "\($0.base64)" }
            message = "handshake message refused"
        }
        log.debug(message, metadata: trace.peer.map { names(of: $0, adding: metadata) } ?? metadata)
    }

    private func transmit(_ bytes: [UInt8], _ underlay: UnderlayPath, _ kind: Device.Kind, _ peer: PeerID?) {
        if let peer, device.path(of: peer)?.isCut == true { return device.dropCounters.add(.drilled) }
        guard let socket = underlays.groups.controlSocket(for: underlay) else {
            device.dropCounters.add(.sendFailed)
            return
        }
        if kind == .handshake {
            timestamps.keep(device.lastTimestamp, unixNanoseconds: SystemClock.unixNanoseconds())
        }
        let result = socket.send(
            bytes, to: underlay, tos: kind == .handshake ? Self.handshakeTOS : 0)
        switch result {
        case .sent: noteSent(by: peer)
        case .sourceInvalid:
            if let peer { device.path(of: peer)?.forgetSource() }
            noteSent(by: peer)
        case .tooBig:
            device.dropCounters.add(.sendTooBig)
            if let peer { sendWasTooBig(peer) }
        case .failed(let code):
            device.dropCounters.add(.sendFailed)
            if let peer { tunnels[peer]?.sendError = code }
        }
    }

    private func report(_ event: PeerEvent, of peer: PeerID) {
        switch event {
        case .handshakeStarted:
            if tunnels[peer]?.askingSince == nil { tunnels[peer]?.askingSince = now }
            tunnels[peer]?.health.handle(.handshakeStarted, now: now)
            follow(peer)
        case .handshakeCompleted(let role):
            let isNew = tunnels[peer]?.isUp != true
            tunnels[peer]?.isUp = true
            tunnels[peer]?.hasGivenUp = false
            tunnels[peer]?.askingSince = nil
            let endpoint = device.path(of: peer)?.underlay.map { "\($0.endpoint)" } ?? "unknown"
            log.log(
                level: isNew ? .info : .debug, isNew ? "session begun" : "session renewed",
                metadata: names(of: peer, adding: ["role": "\(role)", "endpoint": "\(endpoint)"]))
            tunnels[peer]?.health.handle(.sessionBegun, now: now)
            if let endpoint = device.path(of: peer)?.underlay?.endpoint {
                tunnels[peer]?.endpoints.roamed(to: endpoint, now: now)
            }
            noteEndpoint(of: peer)
            lookForSharedKey(peer)
            tunnels[peer]?.pathMTU?.sessionBegan(now: now)
            follow(peer)
        case .initiationUnanswered(let failure, let endpoint):
            // One that was tested elsewhere says nothing of the tunnel as it is, nor of the endpoint in use.
            let current = tunnels[peer]?.endpoints.current
            if let endpoint, let current, endpoint != current { return }
            // What passes tells more than a rekey that was lost; without probes nothing else has told of it.
            noteHeard(of: peer)
            tunnels[peer]?.health.handle(.handshakeUnanswered(HealthReason(failure)), now: now)
            // A rekey that was lost while packets pass says nothing of the endpoint either.
            if endpoint == current, tunnels[peer]?.health.liveness != .answering {
                tunnels[peer]?.endpoints.failed(now: now)
            }
            follow(peer)
        case .handshakeGaveUp(let dropped):
            let isNew = tunnels[peer]?.hasGivenUp != true
            tunnels[peer]?.hasGivenUp = true
            var metadata: Logger.Metadata = [
                "reason": "\(reason(of: peer) ?? "unknown")", "dropped": "\(dropped)",
            ]
            if let problem = returnProblem(of: peer) { metadata["hint"] = "\(problem): \(problem.remedy)" }
            log.log(
                level: isNew ? .warning : .debug, "no answer to handshakes",
                metadata: names(of: peer, adding: metadata))
            // Nobody sends into a connection whose routes say that it is down: so nothing but this would bring
            // it back.
            askAhead(peer)
        case .sessionExpired:
            tunnels[peer]?.isUp = false
            log.info("session has expired", metadata: names(of: peer))
            sessionEnded(of: peer)
        case .keyMaterialWiped:
            tunnels[peer]?.isUp = false
            log.debug("session keys wiped", metadata: names(of: peer))
            sessionEnded(of: peer)
        case .roamed(let underlay):
            tunnels[peer]?.endpoints.roamed(to: underlay.endpoint, now: now)
            tunnels[peer]?.pathMTU?.pathChanged(now: now)
            noteEndpoint(of: peer)
            follow(peer)
            lookForSharedKey(peer)
            report(underlay.endpoint, of: peer)
        case .removedAsOurself:
            log.warning("peer removed: it has our own public key", metadata: names(of: peer))
            if let name = tunnels[peer]?.connection { connectionChanged(name) }
            tunnels.remove(peer)
        }
    }

    /// Asks for a session before there is anything to send, so that the first packet need not wait for it. Not for an
    /// interface that `wg` alone sets up: there a packet or a persistent keepalive asks, as in the kernel.
    func askAhead(_ peer: PeerID) {
        if settings.managesLink { device.initiate(peer, now: now) }
    }

    /// One that is probed wants the next at once: nobody else asks for it.
    private func sessionEnded(of peer: PeerID) {
        tunnels[peer]?.health.handle(.sessionEnded, now: now)
        tunnels[peer]?.pathMTU?.sessionEnded()
        follow(peer)
        if tunnels[peer]?.inside != nil { askAhead(peer) }
    }

    /// A peer that comes from two places in turn would write a line a batch. Of two that share its key all is told.
    private func report(_ endpoint: Endpoint, of peer: PeerID) {
        guard tunnels[peer]?.sharing.hosts.isEmpty == true else { return }
        guard now >= tunnels[peer]?.roamingQuietUntil ?? now else {
            tunnels[peer]?.roamsUnreported += 1
            return
        }
        var metadata: Logger.Metadata = ["endpoint": "\(endpoint)"]
        if let left = tunnels[peer]?.roamsUnreported, left > 0 { metadata["unreported"] = "\(left)" }
        log.info("endpoint changed", metadata: names(of: peer, adding: metadata))
        tunnels[peer]?.roamingQuietUntil = now + Self.roamingInterval
        tunnels[peer]?.roamsUnreported = 0
    }

    func names(of peer: PeerID, adding more: Logger.Metadata = [:]) -> Logger.Metadata {
        var metadata: Logger.Metadata = more
        metadata["connection"] = "\(tunnels[peer]?.connection ?? "removed")"
        metadata["tunnel"] = "\(tunnels[peer]?.name ?? "removed")"
        return metadata
    }
}

extension HealthReason {
    /// Why there is no session, in the words of a tunnel's health.
    fileprivate init(_ failure: HandshakeFailure) {
        self =
            switch failure {
            case .noEndpoint: .endpointUnknown
            case .dropped(.mac1Invalid): .mac1Wrong
            case .dropped(.timestampNotNewer): .timestampNotNewer
            case .dropped: .handshakeRefused
            case .noReply, .noPrivateKey, .noFreeIndex: .noReplyToHandshake
            }
    }
}
