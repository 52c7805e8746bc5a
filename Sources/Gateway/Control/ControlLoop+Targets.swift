internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// Health targets, which are the connection's: they choose among its tunnels (``OtherTunnels``), and when they are
/// silent by all of them, that is said and no more.
extension ControlLoop {
    func compareTargets(of connection: Connection) {
        let peers = peers(of: connection)
        for peer in peers {
            let others = peers.filter { $0 != peer }.compactMap { tunnels[$0]?.health }
            let seen = OtherTunnels(others.map { ($0.liveness == .answering, $0.targetReach) })
            tunnels[peer]?.health.handle(.others(seen), now: now)
            follow(peer)
        }
        let healths = peers.compactMap { tunnels[$0]?.health }
        let areSilent = TargetReach.areSilent(healths.map { ($0.isWorking, $0.targetReach) })
        let wereSilent = connections[connection.name]?.silentTargetsSource != nil
        switch (wereSilent, areSilent) {
        case (false, true?):
            let sources = connection.tunnels.compactMap(\.inside).map(connection.health.source)
            let source = Set(sources).map(\.description).sorted().joined(separator: " and ")
            connections[connection.name]?.silentTargetsSource = source
            raise(
                .targetsUnanswered, connection: connection.name, reason: HealthReason.targetUnreachable.name,
                "\(connection.name): \(Self.silence(source))", details: ["source": source], level: .warning)
        case (true, false?):
            connections[connection.name]?.silentTargetsSource = nil
            raise(
                .targetsAnswered, connection: connection.name, "targets of \(connection.name) answer again",
                level: .notice)
        default: break
        }
    }

    static func silence(_ source: String) -> String {
        "targets do not answer by any tunnel: is there a way back to \(source)?"
    }

    /// Asks a target of the tunnel's connection, by an index into them, through the tunnel.
    func ask(_ target: Int, by peer: PeerID, sequence: UInt32, for use: ProbePorts.Use) {
        guard let record = tunnels[peer], let inside = record.inside,
            let connection = state.connection(named: record.connection)
        else { return }
        let settings = record.health.settings
        let source = settings.source(by: inside)
        let packet: [UInt8]?
        switch settings.targets[target] {
        case .echo(let address):
            packet = ProbePacket.echo(
                from: source, to: address, secret: probeSecret, peer: peer, sequence: sequence,
                purpose: use == .drill ? .drillTarget : .target(target))
        case .tcp(let address, let port):
            let peers = peers(of: connection)
            let ports = ProbePorts(ForwardingTable.probePorts, tunnels: peers.count)
            packet = ProbePacket.syn(
                from: source, to: address, port: port, secret: probeSecret, sequence: sequence,
                ports: ports.ports(of: peers.firstIndex(of: peer) ?? 0, for: use))
        }
        if let packet { _ = device.sendProbe(packet, to: peer, now: now) }
    }
}
