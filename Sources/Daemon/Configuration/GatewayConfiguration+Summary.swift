internal import ControlAPI
internal import GatewayCore
internal import WireGuard

extension GatewayConfiguration {
    /// What would be applied, for `vgwd check`: every value as it takes effect, defaults too, and no secret.
    package func summary(width: Int? = nil) -> String {
        var rows: [(String, String)] = [
            ("gateway", name),
            ("interface", "\(interface), mtu \(mtuText)"),
            ("addresses", list(interfaceAddresses, or: "none: the interface is unnumbered")),
            (
                "listens on",
                "UDP port \(listenPort == 0 ? "of the kernel's choice" : String(listenPort)), IPv4 and IPv6"
            ),
            ("public key", privateKey.publicKey.base64),
            ("offloads", offloadText),
            ("workers", workers == 1 ? "1 pair of data threads" : "\(workers) pairs of data threads"),
            ("routes go to", tableText),
            ("state", stateDirectory),
            ("control", control.socket),
        ]
        if !dropIns.isEmpty { rows.append(("also read", dropIns.joined(separator: ", "))) }
        if !nameServers.isEmpty {
            rows.append(("names are asked of", nameServers.map(\.description).joined(separator: ", ")))
        }
        if connections.isEmpty {
            rows.append(("connections", "none: nothing is sent until 'wg set' adds a peer"))
        }
        for connection in connections { rows += self.rows(of: connection) }
        for hook in hooks {
            rows.append(("", ""))
            rows.append(("hook", Printable.blanking(hook.run.joined(separator: " "))))
            rows.append(("  on", hook.on.joined(separator: ", ")))
            rows.append(("  timeout", Durations.text(hook.timeout)))
        }
        return rows.flatMap { label, value in
            let first = label + String(repeating: " ", count: max(0, 20 - label.count))
            guard !label.isEmpty else { return [""] }
            return width.map { Prose.wrapped(value, first: first, width: $0) } ?? [first + value]
        }.joined(separator: "\n")
    }

    private func rows(of connection: ConnectionSpec) -> [(String, String)] {
        let routes = list(connection.prefixes, or: connection.isDynamic ? "" : "none")
        let learned = connection.isDynamic ? "what the kernel routes to the far end's inside addresses" : ""
        var rows = [
            ("", ""), ("connection", connection.name),
            ("  routes", [routes, learned].filter { !$0.isEmpty }.joined(separator: ", and ")),
            ("  policy", connection.policy.rawValue),
            (
                "  on down",
                connection.onDown == .unreachable
                    ? "its prefixes are unreachable" : "its routes are withdrawn"
            ),
            ("  health", Self.text(of: connection.health, tunnels: connection.tunnels)),
            (
                "  rto",
                connection.recoveryTimeObjective.map {
                    "\(Durations.text($0)), which a drill is measured against"
                }
                    ?? "none: a drill says how long traffic is lost, and does not judge it"
            ),
        ]
        if let source = text(ofSources: connection) { rows.append(("  source", source)) }
        if connection.isExclusive {
            rows.append(("  exclusive", "no route of others inside its prefixes is taken"))
        }
        if let metric = connection.metric { rows.append(("  metric", "\(metric)")) }
        rows.append(("  rate limit", connection.rateLimit.map(Self.text(ofRate:)) ?? "none"))
        for pair in connection.translations {
            rows.append(("  nat", "\(pair.inside) is \(pair.outside) to the far site"))
        }
        for tunnel in connection.tunnels { rows += self.rows(of: tunnel, in: connection) }
        return rows
    }

    private func rows(
        of tunnel: TunnelSpec, in connection: ConnectionSpec
    ) -> [(String, String)] {
        let policy = connection.policy
        let endpoints = tunnel.endpoints.map(\.description).joined(separator: ", then ")
        var rows = [
            ("  tunnel", tunnel.name), ("    public key", tunnel.publicKey.base64),
            ("    endpoint", endpoints.isEmpty ? "not known: the far end speaks first" : endpoints),
        ]
        if let key = tunnel.privateKey {
            rows.append(("    our public key", "\(key.publicKey.base64), of this tunnel alone"))
        }
        if let inside = tunnel.inside {
            rows.append(("    inside", "\(inside.local) here, \(inside.remote) there"))
        } else if connection.health.isOn {
            rows.append(
                (
                    "    not probed",
                    "it has no inside addresses: a cut is noticed by handshakes alone, after 20 s of traffic"
                ))
        }
        if !tunnel.binding.isDefault {
            let parts = [
                tunnel.binding.device.map { "device \($0)" },
                tunnel.binding.source.map { "source \($0)" },
                tunnel.binding.listenPort.map { "UDP port \($0)" },
            ]
            rows.append(("    leaves by", parts.compactMap(\.self).joined(separator: ", ")))
        }
        rows += [
            (
                policy == .failover ? "    priority" : "    weight",
                "\(policy == .failover ? tunnel.priority : tunnel.weight)"
            ),
            ("    pre-shared key", tunnel.presharedKey.isNone ? "none" : "yes"),
            ("    cipher", tunnel.cipher.rawValue),
            (
                "    keepalive",
                tunnel.persistentKeepalive == 0 ? "off" : "every \(tunnel.persistentKeepalive) s"
            ),
        ]
        rows.append(("    rate limit", tunnel.rateLimit.map(Self.text(ofRate:)) ?? "none"))
        return rows
    }

    private static func text(of health: HealthSettings, tunnels: [TunnelSpec]) -> String {
        guard health.isOn else { return "off: handshakes tell when the far end is gone" }
        let unprobed = tunnels.filter { $0.inside == nil }.map(\.name)
        guard unprobed.count < tunnels.count else {
            return
                "no probes: no tunnel has inside addresses; write inside = { local = \"…\", remote = \"…\" }"
        }
        var text =
            "a probe every \(health.interval.wholeNanoseconds / 1_000_000) ms, down after \(health.downAfter) unanswered, "
            + "up after \(health.upAfter) answered"
        let limits = [
            health.maxLoss.map { "\(Int(($0 * 100).rounded())) % of them are lost" },
            health.maxRoundTrip.map { "they take more than \(Durations.text($0))" },
        ].compactMap(\.self)
        text +=
            limits.isEmpty
            ? ", no limit of loss or delay" : ", degraded where \(limits.joined(separator: " or "))"
        if !health.targets.isEmpty {
            text += ", targets " + health.targets.map(\.description).joined(separator: ", ")
            text += " asked from " + (health.source?.description ?? "the inside addresses")
        }
        if !unprobed.isEmpty {
            text += "; not \(unprobed.joined(separator: ", ")), without inside addresses"
        }
        return text
    }

    /// Nil where no route of ours has one.
    private func text(ofSources connection: ConnectionSpec) -> String? {
        guard !connection.routes.isEmpty else { return nil }
        let families = Set(connection.prefixes.map(\.family))
        let guesses = (guessedSources[connection.name] ?? []).filter { families.contains($0.address.family) }
        let sources =
            connection.sources.isEmpty
            ? guesses.map { "\($0.address), of \($0.interface)" } : connection.sources.map(\.description)
        guard !sources.isEmpty else {
            return "the inside address, for what this gateway sends itself: write source = \"…\" to choose"
        }
        return "\(sources.joined(separator: " and ")), for what this gateway sends itself"
    }

    private static func text(ofRate rate: UInt64) -> String {
        rate % 1_000_000 == 0 ? "\(rate / 1_000_000) Mbit/s" : "\(rate / 1000) kbit/s"
    }

    private var mtuText: String {
        switch mtu {
        case .automatic: "auto"
        case .bytes(let bytes): String(bytes)
        }
    }

    private var offloadText: String {
        let states = [
            ("udp-gso", offloads.udpGSO), ("udp-gro", offloads.udpGRO), ("tun-offload", offloads.tun),
        ]
        return states.map { "\($0.0) \($0.1 ? "if the kernel can" : "off")" }.joined(separator: ", ")
    }

    private var tableText: String {
        let numbers = routingNumbers.preferred
        guard let table = numbers.table else { return "no table: somebody else installs them" }
        let metric = routeMetric.map { ", metric \($0)" } ?? ""
        let place = table == RouteTable.mainNumber ? "table main" : "table \(table)"
        guard makesRules else { return "\(place)\(metric), which rules of yours lead to; \(markText)" }
        guard numbers.mark != 0 else { return "\(place)\(metric); \(markText)" }
        let rule =
            table == RouteTable.mainNumber
            ? "; \(markText)"
            : ", for packets without mark \(numbers.mark) (outer ones have it)"
        let others = routingNumbers.first == nil ? "" : ", or the next numbers that are free"
        return place + metric + rule + others
    }

    private var markText: String {
        let mark = routingNumbers.preferred.mark
        return mark == 0 ? "outer packets have no mark" : "outer packets have mark \(mark)"
    }

    private func list(_ prefixes: [IPPrefix], or none: String) -> String {
        prefixes.isEmpty ? none : prefixes.map(\.description).joined(separator: ", ")
    }
}
