internal import LinuxIO
internal import WireGuard

extension ConfigurationParser {
    mutating func readGateway(_ node: ConfigurationNode) -> GatewayConfiguration? {
        guard
            let section = reader.section(
                node,
                known: [
                    "name", "interface", "listen-port", "private-key-file", "credential", "address", "mtu",
                    "workers",
                    "udp-gso", "udp-gro", "tun-offload", "firewall-mark", "table", "rules",
                    "metric",
                    "state-directory", "dns",
                ])
        else { return nil }
        let interface = readInterface(section)
        let port =
            reader.integer(section, "listen-port", in: 0...65535, meaning: "a UDP port")
            .flatMap { UInt16(exactly: $0) } ?? GatewayConfiguration.defaultPort
        let key = readPrivateKey(section)
        let addresses = readAddresses(section)
        let workers = readWorkers(section)
        let mark = readFirewallMark(section, port: port)
        let metric = reader.integer(section, "metric", in: 0...Int(UInt32.max), meaning: "a route's metric")
        let configuration = GatewayConfiguration(
            name: reader.name(section, "name", required: false) ?? interface,
            interface: interface,
            listenPort: port,
            // The stand-in is never used: without a key there is an error, and with one no configuration.
            privateKey: key
                ?? PrivateKey(clamping: SecretBytes([UInt8](repeating: 0, count: PublicKey.count))),
            addresses: addresses,
            mtu: readMTU(section),
            offloads: OffloadConfiguration(
                udpGSO: reader.offload(section, "udp-gso"), udpGRO: reader.offload(section, "udp-gro"),
                tun: reader.offload(section, "tun-offload")),
            workers: workers,
            firewallMark: mark,
            routeTable: readTable(section),
            makesRules: reader.boolean(section, "rules") ?? true,
            routeMetric: metric.flatMap { UInt32(exactly: $0) },
            stateDirectory: readStateDirectory(section),
            nameServers: readNameServers(section),
            connections: [],
            control: ControlConfiguration(socket: ""))
        findRulesAmiss(configuration, section)
        return configuration
    }

    private mutating func findRulesAmiss(
        _ configuration: GatewayConfiguration, _ section: ConfigurationReader.Section
    ) {
        let isNumbered = if case .number = configuration.routeTable { true } else { false }
        if !configuration.makesRules, !isNumbered {
            reader.report(
                section, "rules", "there is no table of a known number that rules of others could lead to",
                "write table = 100, or another number, beside it, or leave rules out")
        } else if configuration.makesRules, isNumbered, configuration.firewallMark == nil {
            reader.report(
                section, "table", "a table of its own needs the rule that a firewall mark makes",
                "leave firewall-mark out, write table = \"main\", or rules = false where rules of yours lead there"
            )
        }
    }

    private mutating func readInterface(_ section: ConfigurationReader.Section) -> String {
        let fallback = GatewayConfiguration.defaultInterface
        guard let text = reader.string(section, "interface", example: "\"vgw0\""),
            let node = section["interface"]
        else { return fallback }
        let problem =
            Names.interfaceProblem(text, shownAs: reader.quoted(text)) ?? surroundings.interfaceConflict(text)
        guard let problem else { return text }
        reader.report(node, problem.problem, problem.remedy)
        return fallback
    }

    private mutating func readPrivateKey(_ section: ConfigurationReader.Section) -> PrivateKey? {
        let isFile = section.has("private-key-file")
        guard isFile != section.has("credential") else {
            if isFile {
                reader.report(
                    section, "credential", "the private key has two sources",
                    "keep either private-key-file or credential")
            } else {
                reader.report(
                    section, "private-key-file", "is missing",
                    "write private-key-file = \"/etc/vgwd/private.key\", made by 'vgwctl genkey', or "
                        + "credential = \"private-key\" with systemd's LoadCredential=")
            }
            return nil
        }
        let name = isFile ? "private-key-file" : "credential"
        return readKeyFile(section, name, madeBy: "vgwctl genkey").map { PrivateKey(clamping: $0) }
    }

    /// What the key file that `name` (a path, or a credential of systemd) stands for holds.
    mutating func readKeyFile(
        _ section: ConfigurationReader.Section, _ name: String, madeBy command: String
    ) -> SecretBytes? {
        let isCredential = name == "credential"
        guard
            let file = reader.string(
                section, name, example: isCredential ? "\"private-key\"" : "\"/etc/vgwd/private.key\""),
            let node = section[name]
        else { return nil }
        var path = resolve(file, in: node)
        if isCredential {
            guard !file.contains("/"), !file.hasPrefix("."), !Redaction.looksLikeKey(file) else {
                reader.report(
                    node, "\(reader.quoted(file)) is no credential",
                    "write its name, as in LoadCredential=NAME:…")
                return nil
            }
            guard let folder = environment["CREDENTIALS_DIRECTORY"], !folder.isEmpty else {
                reader.report(
                    node, "there is no CREDENTIALS_DIRECTORY: systemd passed no credential",
                    "add LoadCredential=\(file):/etc/vgwd/private.key to the unit, or use private-key-file")
                return nil
            }
            path = "\(folder)/\(file)"
        }
        do {
            if let key = try files.key(at: path) { return key }
            reader.report(
                node, "the file holds no key", "it must hold 32 bytes in base64, as '\(command)' writes them")
            return nil
        } catch {
            if Redaction.looksLikeKey(file) {
                reader.report(
                    node, "holds a key, or the name of a file that cannot be read",
                    "put the key into a file with mode 0600 and name that; if others can read this file, make a new key"
                )
            } else {
                reader.report(node, error.problem, error.remedy)
            }
            return nil
        }
    }

    private mutating func readAddresses(_ section: ConfigurationReader.Section) -> [IPPrefix] {
        var addresses: [IPPrefix] = []
        for (node, text) in reader.strings(section, "address", example: "\"169.254.100.2/30\"") ?? [] {
            guard let prefix = IPPrefix(text) else {
                reader.report(
                    node, "\(reader.quoted(text)) is no address",
                    "write the address and the length of the inside link: \"169.254.100.2/30\"")
                continue
            }
            let isSubnet = prefix.length < prefix.family.width - 1
            if prefix.address.isMulticast || prefix.address.isUnspecified {
                reader.report(
                    node, "\(prefix.address) cannot be an interface's address",
                    "write one of your inside addresses")
            } else if isSubnet, prefix.family == .v4, prefix == prefix.network {
                let host = IPAddress(family: .v4, bits: prefix.first + 1)
                reader.report(
                    node, "\(text) is the link itself, not an address on it",
                    "write \"\(host)/\(prefix.length)\" or the next ones")
            } else if isSubnet, prefix.family == .v4, prefix.address.bits == prefix.last {
                let host = IPAddress(family: .v4, bits: prefix.last - 1)
                reader.report(
                    node, "\(text) is the link's broadcast address",
                    "write \"\(host)/\(prefix.length)\" or another")
            } else if addresses.contains(where: { $0.address == prefix.address }) {
                reader.report(node, "\(prefix.address) is there already", "leave one of the two out")
            } else {
                addresses.append(prefix)
            }
        }
        return addresses
    }

    private mutating func readMTU(_ section: ConfigurationReader.Section) -> GatewayConfiguration.MTU {
        let range = GatewayConfiguration.mtuRange
        guard let node = section["mtu"] else { return .automatic }
        switch node.value {
        case .string("auto"): return .automatic
        case .integer(let number) where range.contains(number): return .bytes(number)
        default:
            reader.report(
                node, "is no MTU",
                "write \"auto\", or a number from \(range.lowerBound) to \(range.upperBound) such as 1420")
            return .automatic
        }
    }

    /// One by default, on any machine: two ends, or two peers, must be busy before a second one helps.
    private mutating func readWorkers(_ section: ConfigurationReader.Section) -> Int {
        guard let node = section["workers"] else { return 1 }
        let limit = KeypairTable.workerLimit
        switch node.value {
        case .string("auto"): return 1
        case .integer(let number) where (1...limit).contains(number): return number
        default:
            reader.report(
                node, "is no number of workers",
                "write a number from 1 to \(limit), or \"auto\"")
            return 1
        }
    }

    /// Unless it is set, the port where that is free: `ip rule` shows a number that is known then.
    private mutating func readFirewallMark(
        _ section: ConfigurationReader.Section, port: UInt16
    ) -> RoutingNumbers.Wish? {
        let automatic = RoutingNumbers.Wish.free(
            from: UInt32(port == 0 ? GatewayConfiguration.defaultPort : port))
        guard let node = section["firewall-mark"] else { return automatic }
        switch node.value {
        case .string("auto"): return automatic
        case .string("off"), .integer(0): return nil
        case .integer(let number):
            if let mark = UInt32(exactly: number) { return .fixed(mark) }
        case .string(let text):
            if text.hasPrefix("0x"), let mark = UInt32(text.dropFirst(2), radix: 16), mark != 0 {
                return .fixed(mark)
            }
        default: break
        }
        reader.report(
            node, "is no firewall mark", "write \"auto\", \"off\", or a number from 1 to 0xffffffff")
        return automatic
    }

    private mutating func readTable(_ section: ConfigurationReader.Section) -> GatewayConfiguration.RouteTable
    {
        guard let node = section["table"] else { return .automatic }
        switch node.value {
        case .string("auto"): return .automatic
        case .string("main"), .integer(254): return .main
        case .string("off"): return .off
        case .integer(let number) where number > 0 && number != 255 && number != 253:
            if let table = UInt32(exactly: number) { return .number(table) }
        default: break
        }
        reader.report(
            node, "is no routing table of ours",
            "write \"auto\", \"main\", \"off\", or a number other than 0, 253 and 255")
        return .automatic
    }

    private mutating func readStateDirectory(_ section: ConfigurationReader.Section) -> String {
        if let text = reader.string(section, "state-directory", example: "\"/var/lib/vgwd\""),
            let node = section["state-directory"]
        {
            if text.hasPrefix("/") { return text }
            reader.report(
                node, "\(reader.quoted(text)) is not absolute",
                "write a path from the root: \"/var/lib/vgwd\"")
            return GatewayConfiguration.defaultStateDirectory
        }
        // systemd separates several with colons; ours has one.
        let given = environment["STATE_DIRECTORY"]?.split(separator: ":").first.map { String($0) }
        return given ?? GatewayConfiguration.defaultStateDirectory
    }

    private mutating func readNameServers(_ section: ConfigurationReader.Section) -> [Endpoint] {
        var servers: [Endpoint] = []
        for (node, text) in reader.strings(section, "dns", example: "\"192.0.2.53\"") ?? [] {
            let server = Endpoint(text) ?? IPAddress(text).map { Endpoint(address: $0, port: 53) }
            guard let server, server.port > 0, !server.address.isUnspecified, !server.address.isMulticast
            else {
                reader.report(
                    node, "\(reader.quoted(text)) is no name server",
                    "write its address, such as \"192.0.2.53\" or \"[2001:db8::53]:5353\"")
                continue
            }
            guard server.address.family == .v4 || !server.address.isLinkLocal else {
                reader.report(
                    node, "\(server.address) is link-local, and the resolver asks by no interface",
                    "write an address of the name server that needs none")
                continue
            }
            if !servers.contains(server) { servers.append(server) }
        }
        return servers
    }

    mutating func readControl(_ node: ConfigurationNode?) -> ControlConfiguration {
        let fallback = ControlConfiguration(socket: GatewayConfiguration.defaultSocket)
        guard let node,
            let section = reader.section(node, known: ["socket", "viewers", "operators", "admins"])
        else { return fallback }
        for role in ["viewers", "operators", "admins"] {
            guard let node = section[role], reader.strings(section, role, example: "\"root\"") != nil else {
                continue
            }
            reader.refuse(
                node, "roles on the control socket",
                instead: "leave the key out: the socket is for root and vgwd's user")
        }
        guard let text = reader.string(section, "socket", example: "\"\(fallback.socket)\""),
            let node = section["socket"]
        else { return fallback }
        // sun_path of sockaddr_un holds 108 bytes with its end, also of the name that the socket has before it listens.
        guard text.hasPrefix("/"), text.utf8.count < 100 else {
            reader.report(
                node, "\(reader.quoted(text)) cannot be a socket",
                "write a path from the root, shorter than 100 bytes: \"\(fallback.socket)\"")
            return fallback
        }
        return ControlConfiguration(socket: text)
    }

    /// Folders that the unit, or a start as root, makes and gives to vgwd's user.
    private static let unitFolders = [
        GatewayConfiguration.defaultStateDirectory, "/run/vgwd", WgServer.directory,
    ]

    /// What stands where a file of the run is to be is an error where the path is named, or of its section.
    mutating func refuseObstacles(
        _ document: ConfigurationReader.Section, _ gateway: GatewayConfiguration,
        _ control: ControlConfiguration
    ) {
        let paths = WrittenPath.all(
            interface: gateway.interface, stateDirectory: gateway.stateDirectory,
            controlSocket: control.socket,
            hasWgSocket: true)
        for path in paths {
            let section = document[path.section]
            let place = section?.child(path.key) ?? section ?? document.node
            if let obstacle = path.obstacle(files) {
                reader.report(place, obstacle.problem, obstacle.remedy)
            } else if path.kind == .directory, !Self.unitFolders.contains(path.path),
                FileStatus(path.path)?.kind == .directory,
                let refusal = files.obstacle(to: .write, at: path.path)
            {
                reader.warn(place, refusal.problem, refusal.remedy)
            }
        }
    }
}
