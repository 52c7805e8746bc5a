internal import ControlAPI
internal import Daemon
internal import GatewayCore
internal import WireGuard

/// Two sites and the tunnel between them: from what an operator says to both ends' configurations.
///
/// The left one may be a gateway that exists: then it keeps its key and its configuration, and gets a drop-in.
struct Pair {
    struct Side {
        var name: String
        /// What lies behind it.
        var prefixes: [IPPrefix]
        /// Where the other side reaches it; nil when it has no address of its own, as behind NAT.
        var endpoint: String?
        /// Its end of the inside link, with the link's length.
        var address: IPPrefix
        var listenPort: UInt16
    }

    static let defaultPort: UInt16 = 51820
    /// How often the side that cannot be reached speaks, so that what is between keeps the way open. Seconds.
    static let keepalive: UInt16 = 25

    let left: Side
    let right: Side
    let cipher: Cipher

    init(left: Side, right: Side, cipher: Cipher = .chacha20Poly1305) throws(Failure) {
        guard left.name != right.name else {
            throw Failure(.data, "both sides are named \(left.name)", hint: "Give each a name of its own.")
        }
        guard left.endpoint != nil || right.endpoint != nil else {
            throw Failure(
                .data, "neither side has an endpoint, so neither can speak first",
                hint: "Say where one of them can be reached: --right-endpoint vgw.example.com:51820")
        }
        for prefix in left.prefixes {
            for other in right.prefixes where prefix.overlaps(other) {
                throw Failure(
                    .data, "\(prefix) of \(left.name) and \(other) of \(right.name) overlap",
                    hint: "A prefix is behind one side: name longer ones, or renumber a site.")
            }
        }
        guard left.address.address != right.address.address, left.address.family == right.address.family,
            left.address.network == right.address.network
        else {
            throw Failure(
                .data, "\(left.address) and \(right.address) are not two ends of one inside link",
                hint: "Write two addresses of one prefix, such as 169.254.100.1/30 and 169.254.100.2/30.")
        }
        self.left = left
        self.right = right
        self.cipher = cipher
    }

    /// For two new gateways.
    func drafts() -> (left: ConfigurationDraft, right: ConfigurationDraft) {
        let leftKey = FreshKey.privateKey()
        let (connection, draft) = ends(leftKey: leftKey.publicKey)
        return (self.draft(of: left, key: leftKey, connection, to: right), draft)
    }

    /// For a left side that has this public key and listens on `port`: what it gets, and the new gateway.
    func addition(
        to leftKey: PublicKey, port: UInt16
    ) -> (left: ConfigurationDraft.Connection, right: ConfigurationDraft) {
        var (connection, draft) = ends(leftKey: leftKey)
        if left.listenPort != port { connection.listenPort = left.listenPort }
        return (connection, draft)
    }

    private func ends(leftKey: PublicKey) -> (left: ConfigurationDraft.Connection, right: ConfigurationDraft)
    {
        let rightKey = FreshKey.privateKey()
        let shared = FreshKey.presharedKey()
        let toLeft = connection(of: right, to: left, peer: leftKey, shared: shared)
        return (
            connection(of: left, to: right, peer: rightKey.publicKey, shared: shared),
            draft(of: right, key: rightKey, toLeft, to: left)
        )
    }

    private func connection(
        of side: Side, to other: Side, peer: PublicKey, shared: PresharedKey
    ) -> ConfigurationDraft.Connection {
        ConfigurationDraft.Connection(
            name: other.name, routes: other.prefixes, publicKey: peer, presharedKey: shared, cipher: cipher,
            endpoint: other.endpoint,
            inside: InsideLink(local: side.address.address, remote: other.address.address),
            persistentKeepalive: side.endpoint == nil ? Self.keepalive : 0)
    }

    private func draft(
        of side: Side, key: PrivateKey, _ connection: ConfigurationDraft.Connection, to other: Side
    ) -> ConfigurationDraft {
        ConfigurationDraft(
            comment: [Self.comment(side, other)], name: side.name, listenPort: side.listenPort,
            privateKey: key, connections: [connection])
    }

    private static func comment(_ side: Side, _ other: Side) -> String {
        "\(side.name): its end of the tunnel to \(other.name), made by vgwctl pair."
    }

    // MARK: The drop-in

    /// The left side's files for the folder `conf.d`.
    func dropIn(_ connection: ConfigurationDraft.Connection) -> [DraftFile] {
        let lines = ["# \(Self.comment(left, right))", ""] + connection.lines
        return [
            DraftFile(name: "\(right.name).toml", text: lines.joined(separator: "\n") + "\n")
        ] + [connection.keyFile].compactMap(\.self)
    }

    // MARK: What to do next

    /// What is left to do by hand, after the files of both sides are in `folder/NAME`.
    func nextSteps(folder: String) -> [String] {
        [left, right].enumerated().flatMap { number, side in
            taking("\(folder)/\(side.name)", files: ".", to: side, number + 1, "systemctl enable --now vgwd")
        } + lastSteps(removing: folder, holding: "both private keys")
    }

    /// The same after a drop-in is in `existing`, the left side's folder, and the new gateway in `folder/NAME`.
    func nextSteps(addedTo existing: String, folder: String) -> [String] {
        let conf = GatewayConfiguration.dropInFolder
        let target = ConfigurationDraft.folder
        let files = "\(conf)/\(right.name).toml \(conf)/\(right.name).psk"
        let first =
            existing == target
            ? [
                "1. Here (traffic of the other tunnels pauses for about a second):",
                "     sudo chown -R vgwd: \(target)/\(conf) && sudo vgwd check &&",
                "     sudo systemctl restart vgwd",
            ]
            : taking(existing, files: files, to: left, 1, "systemctl restart vgwd")
        return first
            + taking("\(folder)/\(right.name)", files: ".", to: right, 2, "systemctl enable --now vgwd")
            + lastSteps(removing: folder, holding: "the new private key")
    }

    private func taking(
        _ folder: String, files: String, to side: Side, _ number: Int, _ start: String
    ) -> [String] {
        let steps = OutputFolder.unpacking(to: ConfigurationDraft.folder) + ["vgwd check"]
        return [
            "\(number). Take it to \(side.name) by a way that nobody else reads; nothing is overwritten:",
            "     tar -C \(folder) -c \(files) |",
            "     ssh root@\(side.name) '",
        ] + steps.map { "       \($0) &&" } + ["       \(start)'"]
    }

    private func lastSteps(removing folder: String, holding what: String) -> [String] {
        var lines = ["3. Let these through on the way:"]
        for side in [left, right] {
            if let endpoint = side.endpoint {
                lines.append("     to \(side.name): UDP to \(endpoint)")
            } else {
                lines.append("     from \(side.name): UDP out; it speaks first, every \(Self.keepalive) s")
            }
        }
        lines.append("4. Tell each site to send the other's prefixes to its gateway:")
        for (side, other) in [(left, right), (right, left)] {
            lines += Prose.wrapped(
                "\(other.prefixes.map(\.description).joined(separator: ", ")), and forwarding on",
                first: "     at \(side.name): ", width: Prose.width)
        }
        return lines + [
            "     in a cloud: a route to the instance, and its source/destination check off",
            "5. Look: vgwctl status; ping \(right.address.address) from \(left.name)",
            "6. Remove \(folder) here: it holds \(what).",
        ]
    }
}

/// A gateway that exists, which gets a connection more.
struct ExistingGateway {
    /// Where its configuration is, without a slash at the end.
    let folder: String
    let configuration: GatewayConfiguration

    init(folder: String) throws(Failure) {
        self.folder = folder.count > 1 && folder.hasSuffix("/") ? String(folder.dropLast()) : folder
        do throws(ConfigurationErrors) {
            configuration = try GatewayConfiguration.load(
                path: "\(self.folder)/\(ConfigurationDraft.configurationFile)", user: SystemFiles.serviceUser)
        } catch {
            throw Failure(
                .data, "the gateway in \(self.folder) cannot be added to:\n\(Self.text(error))",
                hint: "--add names the folder of its vgwd.toml and keys; may you read them? Try with sudo.")
        }
    }

    /// Where the far ends send to.
    var listenPort: UInt16 {
        guard configuration.listenPort == 0 else { return configuration.listenPort }
        let taken = Set(configuration.connections.flatMap(\.tunnels).compactMap(\.binding.listenPort))
        return (Pair.defaultPort...UInt16.max).first { !taken.contains($0) } ?? Pair.defaultPort
    }

    /// The first inside link of its kind that has nothing in common with what the gateway has: both ends, with the
    /// link's length. Nil when all are taken.
    var freeLink: (left: IPPrefix, right: IPPrefix)? {
        let tunnels = configuration.connections.flatMap(\.tunnels)
        let ends = tunnels.compactMap(\.inside).flatMap {
            [IPPrefix(host: $0.local), IPPrefix(host: $0.remote)]
        }
        let routes = configuration.connections.flatMap(\.prefixes).filter { Self.linkLocal.contains($0) }
        let taken = ends + routes + configuration.addresses.map(\.network)
        for third in 100...255 where !Self.wellKnown.contains(third) {
            for fourth in stride(from: 0, to: 256, by: 4) {
                let link = Self.address(third, fourth, 30)
                guard !taken.contains(where: { $0.overlaps(link) }) else { continue }
                return (Self.address(third, fourth + 1, 30), Self.address(third, fourth + 2, 30))
            }
        }
        return nil
    }

    /// RFC 3927.
    private static let linkLocal = address(0, 0, 16)
    /// Where clouds have their services for instances: 169.254.169.254, 169.254.170.2.
    private static let wellKnown: Set<Int> = [169, 170]

    private static func address(_ third: Int, _ fourth: Int, _ length: Int) -> IPPrefix {
        let address = IPAddress(v4: 169 << 24 | 254 << 16 | UInt32(third) << 8 | UInt32(fourth))
        return IPPrefix(address: address, length: length) ?? IPPrefix(host: address)
    }

    /// Throws what vgwd would say of the gateway with these files in its `conf.d`.
    func check(_ files: [DraftFile]) throws(Failure) {
        let paths = files.map { ("\(dropInFolder)/\($0.name)", $0.text) }
        guard let first = paths.first else { return }
        do throws(ConfigurationErrors) {
            _ = try GatewayConfiguration.load(
                path: "\(folder)/\(ConfigurationDraft.configurationFile)", user: SystemFiles.serviceUser,
                adding: GatewayConfiguration.DropIn(path: first.0, text: first.1),
                files: DraftFiles(
                    texts: Dictionary(paths) { first, _ in first },
                    below: SystemFiles(user: SystemFiles.serviceUser)))
        } catch {
            throw Failure(
                .data, "\(configuration.name) does not take this connection:\n\(Self.text(error))",
                hint: "Nothing was written. Say it in other words; see vgwctl pair --help.")
        }
    }

    private static func text(_ errors: ConfigurationErrors) -> String {
        errors.errors.map { "  \($0.text(path: errors.path))" }.joined(separator: "\n")
    }

    var dropInFolder: String { "\(folder)/\(GatewayConfiguration.dropInFolder)" }
}
