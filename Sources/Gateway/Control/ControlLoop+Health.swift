internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// Probes out, answers in, and what they say of a tunnel.
extension ControlLoop {
    func send(_ probe: TunnelHealth.Probe, by peer: PeerID) {
        guard let record = tunnels[peer], let inside = record.inside else { return }
        let target = probe.target.flatMap { number in
            state.connection(named: record.connection)?.health.targets[number]
        }
        let packet = ProbePacket.make(
            from: inside.local, to: target ?? .echo(inside.remote), token: probeToken, peer: peer,
            sequence: probe.sequence, target: probe.target)
        _ = device.sendProbe(packet, to: peer, now: now)
    }

    func probeWasAnswered(_ packet: [UInt8], length: Int, at: Instant) {
        guard let answer = ProbePacket.parse(packet, length: length, token: probeToken) else { return }
        tunnels[answer.peer]?.health.handle(.answered(answer.sequence, target: answer.target, at: at), now: now)
        follow(answer.peer)
    }

    func report(_ transition: TunnelHealth.Transition, of peer: PeerID) {
        guard let record = tunnels[peer] else { return }
        connectionChanged(record.connection)
        if transition.to == .down { tunnels[peer]?.endpoints.failed(now: now) }
        if transition.to == .up { tunnels[peer]?.endpoints.works(now: now) }
        raise(
            transition.kind, connection: record.connection, tunnel: record.name, from: transition.from.name,
            to: transition.to.name, reason: transition.reason.name,
            "\(record.name) is \(transition.to.name): \(transition.reason)",
            level: transition.to == .down ? .warning : .info)
    }
}
