internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What control keeps of one connection.
struct ConnectionRecord {
    /// Position in the forwarding table.
    var place = 0
    var selection: TunnelSelection
    /// When `selection.isUsable` changed.
    var since: Instant
    /// An operator's choice.
    var preferred: String?
    /// How often it became unusable.
    var failures = 0
    /// A tunnel of it may have changed.
    var isStale = true
}

/// Which tunnel each connection uses, and what follows for forwarding and for routes.
extension ControlLoop {
    func addConnection(_ connection: Connection) {
        for (place, tunnel) in connection.tunnels.enumerated() {
            addTunnel(tunnel, at: place, of: connection)
        }
        guard connections[connection.name] == nil else { return }
        connections[connection.name] = ConnectionRecord(
            selection: selection(of: connection, current: nil, preferred: nil), since: now)
    }

    /// Those that the state no longer has.
    func dropConnections() {
        for name in connections.keys where state.connection(named: name) == nil { connections[name] = nil }
    }

    /// The tunnels that are in the device, in the order of the forwarding table's paths.
    func peers(of connection: Connection) -> [PeerID] {
        connection.tunnels.compactMap { tunnels.peer(named: $0.name) }
    }

    private func selection(
        of connection: Connection, current: TunnelSelection?, preferred: String?
    ) -> TunnelSelection {
        let candidates = peers(of: connection).compactMap { peer -> TunnelSelection.Candidate? in
            guard let record = tunnels[peer] else { return nil }
            let tunnel = connection.tunnels[record.place]
            return TunnelSelection.Candidate(
                priority: tunnel.priority, weight: tunnel.weight, state: record.health.state,
                hasSession: record.isUp, isPreferred: record.name == preferred)
        }
        return TunnelSelection(policy: connection.policy, candidates: candidates, current: current)
    }

    func connectionChanged(_ name: String) { connections[name]?.isStale = true }

    /// After a round: whatever became of the tunnels in it is one change.
    func settleConnections() {
        var isRoutingStale = false
        for (name, record) in connections where record.isStale {
            connections[name]?.isStale = false
            guard let connection = state.connection(named: name) else { continue }
            let next = selection(of: connection, current: record.selection, preferred: record.preferred)
            guard next != record.selection else { continue }
            connections[name]?.selection = next
            apply(next, at: record.place, in: forwarding)
            reportSwitch(from: record.selection, to: next, of: connection)
            if next.isUsable != record.selection.isUsable {
                usabilityChanged(of: connection, to: next)
                isRoutingStale = true
            }
        }
        if isRoutingStale {
            publishForwarding()
            reconcileRoutes()
        }
    }

    private func apply(_ selection: TunnelSelection, at place: Int, in table: ForwardingTable) {
        if let buckets = selection.buckets {
            table.assign(buckets, of: place)
        } else {
            table.activate(selection.active, of: place)
        }
    }

    private func reportSwitch(
        from old: TunnelSelection, to new: TunnelSelection, of connection: Connection
    ) {
        let names = peers(of: connection).compactMap { tunnels[$0]?.name }
        func text(_ selection: TunnelSelection) -> String? {
            let active = selection.activeTunnels.compactMap { names.indices.contains($0) ? names[$0] : nil }
            return active.isEmpty ? nil : active.joined(separator: ",")
        }
        let (before, after) = (text(old), text(new))
        guard before != after else { return }
        let reason = old.active.flatMap { names.indices.contains($0) ? tunnels.peer(named: names[$0]) : nil }
            .flatMap { tunnels[$0]?.health.reason }
        raise(
            .failover, connection: connection.name, from: before, to: after, reason: reason?.name,
            "\(connection.name) goes by \(after ?? "no tunnel"), no longer by \(before ?? "none")",
            level: .notice)
    }

    private func usabilityChanged(of connection: Connection, to selection: TunnelSelection) {
        connections[connection.name]?.since = now
        if selection.isUsable {
            raise(
                .connectionUp, connection: connection.name, from: "down", to: "up",
                "\(connection.name) is up", level: .notice)
        } else {
            connections[connection.name]?.failures += 1
            let reason = peers(of: connection).first.flatMap { tunnels[$0]?.health.reason }
            raise(
                .connectionDown, connection: connection.name, from: "up", to: "down", reason: reason?.name,
                "\(connection.name) is down: no tunnel of it is usable", level: .warning)
        }
    }

    // MARK: Forwarding

    /// After every change of connections, prefixes, MTU, or of which connections are usable.
    func publishForwarding() {
        let connections = state.connections
        let choice = prefixChoice(connections)
        let table = ForwardingTable(
            connections: connections.enumerated().map { number, connection in
                ForwardingTable.Connection(
                    prefixes: choice.prefixes(of: number),
                    paths: peers(of: connection).compactMap { device.path(of: $0) },
                    isBalanced: connection.policy == .balance,
                    watched: connection.health.targets.map(\.address),
                    sources: choice.sources(of: number), active: nil)
            }, mtu: mtu, probeToken: probeToken)
        for (place, connection) in connections.enumerated() {
            guard let record = self.connections[connection.name] else { continue }
            self.connections[connection.name]?.place = place
            apply(record.selection, at: place, in: table)
        }
        forwarding = table
        dataPlane.publish(table)
    }

    func isUsable(_ connection: Connection) -> Bool {
        connections[connection.name]?.selection.isUsable ?? true
    }
}
