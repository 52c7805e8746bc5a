internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// Probes out, answers in, and what they say of a tunnel.
extension ControlLoop {
    func send(_ probe: TunnelHealth.Probe, by peer: PeerID) {
        guard let record = tunnels[peer], let inside = record.inside else { return }
        if let target = probe.target {
            return ask(target, by: peer, sequence: probe.sequence, for: .health)
        }
        let packet = ProbePacket.echo(
            from: inside.local, to: inside.remote, secret: probeSecret, peer: peer,
            sequence: probe.sequence, silence: record.health.silence(now: now))
        if let packet { _ = device.sendProbe(packet, to: peer, now: now) }
    }

    /// `arrival` is the tunnel that the answer came by, which need not be the one that was asked.
    func probeWasAnswered(_ packet: [UInt8], length: Int, by arrival: PeerID, at: Instant) {
        guard
            let reply = ProbeReply(
                packet, length: length, secret: probeSecret, ports: ForwardingTable.probePorts),
            let (peer, use) = asked(for: reply, by: arrival), let settings = tunnels[peer]?.health.settings
        else { return device.dropCounters.add(.probeReplyUnexpected) }
        switch reply.kind {
        case .echo(_, .health):
            // By another way than the probe it says nothing of this one.
            guard peer == arrival else { return }
            noteAnswer(reply.sequence, target: nil, of: peer, at: at)
        case .echo(_, .pathMTU): pathMTUWasAnswered(reply.sequence, of: peer)
        case .echo(_, .drill): drillWasAnswered(.gateway, reply.sequence, by: arrival)
        case .echo, .synAck, .reset:
            switch use {
            case .health:
                noteAnswer(reply.sequence, target: settings.target(of: reply), of: peer, at: at)
            case .drill: drillWasAnswered(.target, reply.sequence, by: arrival)
            }
            if let reset = ProbePacket.reset(answering: packet, length: length) {
                _ = device.sendProbe(reset, to: peer, now: now)
            }
        }
    }

    /// Which tunnel was asked, and for what. Nil where the reply comes by another connection than the probe went, to
    /// another address than it came from, or from an address that was not asked.
    private func asked(
        for reply: ProbeReply, by arrival: PeerID
    ) -> (peer: PeerID, use: ProbePorts.Use)? {
        guard let name = tunnels[arrival]?.connection, let connection = state.connection(named: name) else {
            return nil
        }
        let peers = peers(of: connection)
        guard let (tunnel, use) = reply.asked(among: peers), let record = tunnels[peers[tunnel]],
            let inside = record.inside, reply.answers(inside: inside, settings: record.health.settings)
        else { return nil }
        return (peers[tunnel], use)
    }

    private func noteAnswer(_ sequence: UInt32, target: Int?, of peer: PeerID, at: Instant) {
        noteHeard(of: peer)
        tunnels[peer]?.health.handle(.probeAnswered(sequence: sequence, target: target, at: at), now: now)
        follow(peer)
    }

    func report(_ transition: TunnelHealth.Transition, of peer: PeerID) {
        guard let record = tunnels[peer] else { return }
        connectionChanged(record.connection)
        drillNotices(of: record.connection, tunnel: record.name, is: transition.to)
        switch transition.to {
        case .up: tunnels[peer]?.endpoints.works(now: now)
        case .down where transition.reason == .probeTimeout:
            tunnels[peer]?.endpoints.failed(now: now)
            // The far end may have lost the session, and cannot say so.
            tunnels[peer]?.wantsSession = true
        default: break
        }
        let caller = transition.reason == .operator ? orderer(of: record.connection) : nil
        var why = caller.map { "\($0.words) said so" } ?? transition.reason.words
        if transition.to == .down {
            if transition.reason == .interfaceDown { why = underlays.problem(of: record.socket) ?? why }
            if let problem = sendProblem(of: peer) { why += "; \(problem)" }
        }
        raise(
            Self.kind(of: transition.to), connection: record.connection, tunnel: record.name,
            from: transition.from.rawValue, to: transition.to.rawValue, reason: transition.reason.name,
            "\(record.name) is \(transition.to.rawValue): \(why)", details: caller?.details() ?? [:],
            isDrill: record.isDrilled, level: transition.to == .down && !record.isDrilled ? .warning : .info)
    }

    private static func kind(of state: HealthState) -> GatewayEvent.Kind {
        switch state {
        case .disabled: .tunnelDisabled
        case .idle: .tunnelIdle
        case .connecting: .tunnelConnecting
        case .up: .tunnelUp
        case .degraded: .tunnelDegraded
        case .down: .tunnelDown
        }
    }
}
