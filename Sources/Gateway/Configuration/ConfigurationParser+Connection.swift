internal import WireGuard

extension ConfigurationParser {
    /// Nil when it has no name; what is wrong besides is in the reader's errors.
    mutating func readConnection(_ node: ConfigurationNode) -> ConnectionConfiguration? {
        guard let section = reader.section(node, known: ["name", "routes", "policy", "health", "tunnel"])
        else {
            return nil
        }
        let name = reader.name(section, "name", required: true)
        let routes = readRoutes(section)
        readPolicy(section)
        if let health = section["health"] { readHealth(health) }
        let nodes = reader.elements(section, "tunnel")
        if nodes.isEmpty, section["tunnel"].map({ if case .list = $0.value { true } else { false } }) ?? true
        {
            reader.report(
                section, "tunnel", "is missing",
                "write [[connection.tunnel]] with the far end's public-key below it")
        }
        for extra in nodes.dropFirst() {
            reader.refuse(
                extra, "more than one tunnel in a connection",
                instead: "keep one; a second path to the site can be a [[connection]] with other routes")
        }
        let tunnels = nodes.map { readTunnel($0, connection: name) }
        guard let name else { return nil }
        return ConnectionConfiguration(
            name: name, routes: routes, policy: .failover, tunnels: tunnels.compactMap { $0 })
    }

    private mutating func readRoutes(_ section: ConfigurationReader.Section) -> [IPPrefix] {
        guard section.has("routes") else {
            reader.report(
                section, "routes", "is missing",
                "write the prefixes behind the far end: routes = [\"10.20.0.0/16\"]")
            return []
        }
        var routes: [IPPrefix] = []
        for (node, text) in reader.strings(section, "routes", example: "\"10.20.0.0/16\"") ?? [] {
            guard let prefix = reader.prefix(node, text) else { continue }
            guard !routes.contains(prefix) else {
                reader.report(node, "\(prefix) is there already", "leave one of the two out")
                continue
            }
            routes.append(prefix)
        }
        return routes
    }

    private mutating func readPolicy(_ section: ConfigurationReader.Section) {
        guard let text = reader.string(section, "policy", example: "\"failover\""),
            let node = section["policy"]
        else {
            return
        }
        switch text {
        case "failover": return
        case "balance":
            reader.refuse(node, "policy \"balance\"", instead: "write \"failover\" or leave the key out")
        default:
            reader.report(
                node, "\(reader.quoted(text)) is no policy", "write \"failover\" or leave the key out")
        }
    }

    private mutating func readHealth(_ node: ConfigurationNode) {
        guard let section = reader.section(node, known: ["interval", "down-after", "target"]) else { return }
        _ = duration(section, "interval", in: .milliseconds(10) ... .seconds(3600), "10ms to 1h")
        _ = reader.integer(section, "down-after", in: 1...1000, meaning: "a number of lost probes")
        for (node, text) in reader.strings(section, "target", example: "\"10.20.0.10\"") ?? []
        where IPAddress(text) == nil {
            reader.report(
                node, "\(reader.quoted(text)) is no address",
                "write an address behind the far end: \"10.20.0.10\"")
        }
        reader.refuse(
            node, "health probing", instead: "leave the key out; handshakes tell when the far end is gone")
    }

    private mutating func readTunnel(_ node: ConfigurationNode, connection: String?) -> TunnelConfiguration? {
        guard
            let section = reader.section(
                node,
                known: [
                    "name", "public-key", "preshared-key-file", "endpoint", "inside", "bind", "priority",
                    "weight",
                    "cipher", "persistent-keepalive", "rate-limit",
                ])
        else { return nil }
        let name = reader.name(section, "name", required: false) ?? connection
        let key = readPublicKey(section)
        let presharedKey = readPresharedKey(section)
        let endpoint = readEndpoint(section)
        refuseUnfinished(section)
        let priority = reader.integer(section, "priority", in: 0...65535, meaning: "a priority")
        let weight = reader.integer(section, "weight", in: 1...65535, meaning: "a weight")
        let cipher = readCipher(section)
        let keepalive = readKeepalive(section)
        guard let name, let key else { return nil }
        return TunnelConfiguration(
            name: name, publicKey: key, presharedKey: presharedKey, endpoint: endpoint,
            priority: priority ?? 10,
            weight: weight ?? 1, cipher: cipher, persistentKeepalive: keepalive)
    }

    private mutating func readPublicKey(_ section: ConfigurationReader.Section) -> PublicKey? {
        guard section.has("public-key") else {
            reader.report(
                section, "public-key", "is missing",
                "write the far end's public key: 'vgwctl pubkey' prints it there")
            return nil
        }
        guard let text = reader.string(section, "public-key", example: "the far end's public key in base64"),
            let node = section["public-key"]
        else { return nil }
        // The text is not repeated: a private key may have been pasted here.
        guard let key = PublicKey(base64: text) else {
            reader.report(
                node, "is no key (\(text.utf8.count) characters)",
                "write 32 bytes in base64: 44 characters, the last a '='")
            return nil
        }
        guard key.bytes.contains(where: { $0 != 0 }) else {
            reader.report(
                node, "is all zero", "write the far end's public key: 'vgwctl pubkey' prints it there")
            return nil
        }
        return key
    }

    private mutating func readPresharedKey(_ section: ConfigurationReader.Section) -> PresharedKey {
        guard section.has("preshared-key-file") else { return .none }
        return readKeyFile(section, "preshared-key-file", madeBy: "vgwctl genpsk").map { PresharedKey($0) }
            ?? .none
    }

    private mutating func readEndpoint(_ section: ConfigurationReader.Section) -> EndpointName? {
        let texts = reader.strings(section, "endpoint", example: "\"vgw.example.com:51820\"") ?? []
        var endpoints: [EndpointName] = []
        for (node, text) in texts {
            do {
                endpoints.append(try EndpointName.parse(Redaction.looksLikeKey(text) ? "" : text))
            } catch {
                reader.report(node, error.problem, error.remedy)
            }
        }
        for (node, _) in texts.dropFirst() {
            reader.refuse(node, "more than one endpoint of a tunnel", instead: "keep one")
        }
        return endpoints.first
    }

    /// Keys of the design whose work is still to be done.
    private mutating func refuseUnfinished(_ section: ConfigurationReader.Section) {
        if let node = section["inside"] {
            if let inside = reader.section(node, known: ["local", "remote"]) {
                for side in ["local", "remote"] {
                    guard let text = reader.string(inside, side, example: "\"169.254.101.1\""),
                        IPAddress(text) == nil,
                        let node = inside[side]
                    else { continue }
                    reader.report(
                        node, "\(reader.quoted(text)) is no address",
                        "write one without a length: \"169.254.101.1\"")
                }
            }
            reader.refuse(
                node, "inside addresses of a tunnel",
                instead:
                    "leave the key out; ours are gateway.address, the far end's belong into routes as /32 or /128"
            )
        }
        if let node = section["bind"] {
            _ = reader.section(node, known: ["device", "address"])
            reader.refuse(
                node, "binding a tunnel to a device", instead: "leave the key out; routes choose the device")
        }
        if let node = section["rate-limit"] {
            reader.refuse(node, "rate limits", instead: "leave the key out; 'tc' can shape the interface")
        }
    }

    private mutating func readCipher(_ section: ConfigurationReader.Section) -> Cipher {
        guard let text = reader.string(section, "cipher", example: "\"chacha20-poly1305\""),
            let node = section["cipher"]
        else { return .chacha20Poly1305 }
        guard let cipher = Cipher(rawValue: text) else {
            reader.report(
                node, "\(reader.quoted(text)) is no cipher",
                "write \"chacha20-poly1305\", or \"aes-256-gcm\" at both ends, or leave the key out")
            return .chacha20Poly1305
        }
        guard availableCiphers.contains(cipher) else {
            reader.report(
                node,
                "this processor has no instructions for \(cipher.rawValue) (AES and carry-less multiplication)",
                "write \"chacha20-poly1305\" at both ends, or leave the key out there")
            return .chacha20Poly1305
        }
        return cipher
    }

    private mutating func readKeepalive(_ section: ConfigurationReader.Section) -> UInt16 {
        if let node = section["persistent-keepalive"], case .string("off") = node.value { return 0 }
        let value = duration(
            section, "persistent-keepalive", in: .zero ... .seconds(65535), "1s to 65535s, or \"off\"")
        guard let value else { return 0 }
        guard value.components.attoseconds == 0 else {
            reader.report(section, "persistent-keepalive", "is no whole number of seconds", "write \"25s\"")
            return 0
        }
        return UInt16(clamping: value.components.seconds)
    }

    mutating func duration(
        _ section: ConfigurationReader.Section, _ name: String, in range: ClosedRange<Duration>,
        _ bounds: String
    ) -> Duration? {
        guard let node = section[name] else { return nil }
        guard case .string(let text) = node.value, let value = Durations.parse(text), range.contains(value)
        else {
            reader.report(
                node, "is no duration that fits", "write a number with ms, s, m or h, from \(bounds): \"25s\""
            )
            return nil
        }
        return value
    }
}
