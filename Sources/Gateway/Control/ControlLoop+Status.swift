internal import ControlAPI
internal import DataPlane
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
            isInterfaceUp: isInterfaceUp, mtu: mtu,
            addresses: settings.plan.addresses.map(\.description), listenPort: underlays.port,
            publicKey: state.privateKey?.publicKey.base64,
            firewallMark: state.firewallMark == 0 ? nil : state.firewallMark,
            uptime: seconds(since: startedAt),
            offloads: OffloadStatus(
                udpGSO: udp.contains { $0.gso }, udpGRO: udp.contains { $0.gro }, tunTSO: tun.offloads.tso,
                tunUSO: tun.offloads.uso),
            workers: underlays.workers, isSingleThreaded: dataPlane.isSingleThreaded,
            connections: state.connections.map { self.status(of: $0) }, drops: drops)
        let notices =
            [namespaceNotice, wgNotice].compactMap(\.self) + ruleNotices + forwardingNotices + refusalNotices
            + sourceNotices + lostAnswerNotices
        if !notices.isEmpty { status.notices = notices }
        status.hooks = hooks?.counts
        if learned != nil { status.guarded = guardedPrefixes.map(\.description) }
        status.routeTable = settings.plan.table
        if keeper.repairs > 0 { status.repairs = keeper.repairs }
        if !keeper.missingAddresses.isEmpty {
            status.missingAddresses = keeper.missingAddresses.map { address, failure in
                MissingAddress(
                    address: address.description, reason: words(failure, of: address.family))
            }.sorted { $0.address < $1.address }
        }
        return status
    }

    /// In another namespace it is not ours to know.
    private var isInterfaceUp: Bool { isLinkUp || !isTunHere }

    private func status(of connection: Connection) -> ConnectionStatus {
        let tunnels = connection.tunnels.compactMap { self.status(of: $0, in: connection) }
        let states = Set(tunnels.map(\.state))
        let isSomeAnswering = peers(of: connection).contains {
            self.tunnels[$0]?.health.liveness == .answering
        }
        let state: ConnectionStatus.State =
            if !isInterfaceUp || connections[connection.name]?.selection.isUsable == false {
                .down
            } else if isSomeAnswering {
                .up
            } else if !states.isDisjoint(with: [.down, .disabled]) {
                .down
            } else {
                .idle
            }
        var status = ConnectionStatus(
            name: connection.name, state: state, routes: connection.prefixes.map(\.description),
            policy: connection.policy.rawValue, tunnels: tunnels)
        if keeper.installsRoutes { status.onDown = connection.onDown.rawValue }
        let notices = notices(of: connection)
        if !notices.isEmpty { status.notices = notices }
        status.metric = connection.metric
        status.rto = connection.recoveryTimeObjective?.seconds
        if let record = connections[connection.name] {
            status.isUsable = record.selection.isUsable
            status.activeTunnels = tunnels.filter { $0.isActive == true }.map(\.name)
            status.since = seconds(since: record.since)
            status.flaps = record.failures
        }
        return status
    }

    private func notices(of connection: Connection) -> [String] {
        let silence = connections[connection.name]?.silentTargetsSource.map(Self.silence)
        let leftOut = connection.prefixes.compactMap { prefix in
            self.leftOut[prefix].map { "\(prefix) is left out: \(Self.words($0, prefix))" }
        }
        let sharing = peers(of: connection).compactMap { sharedKeyWords(of: $0) }
        return [silence].compactMap(\.self) + leftOut + foreignNotices(of: connection) + sharing
    }

    func status(of tunnel: Tunnel, in connection: Connection) -> TunnelStatus? {
        guard let peer = tunnels.peer(named: tunnel.name), let record = tunnels[peer],
            let status = device.status(of: peer)
        else { return nil }
        let names = tunnel.endpoints.filter { if case .name = $0 { true } else { false } }
        let isFine = record.health.state == .up && sendProblem(of: peer) == nil
        var answer = TunnelStatus(
            name: tunnel.name, connection: connection.name, publicKey: tunnel.publicKey.base64,
            hasPresharedKey: !tunnel.presharedKey.isNone, cipher: tunnel.cipher.rawValue,
            state: Self.state(record.health.state), reason: isFine ? nil : reason(of: peer),
            hint: isFine ? nil : hint(for: status), endpoint: status.underlay?.endpoint.description,
            configuredEndpoint: names.first?.description,
            lastHandshake: status.lastHandshake.map { unixNanoseconds(of: $0) / 1_000_000_000 },
            lastHandshakeAge: status.lastHandshake.map { seconds(since: $0) }, rxBytes: status.receivedBytes,
            txBytes: status.transmittedBytes, rxPackets: status.receivedPackets,
            txPackets: status.transmittedPackets,
            lastReceivedAge: device.path(of: peer)?.lastReceived.map { seconds(since: $0) },
            persistentKeepalive: tunnel.persistentKeepalive, stagedPackets: status.stagedPackets)
        answer.since = seconds(since: record.health.since)
        answer.reasonCode = record.health.reason.name
        answer.priority = tunnel.priority
        answer.weight = tunnel.weight
        answer.underlayDevice = tunnel.binding.device
        answer.insideLocal = tunnel.inside?.local.description
        answer.insideRemote = tunnel.inside?.remote.description
        if let selected = connections[connection.name] {
            // What is chosen while nothing works carries nothing: its connection's routes lead elsewhere, or packets wait.
            answer.isActive =
                selected.selection.isUsable && record.health.hasSession
                && activeTunnels(of: connection, by: selected.selection).contains(tunnel.name)
            answer.isPreferred = selected.preferred == tunnel.name
        }
        answer.isProbed = record.health.isProbed
        if !record.health.isProbed {
            answer.notProbed = tunnel.inside == nil ? "no inside addresses" : "health is off"
        } else {
            // While nothing is answered, the figures are of another time.
            if record.health.liveness == .answering { answer.windows = windows(of: record.health) }
            answer.pathMTU = record.pathMTU?.found
            if answer.pathMTU == nil { answer.assumedMTU = record.pathMTU?.innerMTU }
            answer.holdDown = record.health.holdDownLeft(now: now)?.seconds
        }
        return answer
    }

    /// After a step of the wall clock an age by it is right all the same.
    func unixNanoseconds(of instant: Instant) -> Int64 {
        WallClock.unixNanoseconds(of: instant, realtimeOffset: device.realtimeOffset)
    }

    private func windows(of health: TunnelHealth) -> [WindowStatus] {
        let statistics = health.statistics(now: now)
        return [
            Self.window(1, statistics.second), Self.window(10, statistics.tenSeconds),
            Self.window(60, statistics.minute),
        ]
    }

    private static func window(_ seconds: Int, _ window: ProbeStatistics.Window) -> WindowStatus {
        WindowStatus(
            seconds: seconds, roundTrip: window.roundTrip?.seconds, jitter: window.jitter?.seconds,
            loss: window.loss)
    }

    private static func state(_ state: HealthState) -> TunnelStatus.State {
        switch state {
        case .disabled: .disabled
        case .idle: .idle
        case .connecting: .connecting
        case .up: .up
        case .degraded: .degraded
        case .down: .down
        }
    }

    /// Nil where nothing is wrong.
    func reason(of peer: PeerID) -> String? {
        guard let status = device.status(of: peer) else { return nil }
        guard let record = tunnels[peer] else { return nil }
        switch record.health.reason {
        case .operator where record.health.state == .disabled: return "an operator took it down"
        case .interfaceDown where record.health.state == .down:
            return underlays.problem(of: record.socket) ?? record.health.reason.words
        default: break
        }
        if let problem = sendProblem(of: peer) { return problem.description }
        switch record.health.reason {
        case .probeTimeout where record.health.liveness == .answering:
            guard let left = record.health.holdDownLeft(now: now)?.seconds else {
                return "probes are answered again, but fewer in a row than bring it up"
            }
            let seconds = max(1, Int(left.rounded(.up)))
            guard !record.health.isHoldDownInterrupted else {
                return
                    "probes are answered again, but for some that are lost; it has flapped, and is used only where no "
                    + "other tunnel is up until each is answered for \(seconds) s"
            }
            return
                "probes are answered again; it has flapped, and for \(seconds) s more it is used only where no other "
                + "tunnel is up"
        case .probeTimeout where record.health.state == .down:
            let remote = record.inside.map { " by \($0.remote)" } ?? ""
            let silence = "probes are not answered\(remote) for \(span(since: record.health.since))"
            guard record.health.liveness == .heard else { return silence }
            return silence + ", though the far end is heard: what this end sends may be lost"
        case .targetUnreachable, .lossTooHigh, .roundTripTooLong: return record.health.reason.words
        default: break
        }
        if let problem = record.endpoints.problem, status.underlay == nil { return problem }
        if state.privateKey == nil { return "this gateway has no private key" }
        // It spoke, though this end may not know from where.
        if case .dropped(.cipherMismatch) = status.lastFailure {
            let theirs = status.foreignCipher?.rawValue ?? "another"
            return "the far end uses cipher \(theirs), this end \(status.cipher.rawValue)"
        }
        guard let endpoint = status.underlay?.endpoint else {
            if let names = record.endpoints.awaitedNames { return "looking up \(names)" }
            return "the far end's endpoint is not known: it must speak first"
        }
        switch status.lastFailure {
        case .noReply:
            let waiting = record.askingSince.map { " for \(span(since: $0))" } ?? ""
            // Its handshakes began only some time after it had fallen silent.
            let silence = device.path(of: peer)?.lastReceived.map {
                ", and nothing heard for \(span(since: $0))"
            }
            return "no answer from \(endpoint)\(waiting)\(silence ?? "")"
        case .noPrivateKey: return "this gateway has no private key"
        case .noFreeIndex: return "too many sessions"
        case .dropped(let reason): return "a handshake with \(endpoint) was refused: \(reason.name)"
        // It was not known then, and is now.
        case .noEndpoint, nil:
            return if case .handshaking = status.state { "waiting for an answer from \(endpoint)" } else {
                nil
            }
        }
    }

    private func hint(for status: PeerStatus) -> String? {
        if let record = tunnels[status.id], record.health.reason == .interfaceDown,
            let remedy = underlays.remedy(of: record.socket)
        {
            return remedy
        }
        if let problem = sendProblem(of: status.id) { return problem.remedy }
        // Handshakes that have failed before say nothing of one that works.
        guard tunnels[status.id]?.health.liveness != .answering else { return nil }
        if tunnels[status.id]?.endpoints.problem != nil, let stubHint { return stubHint }
        if status.lastFailure == .noReply, let problem = returnProblem(of: status.id) {
            return "\(problem): \(problem.remedy)"
        }
        if status.underlay == nil, let stranger = latestStranger {
            let key = stranger.key.map { ": its key \($0.base64) is not the one that is configured here" }
            return "is the far end the one at \(stranger.endpoint), which is refused"
                + (key ?? ", as it has another public key for this gateway") + "?"
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

    private func span(since instant: Instant) -> String { TimeText.span(seconds(since: instant)) }

    private func seconds(since instant: Instant) -> Double {
        now > instant ? Double(now.nanoseconds &- instant.nanoseconds) / 1e9 : 0
    }
}
