internal import ControlAPI

/// The status as a person reads it, in lines of at most `width` columns as far as its words allow.
struct StatusReport {
    /// Tunnels that are explained below the table; the others have their rows.
    private static let explainedLimit = 8

    var showsDrops = false
    var showsKeys = false
    var width = Prose.width
    var palette = Palette(isOn: false)

    /// The whole gateway.
    func lines(for status: GatewayStatus) -> [String] {
        var lines = heading(status)
        if status.connections.isEmpty {
            lines += ["", "No connection is configured."]
        } else {
            lines.append(summary(status.connections))
            lines += interface(status)
            lines.append("")
            lines += StatusTable(
                width: width, showsKeys: showsKeys, isInterfaceUp: status.isInterfaceUp, palette: palette
            ).lines(status.connections)
            lines += troubles(status.connections)
            lines += status.connections.flatMap { remarks($0) }
        }
        lines += notices(status.notices ?? [])
        lines += guarded(status.guarded ?? [])
        if let hooks = status.hooks, hooks.failures > 0 || hooks.queueFull > 0 {
            lines += notices([
                "hooks: \(hooks.failures) of \(hooks.started) failed, \(hooks.queueFull) came too late to start"
            ])
            lines.append("  vgwctl events, and the log of vgwd, say why")
        }
        if showsDrops { lines += drops(status.drops) }
        return lines
    }

    /// One connection of the gateway, with all that is known of it.
    func lines(for connection: ConnectionStatus, of status: GatewayStatus) -> [String] {
        let condition = Condition(connection)
        var lines = interface(status)
        if !lines.isEmpty { lines.append("") }
        let working = connection.tunnels.count { [.up, .degraded].contains($0.state) }
        let state = condition == .usable ? connection.state.rawValue : condition.rawValue
        let shown = connection.routes.prefix(Self.routeLimit).joined(separator: ", ")
        let more = connection.routes.count - Self.routeLimit
        var rows: [(String, String?)] = [
            ("connection", connection.name),
            (
                "state",
                palette.paint(state, condition)
                    + (connection.since.map { " for \(TimeText.span($0))" } ?? "")
                    + ", \(working) of \(connection.tunnels.count) tunnels up"
            ),
            (
                "carried by",
                connection.activeTunnels.map { $0.isEmpty ? "no tunnel" : $0.joined(separator: ", ") }
            ),
            ("policy", connection.policy),
            ("metric", connection.metric.map { "\($0)" }),
            (
                "routes",
                connection.routes.isEmpty
                    ? "none, so nothing is sent there"
                    : shown + (more > 0 ? " and \(more) more: vgwctl route list" : "")
            ),
            (
                "when down",
                connection.onDown.map {
                    $0 == "withdraw" ? "its routes are withdrawn" : "its routes are \($0)"
                }
            ),
            ("rto", connection.rto.map { DrillText.seconds($0) }),
            ("flaps", connection.flaps.map { "\($0)" }),
        ]
        if connection.routes.isEmpty { rows.removeAll { $0.0 == "when down" } }
        lines += Self.aligned(rows, width: width)
        lines += remarks(connection)
        for tunnel in connection.tunnels {
            lines += [""] + TunnelText(width: width, palette: palette).lines(for: tunnel)
        }
        if showsDrops { lines += drops(status.drops) }
        return lines
    }

    private static let routeLimit = 20

    /// Names, and beside them values that are wrapped where they are long; those without a value are left out.
    static func aligned(_ rows: [(String, String?)], width: Int) -> [String] {
        rows.flatMap { name, value -> [String] in
            guard let value else { return [] }
            let first = name + String(repeating: " ", count: max(1, 16 - name.count))
            return Prose.wrapped(value, first: first, width: width)
        }
    }

    // MARK: Above the table

    private func heading(_ status: GatewayStatus) -> [String] {
        let rest =
            "on \(status.interface), UDP port \(status.listenPort), mtu \(status.mtu), "
            + "up \(TimeText.span(status.uptime)), vgwd\u{a0}\(status.version)"
        var lines = paragraph(status.name, " " + rest) { palette.bold($0) }
        lines += paragraph("", "offloads: \(offloads(status.offloads)); threads: \(threads(status))")
            .map { palette.dim($0) }
        if showsKeys { lines.append("public key: \(status.publicKey ?? "none yet")") }
        return lines
    }

    /// `48 connections usable, 1 degraded, 1 down`.
    private func summary(_ connections: [ConnectionStatus]) -> String {
        let conditions = connections.map { Condition($0) }
        let counts = Condition.allCases.map { condition in
            (condition, conditions.count { $0 == condition })
        }.filter { $0.1 > 0 }
        return counts.enumerated().map { place, item in
            let (condition, count) = item
            let noun = place > 0 ? "" : count == 1 ? " connection" : " connections"
            return palette.paint("\(count)\(noun) \(condition.rawValue)", condition)
        }.joined(separator: ", ")
    }

    /// What is amiss with the gateway's own interface.
    private func interface(_ status: GatewayStatus) -> [String] {
        var lines: [String] = []
        if !status.isInterfaceUp {
            lines += paragraph("\(status.interface) is down", ": nothing passes") { palette.red($0) }
            lines.append("  ip link set \(status.interface) up")
        }
        for missing in status.missingAddresses ?? [] {
            lines += paragraph(
                "\(missing.address) is missing", " on \(status.interface): \(missing.reason)"
            ) { palette.red($0) }
        }
        if let repairs = status.repairs {
            lines += paragraph(
                "rules and routes",
                ": somebody else removed \(repairs) of ours, which were put back; the log says when"
            ) { palette.yellow($0) }
        }
        return lines
    }

    // MARK: Below it

    /// What becomes of traffic to a connection that nothing carries.
    private func outage(_ connection: ConnectionStatus) -> [String] {
        guard connection.isUsable == false else { return [] }
        let routes =
            switch connection.onDown {
            case _ where connection.routes.isEmpty: ", and no routes"
            case "unreachable": ": its routes are unreachable"
            case "withdraw": ": its routes are withdrawn"
            default: ""
            }
        return paragraph(connection.name, ": no usable tunnel\(routes)") { palette.red($0) }
    }

    /// What became of connections, and why their tunnels are not up: the worst connections first, and of many no more than
    /// a screen takes.
    private func troubles(_ connections: [ConnectionStatus]) -> [String] {
        var lines: [String] = []
        var explained = 0
        var left = 0
        for connection in Condition.worstFirst(connections) {
            // One that is up may still have a reason: what it sends may not leave this host.
            let tunnels = connection.tunnels.filter { $0.reason != nil }
            guard explained + tunnels.count <= Self.explainedLimit || explained == 0 else {
                left += tunnels.count
                continue
            }
            explained += tunnels.count
            let block = outage(connection) + tunnels.flatMap { why($0) }
            lines += block.isEmpty ? [] : [""] + block
        }
        if left > 0 { lines += ["", "and \(left) more tunnels: 'vgwctl status CONNECTION' says why"] }
        return lines
    }

    private func why(_ tunnel: TunnelStatus) -> [String] {
        paragraph(tunnel.name, ": \(tunnel.reason ?? "")") { palette.paint($0, tunnel.state) }
            + (tunnel.hint.map { Prose.wrapped($0, first: "  ", width: width) } ?? [])
    }

    /// What else there is to know of a connection.
    private func remarks(_ connection: ConnectionStatus) -> [String] {
        var lines = notices((connection.notices ?? []).map { "\(connection.name): \($0)" })
        for tunnel in connection.tunnels where tunnel.isPreferred == true {
            lines += notices([
                "\(tunnel.name): preferred by an operator until 'vgwctl tunnel unprefer \(tunnel.name)'"
            ])
        }
        if connection.routes.isEmpty, connection.isUsable != false {
            lines += notices(["\(connection.name): no routes, so nothing is sent there"])
        }
        return lines
    }

    private func notices(_ notices: [String]) -> [String] {
        notices.isEmpty ? [] : [""] + notices.flatMap { paragraph("", $0) }.map { palette.yellow($0) }
    }

    /// What is kept out of the clear although no far gateway announces it now.
    private func guarded(_ prefixes: [String]) -> [String] {
        guard !prefixes.isEmpty else { return [] }
        let shown = prefixes.prefix(5).joined(separator: ", ") + (prefixes.count > 5 ? ", ..." : "")
        let words = prefixes.count == 1 ? "1 prefix is" : "\(prefixes.count) prefixes are"
        return notices(["\(words) announced by nobody now and unreachable: \(shown)"])
            + paragraph(
                "",
                "'vgwctl route list' shows them, 'vgwctl route del PREFIX' lets go of one whose site is gone for good"
            )
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

    /// The label, then the text, which brings its own colon or space; what does not fit on the line is indented.
    private func paragraph(
        _ label: String, _ text: String, paint: (String) -> String = { $0 }
    ) -> [String] {
        var lines = Prose.wrapped(label + text, first: "", indent: 2, width: width)
        if lines[0].hasPrefix(label), !label.isEmpty {
            lines[0] = paint(label) + lines[0].dropFirst(label.count)
        }
        return lines
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
        let off = states.filter { !$0.1 }.map(\.0)
        return off.isEmpty
            ? "all on" : off.count == states.count ? "all off" : "on but for \(off.joined(separator: ", "))"
    }
}
