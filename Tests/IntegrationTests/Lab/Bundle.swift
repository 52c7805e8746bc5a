internal import ControlAPI
internal import Testing

/// Two sites joined by two tunnels, one over each wire, as conf/examples/dedicated-link.toml has it: the tunnels
/// are named as the wires are. At onprem there is always vgwd; at vpc vgwd too, or a wireguard-go for each tunnel,
/// which answers by the tunnel that it was asked by.
struct Bundle: Sendable {
    enum FarEnd: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case vgwd
        case wireguardGo

        var testDescription: String { rawValue }
    }

    struct Options: Sendable {
        var farEnd = FarEnd.vgwd
        var wires = Wire.allCases
        /// Lines of the connection, in TOML, at both ends.
        var lines: [String] = []
        /// The same at one end.
        var siteLines: [Site: [String]] = [:]
        /// Lines of the tunnels over these wires, at both ends.
        var tunnelLines: [Wire: [String]] = [:]
        /// Onprem's, in order of preference; nil is vpc's address on the wire.
        var endpoints: [Wire: [String]] = [:]
        /// A connection each, named as the wires are, with these lines.
        var separateLines: [Wire: [String]]?
        /// Metrics of these connections at one end.
        var metrics: [Site: [Wire: Int]] = [:]
        /// What each site sends to the other; nil is its prefixes.
        var routes: [Site: [String]] = [:]
        /// Nil finds it.
        var mtu: Int?
        /// At onprem.
        var lastLines = ""
    }

    let lab: Lab
    let options: Options
    let onprem: Gateway
    /// One of vgwd's, or one of wireguard-go for each wire.
    let vpc: [Gateway]

    /// A lab with a connection whose tunnels are all up, at both ends.
    static func run(_ options: Options = Options(), _ body: (Bundle) async throws -> Void) async throws {
        try await Lab.run { lab in
            if options.wires.contains(.link) { try await lab.addLink() }
            let bundle = try await make(in: lab, options)
            try await bundle.start()
            try await bundle.settle()
            try await body(bundle)
        }
    }

    static func make(in lab: Lab, _ options: Options) async throws -> Bundle {
        var keys: [Site: [Wire: KeyPair]] = [:]
        for site in Site.allCases {
            let own = try await KeyPair.generate()
            for wire in Wire.allCases {
                // The first tunnel has the gateway's key. Vgwd at vpc has one for all.
                let isShared = wire == options.wires[0] || site == .vpc && options.farEnd == .vgwd
                keys[site, default: [:]][wire] = isShared ? own : try await KeyPair.generate()
            }
        }
        let plan = Plan(lab: lab, options: options, keys: keys)
        return Bundle(
            lab: lab, options: options, onprem: try plan.vgwd(at: .onprem), vpc: try plan.farEnd())
    }

    /// What the gateways are made of.
    private struct Plan {
        let lab: Lab
        let options: Options
        let keys: [Site: [Wire: KeyPair]]

        func key(_ site: Site, _ wire: Wire) throws -> KeyPair { try #require(keys[site]?[wire]) }

        /// The far end's port on this wire. One wireguard-go cannot have a port on one device only.
        private func port(_ site: Site, _ wire: Wire) -> Int {
            site == .vpc && options.farEnd == .wireguardGo && wire == .internet ? 51821 : 51820
        }

        func vgwd(at site: Site) throws -> Gateway {
            let own = try key(site, options.wires[0])
            let routes = options.routes[site] ?? site.other.prefixes
            var settings = Gateway.Settings(
                keys: own, peerPublicKey: "", mtu: options.mtu ?? 1420,
                isMTUAutomatic: options.mtu == nil, routes: routes, addresses: [])
            let tunnels = try options.wires.map { try tunnel(over: $0, at: site, own: own) }
            let lines = options.lines + (options.siteLines[site] ?? [])
            if let separate = options.separateLines {
                settings.connections = zip(options.wires, tunnels).map { wire, tunnel in
                    ConnectionText(
                        name: wire.rawValue, routes: routes,
                        lines: lines + (separate[wire] ?? [])
                            + (options.metrics[site]?[wire].map { ["metric = \($0)"] } ?? []),
                        tunnels: [tunnel])
                }
            } else {
                settings.connections = [
                    ConnectionText(
                        name: site.other.rawValue, routes: routes, lines: lines, tunnels: tunnels)
                ]
            }
            if site == .onprem { settings.lastLines = options.lastLines }
            return Gateway(lab: lab, site: site, kind: .configured, settings: settings)
        }

        private func tunnel(over wire: Wire, at site: Site, own: KeyPair) throws -> ConnectionText.TunnelText
        {
            let ours = try key(site, wire)
            var endpoints = [Family.v4.endpoint(wire.underlay(site.other), port(site.other, wire))]
            if site == .onprem, let chosen = options.endpoints[wire] { endpoints = chosen }
            let list = endpoints.map { "\"\($0)\"" }.joined(separator: ", ")
            return ConnectionText.TunnelText(
                name: wire.rawValue, publicKey: try key(site.other, wire).publicKey,
                privateKey: ours.publicKey == own.publicKey ? nil : ours.privateKey,
                lines: [
                    "endpoint = [\(list)]",
                    "bind = { device = \"\(wire.device)\" }",
                    "inside = { local = \"\(wire.inside(site))\", remote = \"\(wire.inside(site.other))\" }",
                    "priority = \(wire.priority)",
                ] + (options.tunnelLines[wire] ?? []))
        }

        func farEnd() throws -> [Gateway] {
            switch options.farEnd {
            case .vgwd: [try vgwd(at: .vpc)]
            case .wireguardGo: try options.wires.map(wireguardGo)
            }
        }

        private func wireguardGo(over wire: Wire) throws -> Gateway {
            let settings = Gateway.Settings(
                keys: try key(.vpc, wire), peerPublicKey: try key(.onprem, wire).publicKey,
                listenPort: port(.vpc, wire),
                routes: Site.onprem.prefixes + ["\(wire.inside(.onprem))/32"],
                addresses: ["\(wire.inside(.vpc))/30"], routingTable: Bundle.table(wire))
            return Gateway(
                lab: lab, site: .vpc, kind: .wireguardGo, settings: settings,
                suffix: wire == .link ? "" : "2")
        }
    }

    /// Table of the routes at vpc that lead by one wireguard-go; also the mark of what came by it.
    private static func table(_ wire: Wire) -> Int { wire == .link ? 101 : 102 }

    func start() async throws {
        for site in Site.allCases {
            for family in Family.allCases {
                try await Shell.run(
                    "ip addr add \(site.inside(family))/\(family.hostPrefix) dev lo", in: lab.namespace(site))
            }
        }
        for gateway in vpc { try await gateway.start() }
        if options.farEnd == .wireguardGo { try await answerByTheSameTunnel() }
        try await onprem.start()
    }

    /// What two WireGuard interfaces of a kernel need to be the two ways of one connection.
    private func answerByTheSameTunnel() async throws {
        var script = "set -e\n"
        var marks = ""
        for (wire, gateway) in zip(options.wires, vpc) {
            let table = Self.table(wire)
            marks += "iifname \"\(gateway.interface)\" ct mark set \(table)\n"
            for family in Family.allCases {
                script += "ip \(family.option) rule add fwmark \(table) lookup \(table)\n"
            }
        }
        for prefix in Site.onprem.prefixes { script += "ip route add \(prefix) dev \(vpc[0].interface)\n" }
        script += """
            nft -f - <<'END'
            table inet way {
                chain in { type filter hook prerouting priority mangle;
                    \(marks)
                }
                chain out { type route hook output priority mangle; meta mark set ct mark; }
            }
            END
            """
        try await Shell.run(script, in: lab.namespace(.vpc))
    }

    // MARK: Questions

    /// Where vgwd is: both ends, or onprem alone.
    var gateways: [Gateway] { [onprem] + vpc.filter { $0.kind != .wireguardGo } }

    /// As `Tunnel` sends traffic between the ends.
    var traffic: Tunnel { Tunnel(lab: lab, onprem: onprem, vpc: vpc[0]) }

    /// Waits until every tunnel is up at each vgwd, and traffic takes the best.
    func settle() async throws {
        for gateway in gateways {
            try await eventually("all tunnels of \(gateway.name) are up") {
                try await gateway.tunnels().allSatisfy { $0.state == .up }
            }
        }
        guard options.separateLines == nil, !options.lines.contains("policy = \"balance\"") else { return }
        try await activated(options.wires[0])
    }

    /// Waits until every vgwd sends by the tunnel over this wire.
    func activated(_ wire: Wire, within limit: Duration = .seconds(90)) async throws {
        for gateway in gateways {
            try await eventually("\(gateway.name) sends by \(wire)", within: limit) {
                try await gateway.activeTunnels() == [wire.rawValue]
            }
        }
    }

    /// Waits until every vgwd has the tunnel over this wire in this state.
    func become(
        _ state: TunnelState, _ wire: Wire, within limit: Duration = .seconds(90)
    ) async throws {
        for gateway in gateways {
            try await eventually("\(wire) is \(state) at \(gateway.name)", within: limit) {
                try await gateway.tunnel(over: wire).state == state
            }
        }
    }
}

extension Gateway {
    func tunnels() async throws -> [TunnelStatus] {
        guard let status = try await status() else { throw LabError("\(name) gives no status") }
        return status.connections.flatMap(\.tunnels)
    }

    func tunnel(over wire: Wire) async throws -> TunnelStatus {
        guard let tunnel = try await tunnels().first(where: { $0.name == wire.rawValue }) else {
            throw LabError("\(name) shows no tunnel \(wire)")
        }
        return tunnel
    }

    /// Names of those that carry traffic.
    func activeTunnels() async throws -> [String] {
        try await tunnels().filter { $0.isActive == true }.map(\.name)
    }

    /// `vgwctl ARGUMENTS --json`, decoded. Of the exit status only 0 and 1 are answers.
    func ask<Answer: Decodable>(_ arguments: String, _: Answer.Type = Answer.self) async throws -> Answer {
        let answer = try await vgwctl("\(arguments) --json")
        guard answer.status < 2 else { throw answer }
        return try JSON.decode(Answer.self, from: Array(answer.output.utf8))
    }

    /// All that vgwd remembers.
    func events(_ kind: GatewayEvent.Kind? = nil) async throws -> [GatewayEvent] {
        let answer = try await vgwctl("events --json")
        guard answer.succeeded else { throw answer }
        return try answer.output.split(separator: "\n").compactMap { line in
            guard case .event(let event) = try JSON.decode(EventLine.self, from: Array(line.utf8)) else {
                return nil
            }
            return kind == nil || event.kind == kind ? event : nil
        }
    }
}
