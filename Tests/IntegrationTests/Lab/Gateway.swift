internal import ControlAPI
internal import FoundationEssentials
internal import Glibc
internal import Synchronization

/// One end of a tunnel: a daemon in a site's namespace, of one of three kinds that a test treats alike.
final class Gateway: Sendable {
    enum Kind: Sendable {
        /// vgwd with a TOML file: it sets addresses, MTU and routes by itself.
        case configured
        /// `vgwd -f INTERFACE`, set up with `wg` and `ip` as another implementation would be.
        case driven
        /// Debian's wireguard-go, set up the same way.
        case wireguardGo

        /// `wireguardGo` for all where the lab itself is to be proven.
        var effective: Kind { Lab.reference ? .wireguardGo : self }
    }

    /// What both kinds of set-up are made of.
    struct Settings: Sendable {
        var keys: KeyPair
        var peerPublicKey: String
        var presharedKey: String?
        /// As vgwd names it; nil is WireGuard's own.
        var cipher: String?
        /// Pairs of data threads; nil leaves it to vgwd.
        var workers: Int?
        /// The program that vgwd is started by, with its arguments, such as `taskset`.
        var launcher: [String] = []
        var listenPort = 51820
        /// Nil: this end only answers.
        var endpoint: String?
        var keepalive = 0
        var mtu = 1420
        /// Vgwd finds the MTU by itself; `mtu` is for the others then.
        var isMTUAutomatic = false
        /// What is routed to the peer, and taken from it.
        var routes: [String]
        var addresses: [String]
        /// A further line of [gateway].
        var gatewayLine = ""
        /// In place of the one connection that the above make; vgwd only.
        var connections: [ConnectionText]?
        /// At the end of the file, such as a [[hook]]; vgwd only.
        var lastLines = ""
        /// Table of the routes that are set by hand; nil is main.
        var routingTable: Int?
    }

    let lab: Lab
    let site: Site
    let kind: Kind
    /// Name of its log and of its files.
    let name: String
    let interface: String
    private let current: Mutex<Settings>
    private let running = Mutex<BackgroundProcess?>(nil)

    /// - Parameter suffix: one character, where a site has several gateways.
    init(lab: Lab, site: Site, kind: Kind, settings: Settings, suffix: String = "") {
        self.lab = lab
        self.site = site
        self.kind = kind.effective
        name = "\(site)\(suffix)"
        interface = "vgwit-\(lab.id)\(site.letter)\(suffix)"
        current = Mutex(settings)
        lab.removeAtEnd(uapiSocket)
        if kind == .driven { lab.removeAtEnd(controlSocket) }
    }

    var namespace: String { lab.namespace(site) }
    /// Shared by all network namespaces, hence the unique interface names.
    var uapiSocket: String { "/var/run/wireguard/\(interface).sock" }
    var controlSocket: String {
        kind == .configured ? "\(lab.directory)/\(name)-control.sock" : "/run/vgwd/\(interface).sock"
    }
    var settings: Settings { current.withLock { $0 } }
    var process: BackgroundProcess {
        get throws {
            guard let process = running.withLock({ $0 }) else { throw LabError("\(site) was not started") }
            return process
        }
    }

    func change(_ edit: (inout Settings) -> Void) {
        var settings = settings
        edit(&settings)
        let changed = settings
        current.withLock { $0 = changed }
    }

    // MARK: Life

    /// Starts the daemon; when this returns, it answers and is set up.
    func start() async throws {
        switch kind {
        case .configured:
            let configuration = try writeConfiguration()
            try await launch(settings.launcher + [Programs.path("vgwd"), "--config", configuration])
            try await ready { try await self.status() != nil }
        case .driven:
            let cipher = settings.cipher.map { ["--cipher", $0] } ?? []
            try await launch([Programs.path("vgwd"), "-f"] + cipher + [interface])
            try await ready { try await self.status() != nil }
            try await setUpByHand()
        case .wireguardGo:
            // `wg` removes a socket that refuses it: one that a killed daemon left, and one that wireguard-go
            // has bound and does not listen on yet. So it is asked for nothing before.
            try await Shell.run("rm -f \(uapiSocket)")
            try await launch(
                ["wireguard-go", "-f", interface],
                environment: ["WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"])
            try await ready {
                try await Shell.run("ss -Hxl", in: self.namespace).contains("\(self.uapiSocket) ")
            }
            try await setUpByHand()
        }
    }

    private func launch(_ command: [String], environment: [String: String] = [:]) async throws {
        let process = try await lab.start(
            command, name: name, in: namespace,
            environment: environment.merging(["LOG_LEVEL": "debug"]) { chosen, _ in chosen })
        running.withLock { $0 = process }
    }

    private func ready(_ answers: () async throws -> Bool) async throws {
        let process = try process
        try await eventually("\(site) answers on its socket") {
            if try await answers() { return true }
            return process.exitStatus != nil
        }
        if let status = process.exitStatus {
            throw LabError("\(site) ended at start with status \(status)")
        }
    }

    /// Stops without a chance to clean up, as a crash does.
    func kill() async throws {
        try await process.kill()
        // A killed daemon's kernel side goes a moment later than its process.
        try await eventually("\(interface) is gone") { try await !hasInterface() }
    }

    func restart() async throws {
        try await kill()
        try await start()
    }

    func hasInterface() async throws -> Bool {
        try await Shell.attempt("ip link show dev \(interface)", in: namespace).succeeded
    }

    // MARK: Set-up

    private func setUpByHand() async throws {
        let settings = settings
        let file = try lab.write(wgConfiguration(), to: "\(name)-wg.conf")
        try await wg("setconf \(interface) \(file)")
        // Routes first: with an address and no route, the first packets would leave in clear by the default
        // one.
        var script = "set -e; ip link set \(interface) mtu \(settings.mtu) up\n"
        let table = settings.routingTable.map { " table \($0)" } ?? ""
        for route in settings.routes { script += "ip route add \(route) dev \(interface)\(table)\n" }
        if settings.routingTable != nil {
            // What comes by one tunnel of several may have its way back by another.
            script += "sysctl -qw net.ipv4.conf.\(interface).rp_filter=2\n"
        }
        for address in settings.addresses { script += "ip addr add \(address) dev \(interface)\n" }
        try await Shell.run(script, in: namespace)
    }

    /// In the format of `wg setconf`.
    func wgConfiguration() -> String {
        let settings = settings
        var text = """
            [Interface]
            PrivateKey = \(settings.keys.privateKey)
            ListenPort = \(settings.listenPort)

            [Peer]
            PublicKey = \(settings.peerPublicKey)
            AllowedIPs = \(settings.routes.joined(separator: ", "))

            """
        if let key = settings.presharedKey { text += "PresharedKey = \(key)\n" }
        if let endpoint = settings.endpoint { text += "Endpoint = \(endpoint)\n" }
        if settings.keepalive > 0 { text += "PersistentKeepalive = \(settings.keepalive)\n" }
        return text
    }

    /// Writes the TOML file and the key files beside it; returns its path.
    func writeConfiguration() throws -> String {
        let settings = settings
        func list(_ values: [String]) -> String {
            "[" + values.map { "\"\($0)\"" }.joined(separator: ", ") + "]"
        }
        let key = try lab.write(settings.keys.privateKey + "\n", to: "\(name)-private.key")
        var text = """
            [gateway]
            name = "\(name)"
            interface = "\(interface)"
            listen-port = \(settings.listenPort)
            private-key-file = "\(key)"
            address = \(list(settings.addresses))
            mtu = \(settings.isMTUAutomatic ? "\"auto\"" : String(settings.mtu))
            workers = \(settings.workers.map { String($0) } ?? "\"auto\"")
            state-directory = "\(lab.directory)/\(name)-state"
            \(settings.gatewayLine)

            """
        for connection in try settings.connections ?? [onlyConnection()] {
            text += try connection.toml { tunnel, key in
                try lab.write(key + "\n", to: "\(name)-\(tunnel).key")
            }
        }
        text += """

            [control]
            socket = "\(controlSocket)"

            \(settings.lastLines)
            """
        return try lab.write(text, to: "\(name).toml")
    }

    private func onlyConnection() throws -> ConnectionText {
        let settings = settings
        var lines: [String] = []
        if let secret = settings.presharedKey {
            let file = try lab.write(secret + "\n", to: "\(name)-psk.key")
            lines.append("preshared-key-file = \"\(file)\"")
        }
        if let cipher = settings.cipher { lines.append("cipher = \"\(cipher)\"") }
        if let endpoint = settings.endpoint { lines.append("endpoint = [\"\(endpoint)\"]") }
        if settings.keepalive > 0 { lines.append("persistent-keepalive = \"\(settings.keepalive)s\"") }
        return ConnectionText(
            name: site.other.rawValue, routes: settings.routes, lines: [],
            tunnels: [
                ConnectionText.TunnelText(
                    name: "to-\(site.other)", publicKey: settings.peerPublicKey, lines: lines)
            ])
    }

    // MARK: Questions and orders

    /// `wg ARGUMENTS`, in the gateway's namespace.
    @discardableResult
    func wg(_ arguments: String) async throws -> String {
        try await Shell.run("wg \(arguments)", in: namespace)
    }

    /// In lines as long as they like, unless a width is given.
    func vgwctl(_ arguments: String, width: Int = 400) async throws -> CommandResult {
        try await Shell.attempt(
            "COLUMNS=\(width) \(Programs.path("vgwctl")) \(arguments) --socket \(controlSocket)",
            in: namespace)
    }

    /// Nil while the daemon does not answer.
    func status() async throws -> GatewayStatus? {
        for _ in 0..<6 {
            let answer = try await Shell.attempt(
                "curl -sf --max-time 5 --unix-socket \(controlSocket) http://vgwd\(APIPath.status)")
            if answer.succeeded {
                return try JSON.decode(GatewayStatus.self, from: Array(answer.output.utf8))
            }
            // CURLE_OPERATION_TIMEDOUT: a busy machine may give no response in time.
            let isLate = answer.status == 28
            guard isLate, try process.exitStatus == nil else { return nil }
        }
        return nil
    }

    func tunnelStatus() async throws -> TunnelStatus {
        guard let tunnel = try await status()?.connections.first?.tunnels.first else {
            throw LabError("\(site) shows no tunnel")
        }
        return tunnel
    }

    func drops(_ reason: String) async throws -> UInt64 {
        guard let status = try await status() else { throw LabError("\(site) gives no status") }
        return status.drops[reason] ?? 0
    }

    /// What `wg show INTERFACE dump` says of the one peer.
    struct Peer {
        var endpoint: String?
        var latestHandshake: Int
        var received: Int
        var sent: Int
    }

    func peer() async throws -> Peer {
        let lines = try await wg("show \(interface) dump").split(separator: "\n")
        guard lines.count == 2 else { throw LabError("\(site) has \(lines.count - 1) peers, not one") }
        let fields = lines[1].split(separator: "\t", omittingEmptySubsequences: false)
        guard fields.count == 8, let handshake = Int(fields[4]), let received = Int(fields[5]),
            let sent = Int(fields[6])
        else { throw LabError("unknown form of wg show dump: \(lines[1])") }
        return Peer(
            endpoint: fields[2] == "(none)" ? nil : String(fields[2]), latestHandshake: handshake,
            received: received, sent: sent)
    }
}
