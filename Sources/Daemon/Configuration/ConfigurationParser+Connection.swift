internal import GatewayCore
internal import WireGuard

extension ConfigurationParser {
    /// Nil when it has no name; what is wrong besides is in the reader's errors.
    mutating func readConnection(_ node: ConfigurationNode) -> ConnectionSpec? {
        guard
            let section = reader.section(
                node,
                known: [
                    "name", "routes", "dynamic", "exclusive", "policy", "metric", "on-down", "health", "rto",
                    "nat", "source",
                    "rate-limit", "copy-dscp", "tunnel",
                ])
        else { return nil }
        let name = reader.name(section, "name", required: true)
        let isDynamic = reader.boolean(section, "dynamic") ?? false
        let routes = readRoutes(section, isRequired: !isDynamic)
        let policy = readPolicy(section)
        let onDown = readOnDown(section)
        let health = readHealth(section)
        let translations = readTranslations(section)
        let sources = readSources(section)
        let nodes = reader.elements(section, "tunnel")
        if nodes.isEmpty, section["tunnel"].map({ if case .list = $0.value { true } else { false } }) ?? true
        {
            reader.report(
                section, "tunnel", "is missing",
                "write [[connection.tunnel]] with the far end's public-key below it")
        }
        let tunnels = nodes.map { readTunnel($0, connection: name, isOnly: nodes.count == 1) }
        let metric = reader.integer(
            section, "metric", in: 0...Self.greatestMetric, meaning: "a route's metric")
        let objective = duration(section, "rto", in: .milliseconds(1) ... .seconds(86_400), "1ms to 24h")
        let rateLimit = readRate(section, "rate-limit")
        let copiesDSCP = reader.boolean(section, "copy-dscp") ?? false
        if isDynamic, tunnels.contains(where: { $0.map { $0.inside == nil } ?? false }) {
            reader.report(
                section, "dynamic", "needs the inside addresses of every tunnel",
                "write inside = { local = \"169.254.101.2\", remote = \"169.254.101.1\" } in each: a routing "
                    + "daemon's next hop is the far end's")
        }
        guard let name else { return nil }
        return ConnectionSpec(
            name: name, routes: routes, isDynamic: isDynamic,
            isExclusive: reader.boolean(section, "exclusive") ?? false, policy: policy,
            metric: metric.flatMap { UInt32(exactly: $0) }, onDown: onDown, health: health,
            recoveryTimeObjective: objective, sources: sources, translations: translations,
            rateLimit: rateLimit,
            copiesDSCP: copiesDSCP, tunnels: tunnels.compactMap { $0 })
    }

    /// Those above are of routes of last resort.
    private static let greatestMetric = Int(RoutePlan.coveredMetrics.lowerBound) - 1

    private mutating func readRoutes(
        _ section: ConfigurationReader.Section, isRequired: Bool
    ) -> [IPPrefix] {
        guard section.has("routes") else {
            guard isRequired else { return [] }
            reader.report(
                section, "routes", "is missing",
                "write the prefixes behind the far end: routes = [\"10.20.0.0/16\"]")
            return []
        }
        let texts = reader.strings(section, "routes", example: "\"10.20.0.0/16\"") ?? []
        var routes: [IPPrefix] = []
        var known: Set<IPPrefix> = []
        known.reserveCapacity(texts.count)
        for (node, text) in texts {
            guard let prefix = reader.prefix(node, text) else { continue }
            guard known.insert(prefix).inserted else {
                reader.report(node, "\(prefix) is there already", "leave one of the two out")
                continue
            }
            routes.append(prefix)
        }
        return routes
    }

    private mutating func readPolicy(
        _ section: ConfigurationReader.Section
    ) -> ConnectionSpec.Policy {
        guard let text = reader.string(section, "policy", example: "\"failover\""),
            let node = section["policy"]
        else { return .failover }
        if let policy = ConnectionSpec.Policy(rawValue: text) { return policy }
        reader.report(
            node, "\(reader.quoted(text)) is no policy",
            "write \"failover\" or \"balance\", or leave the key out")
        return .failover
    }

    private mutating func readOnDown(
        _ section: ConfigurationReader.Section
    ) -> ConnectionSpec.OnDown {
        guard let text = reader.string(section, "on-down", example: "\"unreachable\""),
            let node = section["on-down"]
        else { return .unreachable }
        if let onDown = ConnectionSpec.OnDown(rawValue: text) { return onDown }
        reader.report(
            node, "\(reader.quoted(text)) is nothing to do with routes",
            "write \"unreachable\", so that nothing leaves in clear, or \"withdraw\"")
        return .unreachable
    }

    private mutating func readSources(_ section: ConfigurationReader.Section) -> [IPAddress] {
        var sources: [IPAddress] = []
        for (node, text) in reader.strings(section, "source", example: "\"192.168.10.1\"") ?? [] {
            guard let address = IPAddress(text), !address.isMulticast, !address.isUnspecified else {
                reader.report(
                    node, "\(reader.quoted(text)) is no address of a host",
                    "write one of this gateway's, in the network behind it: source = \"192.168.10.1\"")
                continue
            }
            if let other = sources.first(where: { $0.family == address.family }) {
                reader.report(
                    node, "is a second source of one family, beside \(other)",
                    "write one IPv4 and one IPv6 address at most")
            } else {
                sources.append(address)
            }
        }
        return sources
    }

    /// `nat = [{ inside = "10.0.0.0/16", outside = "10.99.0.0/16" }]`
    private mutating func readTranslations(
        _ section: ConfigurationReader.Section
    ) -> [PrefixTranslationSpec] {
        let example = "{ inside = \"10.0.0.0/16\", outside = \"10.99.0.0/16\" }"
        var translations: [PrefixTranslationSpec] = []
        for node in reader.elements(section, "nat") {
            guard let pair = reader.section(node, known: ["inside", "outside"]) else { continue }
            var sides: [IPPrefix] = []
            for side in ["inside", "outside"] {
                guard let text = reader.string(pair, side, example: "\"10.0.0.0/16\""), let place = pair[side]
                else {
                    if !pair.has(side) { reader.report(pair, side, "is missing", "write \(example)") }
                    continue
                }
                guard let prefix = reader.prefix(place, text) else { continue }
                guard !prefix.isMulticast else {
                    reader.report(place, "\(text) is multicast", "translate prefixes of hosts: \(example)")
                    continue
                }
                sides.append(prefix)
            }
            guard sides.count == 2 else { continue }
            let translation = PrefixTranslationSpec(inside: sides[0], outside: sides[1])
            guard sides[0].family == sides[1].family, sides[0].length == sides[1].length else {
                reader.report(
                    node, "\(sides[0]) and \(sides[1]) are not of one size",
                    "write two prefixes of one length: each host gets its own address")
                continue
            }
            if let other = translations.first(where: {
                $0.inside.overlaps(translation.inside) || $0.outside.overlaps(translation.outside)
            }) {
                reader.report(
                    node, "overlaps with \(other.inside) to \(other.outside)",
                    "a host has one address to the far site: take one of the two out")
                continue
            }
            translations.append(translation)
        }
        return translations
    }

    mutating func readRate(_ section: ConfigurationReader.Section, _ name: String) -> UInt64? {
        guard let text = reader.string(section, name, example: "\"500 Mbit/s\""), let node = section[name]
        else { return nil }
        if let rate = Rates.parse(text) { return rate }
        reader.report(
            node, "\(reader.quoted(text)) is no rate from 64 kbit/s to 1 Tbit/s",
            "write a number with kbit/s, Mbit/s or Gbit/s: \"500 Mbit/s\"")
        return nil
    }

    private mutating func readTunnel(
        _ node: ConfigurationNode, connection: String?, isOnly: Bool
    ) -> TunnelSpec? {
        guard
            let section = reader.section(
                node,
                known: [
                    "name", "private-key-file", "public-key", "preshared-key-file", "endpoint", "inside",
                    "bind", "listen-port", "priority", "weight", "cipher", "persistent-keepalive",
                    "rate-limit",
                ])
        else { return nil }
        if !isOnly, !section.has("name") {
            reader.report(
                section, "name", "is missing", "name each of several tunnels: name = \"zone-a\"")
        }
        let name = reader.name(section, "name", required: false) ?? connection
        let key = readPublicKey(section)
        let privateKey =
            section.has("private-key-file")
            ? readKeyFile(section, "private-key-file", madeBy: "vgwctl genkey") : nil
        let presharedKey = readPresharedKey(section)
        let endpoints = readEndpoints(section)
        let inside = readInside(section)
        let binding = readBinding(section)
        let priority = reader.integer(section, "priority", in: 0...65535, meaning: "a priority")
        let weight = reader.integer(section, "weight", in: 1...65535, meaning: "a weight")
        let cipher = readCipher(section)
        let keepalive = readKeepalive(section)
        let rateLimit = readRate(section, "rate-limit")
        guard let name, let key else { return nil }
        return TunnelSpec(
            name: name, publicKey: key, privateKey: privateKey.map { PrivateKey(clamping: $0) },
            presharedKey: presharedKey, endpoints: endpoints, binding: binding, inside: inside,
            priority: priority ?? 10, weight: weight ?? 1, cipher: cipher, persistentKeepalive: keepalive,
            rateLimit: rateLimit)
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

    private mutating func readEndpoints(_ section: ConfigurationReader.Section) -> [EndpointName] {
        var endpoints: [EndpointName] = []
        for (node, text) in reader.strings(section, "endpoint", example: "\"vgw.example.com:51820\"") ?? [] {
            do {
                let endpoint = try EndpointName.parse(text, shownAs: reader.quoted(text))
                if endpoints.contains(endpoint) {
                    reader.report(node, "\(endpoint) is there already", "leave one of the two out")
                } else {
                    endpoints.append(endpoint)
                }
            } catch {
                reader.report(node, error.problem, error.remedy)
            }
        }
        return endpoints
    }

    /// `inside = { local = "169.254.101.2", remote = "169.254.101.1" }`
    private mutating func readInside(_ section: ConfigurationReader.Section) -> InsideLink? {
        guard let node = section["inside"],
            let inside = reader.section(node, known: ["local", "remote"])
        else { return nil }
        var ends: [IPAddress] = []
        for side in ["local", "remote"] {
            guard let text = reader.string(inside, side, example: "\"169.254.101.1\""),
                let place = inside[side]
            else {
                if !inside.has(side) {
                    reader.report(
                        inside, side, "is missing",
                        "write both: { local = \"169.254.101.2\", remote = \"169.254.101.1\" }")
                }
                continue
            }
            guard let address = IPAddress(text), !address.isMulticast, !address.isUnspecified else {
                reader.report(
                    place, "\(reader.quoted(text)) is no address of a host",
                    "write one without a length: \"169.254.101.1\"")
                continue
            }
            ends.append(address)
        }
        guard ends.count == 2 else { return nil }
        guard ends[0].family == ends[1].family, ends[0] != ends[1] else {
            reader.report(
                node, "\(ends[0]) and \(ends[1]) are no two ends of a link",
                "write two different addresses of one family")
            return nil
        }
        return InsideLink(local: ends[0], remote: ends[1])
    }

    /// `bind = { device = "eth1", source = "192.0.2.1" }` and `listen-port`.
    private mutating func readBinding(_ section: ConfigurationReader.Section) -> UnderlayBinding {
        var binding = UnderlayBinding()
        binding.listenPort = reader.integer(section, "listen-port", in: 1...65535, meaning: "a UDP port")
            .flatMap { UInt16(exactly: $0) }
        guard let node = section["bind"], let bind = reader.section(node, known: ["device", "source"]) else {
            return binding
        }
        if let device = reader.string(bind, "device", example: "\"eth1\""), let place = bind["device"] {
            if Names.isInterface(device) {
                binding.device = device
            } else {
                reader.report(
                    place, "\(reader.quoted(device)) cannot name an interface", "write its name: \"eth1\"")
            }
        }
        if let source = reader.string(bind, "source", example: "\"192.0.2.1\""), let place = bind["source"] {
            if let address = IPAddress(source), !address.isMulticast, !address.isUnspecified {
                binding.source = address
            } else {
                reader.report(
                    place, "\(reader.quoted(source)) is no address of a host",
                    "write one of this host's: \"192.0.2.1\"")
            }
        }
        return binding
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
