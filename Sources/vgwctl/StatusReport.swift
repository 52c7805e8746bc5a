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
        lines.append("")
        let tunnels = status.connections.flatMap(\.tunnels)
        if tunnels.isEmpty {
            lines.append("No connection is configured.")
        } else {
            lines += table(tunnels).rendered(palette)
            lines += tunnels.flatMap(why)
        }
        for connection in status.connections where connection.routes.isEmpty {
            lines.append("\(connection.name): no routes, so nothing is sent there")
        }
        if showsDrops { lines += drops(status.drops) }
        return lines
    }

    private func table(_ tunnels: [TunnelStatus]) -> Table {
        var table = Table(
            header: [
                "CONNECTION", "TUNNEL", "STATE", "ENDPOINT", "CIPHER", "LAST HANDSHAKE", "RECEIVED", "SENT",
            ])
        if showsKeys { table.header.append("PUBLIC KEY") }
        table.rightAligned = [6, 7]
        table.rows = tunnels.map { tunnel in
            var cells = [
                Table.Cell(tunnel.connection), Table.Cell(tunnel.name),
                Table.Cell(tunnel.state.rawValue) { paint($0, tunnel.state) },
                Table.Cell(tunnel.endpoint ?? tunnel.configuredEndpoint ?? "not known"),
                Table.Cell(tunnel.cipher),
                Table.Cell(Human.ago(tunnel.lastHandshakeAge)),
                Table.Cell(Human.bytes(tunnel.rxBytes)), Table.Cell(Human.bytes(tunnel.txBytes)),
            ]
            if showsKeys { cells.append(Table.Cell(tunnel.publicKey)) }
            return cells
        }
        return table
    }

    private func why(_ tunnel: TunnelStatus) -> [String] {
        guard tunnel.state != .up, let reason = tunnel.reason else { return [] }
        return ["", "\(paint(tunnel.name, tunnel.state)): \(reason)"]
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

    private func paint(_ text: String, _ state: TunnelStatus.State) -> String {
        switch state {
        case .up: palette.green(text)
        case .connecting: palette.yellow(text)
        case .idle: palette.dim(text)
        case .down: palette.red(text)
        }
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
