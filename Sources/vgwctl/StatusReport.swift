internal import ControlAPI

/// The status as a person reads it.
struct StatusReport {
    var showsDrops = false
    var showsKeys = false
    var palette = Palette(isOn: false)

    func lines(for status: GatewayStatus) -> [String] {
        var lines = [
            palette.bold(status.name)
                + " on \(status.interface), UDP port \(status.listenPort), mtu \(status.mtu), "
                + "up \(Human.duration(status.uptime)), vgwd \(status.version)",
            palette.dim("offloads: " + offloads(status.offloads)),
            palette.dim("data threads: " + threads(status)),
        ]
        if showsKeys { lines.append("public key: \(status.publicKey ?? "none yet")") }
        if !status.isInterfaceUp {
            lines.append(palette.red("\(status.interface) is down: nothing passes"))
            lines.append("  ip link set \(status.interface) up")
        }
        for missing in status.missingAddresses ?? [] {
            lines.append(
                palette.red("\(missing.address) is missing on \(status.interface): \(missing.reason)"))
        }
        if let repairs = status.repairs {
            lines.append(
                palette.yellow(
                    "rules and routes: somebody else removed \(repairs) of ours, which were put back; the log says when"
                )
            )
        }
        lines.append("")
        let tunnels = status.connections.flatMap(\.tunnels)
        if tunnels.isEmpty {
            lines.append("No connection is configured.")
        } else {
            lines += table(status.connections).rendered(palette)
            lines += tunnels.flatMap(why)
        }
        for connection in status.connections {
            lines += outage(connection)
            lines += notices((connection.notices ?? []).map { "\(connection.name): \($0)" })
        }
        lines += notices(status.notices ?? [])
        for connection in status.connections where connection.routes.isEmpty {
            lines.append("\(connection.name): no routes, so nothing is sent there")
        }
        lines += guarded(status.guarded ?? [])
        if let hooks = status.hooks, hooks.failures > 0 || hooks.queueFull > 0 {
            lines.append("")
            lines.append(
                palette.yellow(
                    "hooks: \(hooks.failures) of \(hooks.started) failed, \(hooks.queueFull) came too late to start"
                ))
            lines.append("  vgwctl events, and the log of vgwd, say why")
        }
        if showsDrops { lines += drops(status.drops) }
        return lines
    }

    /// A row a tunnel; a connection of several has one of its own above them, and `*` at those that carry its
    /// traffic. Columns that nobody could fill are left out, so that the table stays narrow.
    private func table(_ connections: [ConnectionStatus]) -> Table {
        let tunnels = connections.flatMap(\.tunnels)
        var columns: [Column] = [.name, .state]
        if tunnels.contains(where: { $0.since != nil }) { columns.append(.since) }
        if tunnels.contains(where: { $0.windows != nil }) { columns += [.roundTrip, .loss] }
        if tunnels.contains(where: { $0.windows == nil }) { columns.append(.handshake) }
        columns += [.received, .sent, .endpoint]
        if showsKeys { columns.append(.publicKey) }

        var table = Table(header: columns.map(\.rawValue))
        let rightAligned: Set<Column> = [.roundTrip, .loss, .received, .sent]
        table.rightAligned = Set(columns.indices.filter { rightAligned.contains(columns[$0]) })
        for connection in connections {
            if let only = connection.tunnels.first, connection.tunnels.count == 1 {
                let name = only.name == connection.name ? only.name : "\(connection.name)/\(only.name)"
                table.rows.append(
                    columns.map { cell($0, only, named: name, notes: notes(connection, named: false)) })
            } else {
                table.rows.append(columns.map { cell($0, connection) })
                for tunnel in connection.tunnels {
                    let name = (tunnel.isActive == true ? "* " : "  ") + tunnel.name
                    table.rows.append(columns.map { cell($0, tunnel, named: name, notes: []) })
                }
            }
        }
        return table
    }

    private enum Column: String {
        case name = "CONNECTION"
        case state = "STATE"
        case since = "FOR"
        case roundTrip = "RTT"
        case loss = "LOSS"
        case handshake = "HANDSHAKE"
        case received = "RECEIVED"
        case sent = "SENT"
        case endpoint = "ENDPOINT"
        case publicKey = "PUBLIC KEY"
    }

    private func cell(
        _ column: Column, _ tunnel: TunnelStatus, named name: String, notes: [String]
    ) -> Table.Cell {
        // Short enough to be of now, long enough not to jump.
        let window = tunnel.windows?.first { $0.seconds == 10 } ?? tunnel.windows?.last
        switch column {
        case .name: return Table.Cell(name)
        case .state: return Table.Cell(tunnel.state.rawValue) { palette.paint($0, tunnel.state) }
        case .since: return Table.Cell(tunnel.since.map { Human.short($0) } ?? "-")
        case .roundTrip: return Table.Cell(window?.roundTrip.map { Human.milliseconds($0) } ?? "-")
        case .loss: return Table.Cell(window?.loss.map { Human.percent($0) } ?? "-")
        case .handshake: return Table.Cell(tunnel.lastHandshakeAge.map { Human.short($0) } ?? "never")
        case .received: return Table.Cell(Human.bytes(tunnel.rxBytes))
        case .sent: return Table.Cell(Human.bytes(tunnel.txBytes))
        case .endpoint:
            let endpoint = tunnel.endpoint ?? tunnel.configuredEndpoint ?? "not known"
            let device = tunnel.underlayDevice.map { " by \($0)" } ?? ""
            return Table.Cell(([endpoint + device] + self.notes(tunnel) + notes).joined(separator: ", "))
        case .publicKey: return Table.Cell(tunnel.publicKey)
        }
    }

    private func cell(_ column: Column, _ connection: ConnectionStatus) -> Table.Cell {
        switch column {
        case .name: return Table.Cell(connection.name)
        case .state:
            return Table.Cell(connection.state.rawValue) { text in
                switch connection.state {
                case .up: palette.green(text)
                case .idle: palette.dim(text)
                case .down: palette.red(text)
                }
            }
        case .since: return Table.Cell(connection.since.map { Human.short($0) } ?? "-")
        case .endpoint: return Table.Cell(notes(connection, named: true).joined(separator: ", "))
        case .roundTrip, .loss, .handshake, .received, .sent, .publicKey: return Table.Cell("")
        }
    }

    private func notes(_ tunnel: TunnelStatus) -> [String] {
        var notes: [String] = []
        if tunnel.cipher != "chacha20-poly1305" { notes.append(tunnel.cipher) }
        if tunnel.isPreferred == true { notes.append("preferred") }
        if let left = tunnel.holdDown, left > 0 { notes.append("held down \(Human.short(left))") }
        return notes
    }

    private func notes(_ connection: ConnectionStatus, named isNamed: Bool) -> [String] {
        var notes = isNamed ? [connection.policy] : []
        if let metric = connection.metric { notes.append("metric \(metric)") }
        if let flaps = connection.flaps, flaps > 0 { notes.append(flaps == 1 ? "1 flap" : "\(flaps) flaps") }
        return notes
    }

    /// What becomes of traffic to a connection that nothing carries.
    private func outage(_ connection: ConnectionStatus) -> [String] {
        guard connection.isUsable == false else { return [] }
        let routes =
            switch connection.onDown {
            case "unreachable": ": its routes are unreachable"
            case "withdraw": ": its routes are withdrawn"
            default: ""
            }
        return ["", palette.red("\(connection.name): no usable tunnel\(routes)")]
    }

    private func notices(_ notices: [String]) -> [String] {
        notices.isEmpty ? [] : [""] + notices.map { palette.yellow($0) }
    }

    /// What is kept out of the clear although no far gateway announces it now.
    private func guarded(_ prefixes: [String]) -> [String] {
        guard !prefixes.isEmpty else { return [] }
        let shown = prefixes.prefix(5).joined(separator: ", ") + (prefixes.count > 5 ? ", ..." : "")
        let words = prefixes.count == 1 ? "1 prefix is" : "\(prefixes.count) prefixes are"
        return [
            "", palette.yellow("\(words) announced by nobody now and unreachable: \(shown)"),
            "  vgwctl route list, and 'vgwctl route del PREFIX' for one whose site is gone for good",
        ]
    }

    private func why(_ tunnel: TunnelStatus) -> [String] {
        guard tunnel.state != .up, let reason = tunnel.reason else { return [] }
        return ["", "\(palette.paint(tunnel.name, tunnel.state)): \(reason)"]
            + (tunnel.hint.map { ["  \($0)"] } ?? [])
    }

    private func drops(_ counts: [String: UInt64]) -> [String] {
        let occurred = counts.filter { $0.value > 0 }
        guard !occurred.isEmpty else { return ["", "No packet was dropped."] }
        var table = Table(header: ["DROPPED BECAUSE", "PACKETS"])
        table.rightAligned = [1]
        table.rows = occurred.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { [Table.Cell($0.key), Table.Cell(String($0.value))] }
        return [""] + table.rendered(palette)
    }

    private func threads(_ status: GatewayStatus) -> String {
        status.isSingleThreaded
            ? "\(status.workers), for both directions"
            : status.workers == 1 ? "one out, one in" : "\(status.workers) out, \(status.workers) in"
    }

    private func offloads(_ offloads: OffloadStatus) -> String {
        let states = [
            ("udp-gso", offloads.udpGSO), ("udp-gro", offloads.udpGRO), ("tun-tso", offloads.tunTSO),
            ("tun-uso", offloads.tunUSO),
        ]
        return states.map { "\($0.0) \($0.1 ? "on" : "off")" }.joined(separator: ", ")
    }
}
