internal import ControlAPI

/// The connections and tunnels of a gateway, a row each: those in trouble first. A connection of several tunnels has a row
/// of its own above theirs, and `*` stands at those that carry its traffic. Columns that nobody could fill are left out,
/// and those that there is no room for.
struct StatusTable {
    /// Past so many tunnels a connection that is usable has one row for all of its tunnels.
    static let tunnelLimit = 16

    let width: Int
    let showsKeys: Bool
    let isInterfaceUp: Bool
    let palette: Palette

    func lines(_ connections: [ConnectionStatus]) -> [String] {
        let tunnels = connections.flatMap(\.tunnels)
        let isLong = tunnels.count > Self.tunnelLimit
        var columns = Column.allCases.filter { column in
            switch column {
            case .since: tunnels.contains { $0.since != nil }
            case .roundTrip, .loss: tunnels.contains { $0.isProbed ?? ($0.windows != nil) }
            case .handshake: tunnels.contains { !($0.isProbed ?? ($0.windows != nil)) }
            case .publicKey: showsKeys
            default: true
            }
        }
        var rows: [[Column: Table.Cell]] = []
        for connection in Condition.worstFirst(connections) {
            rows += self.rows(of: connection, Condition(connection), isLong: isLong)
        }
        var table = table(columns, rows)
        for dropped in Column.dispensable where table.width > width {
            columns.removeAll { dropped.contains($0) }
            table = self.table(columns, rows)
        }
        return table.rendered(palette)
    }

    private func table(_ columns: [Column], _ rows: [[Column: Table.Cell]]) -> Table {
        var table = Table(header: columns.map(\.rawValue))
        table.rightAligned = Set(columns.indices.filter { columns[$0].isNumber })
        table.rows = rows.map { row in columns.map { row[$0] ?? Table.Cell("") } }
        return table
    }

    private enum Column: String, CaseIterable {
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

        /// What goes first where there is no room: it is in `vgwctl status CONNECTION`, too.
        static let dispensable: [Set<Column>] = [
            [.endpoint], [.received, .sent], [.handshake], [.loss], [.roundTrip],
        ]

        var isNumber: Bool { [.roundTrip, .loss, .received, .sent].contains(self) }
    }

    // MARK: Rows

    private func rows(
        of connection: ConnectionStatus, _ condition: Condition, isLong: Bool
    ) -> [[Column: Table.Cell]] {
        if let only = connection.tunnels.first, connection.tunnels.count == 1 {
            let name = only.name == connection.name ? only.name : "\(connection.name)/\(only.name)"
            var row = row(of: only, named: name)
            row[.endpoint] = Table.Cell((notes(only) + notes(connection)).joined(separator: ", "))
            // A session of it is no use while its connection is down.
            if only.state == .up, condition == .down { row[.state] = state(of: connection, condition) }
            return [row]
        }
        let isSummary = isLong && condition == .usable
        let tunnels = connection.tunnels.map { tunnel in
            row(of: tunnel, named: (tunnel.isActive == true ? "* " : "  ") + tunnel.name)
        }
        return [summary(of: connection, condition, isWhole: isSummary)] + (isSummary ? [] : tunnels)
    }

    /// `isWhole`: it stands for the tunnels, too.
    private func summary(
        of connection: ConnectionStatus, _ condition: Condition, isWhole: Bool
    ) -> [Column: Table.Cell] {
        var row: [Column: Table.Cell] = [
            .name: Table.Cell(connection.name), .state: state(of: connection, condition),
            .since: Table.Cell(connection.since.map { Human.short($0) } ?? "-"),
            .endpoint: Table.Cell(([connection.policy] + notes(connection)).joined(separator: ", ")),
        ]
        guard isWhole else { return row }
        let carrier = connection.tunnels.first { $0.isActive == true }
        row.merge(measured(carrier)) { _, new in new }
        row[.received] = Table.Cell(Human.bytes(connection.tunnels.reduce(0) { $0 &+ $1.rxBytes }))
        row[.sent] = Table.Cell(Human.bytes(connection.tunnels.reduce(0) { $0 &+ $1.txBytes }))
        return row
    }

    /// `degraded 3/4`: three of four tunnels carry traffic, or could.
    private func state(of connection: ConnectionStatus, _ condition: Condition) -> Table.Cell {
        let word = condition == .usable ? connection.state.rawValue : condition.rawValue
        let working = connection.tunnels.count { [.up, .degraded].contains($0.state) }
        let count = connection.tunnels.count > 1 ? " \(working)/\(connection.tunnels.count)" : ""
        return Table.Cell(word + count) { text in
            connection.state == .idle && condition == .usable
                ? palette.dim(text) : palette.paint(text, condition)
        }
    }

    private func row(of tunnel: TunnelStatus, named name: String) -> [Column: Table.Cell] {
        var row: [Column: Table.Cell] = [
            .name: Table.Cell(name),
            .state: Table.Cell(tunnel.state.rawValue) {
                isInterfaceUp ? palette.paint($0, tunnel.state) : $0
            },
            .since: Table.Cell(tunnel.since.map { Human.short($0) } ?? "-"),
            .handshake: Table.Cell(tunnel.lastHandshakeAge.map { Human.short($0) } ?? "never"),
            .received: Table.Cell(Human.bytes(tunnel.rxBytes)),
            .sent: Table.Cell(Human.bytes(tunnel.txBytes)),
            .endpoint: Table.Cell(notes(tunnel).joined(separator: ", ")),
            .publicKey: Table.Cell(tunnel.publicKey),
        ]
        row.merge(measured(tunnel)) { _, new in new }
        return row
    }

    private func measured(_ tunnel: TunnelStatus?) -> [Column: Table.Cell] {
        // Short enough to be of now, long enough not to jump.
        let window = tunnel?.windows?.first { $0.seconds == 10 } ?? tunnel?.windows?.last
        return [
            .roundTrip: Table.Cell(window?.roundTrip.map { Human.milliseconds($0) } ?? "-"),
            .loss: Table.Cell(window?.loss.map { Human.percent($0) } ?? "-"),
        ]
    }

    private func notes(_ tunnel: TunnelStatus) -> [String] {
        let endpoint = tunnel.endpoint ?? tunnel.configuredEndpoint ?? "not known"
        var notes = [endpoint + (tunnel.underlayDevice.map { " by \($0)" } ?? "")]
        if tunnel.cipher != "chacha20-poly1305" { notes.append(tunnel.cipher) }
        if tunnel.isPreferred == true { notes.append("preferred") }
        if let left = tunnel.holdDown, left > 0 { notes.append("held down \(Human.left(left))") }
        return notes
    }

    private func notes(_ connection: ConnectionStatus) -> [String] {
        var notes: [String] = []
        if let metric = connection.metric { notes.append("metric \(metric)") }
        if let flaps = connection.flaps, flaps > 0 { notes.append(flaps == 1 ? "1 flap" : "\(flaps) flaps") }
        return notes
    }
}
