internal import WireGuard

extension GatewayConfiguration {
    /// What would be applied, for `vgwd check`: every value as it takes effect, defaults too, and no secret.
    package var summary: String {
        var rows: [(String, String)] = [
            ("gateway", name),
            ("interface", "\(interface), mtu \(mtuText)"),
            ("addresses", list(addresses, or: "none: the interface is unnumbered")),
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
        if connections.isEmpty {
            rows.append(("connections", "none: nothing is sent until 'wg set' adds a peer"))
        }
        for connection in connections {
            rows.append(("", ""))
            rows.append(("connection", connection.name))
            rows.append(("  routes", list(connection.routes, or: "none")))
            for tunnel in connection.tunnels {
                rows.append(("  tunnel", tunnel.name))
                rows.append(("    public key", tunnel.publicKey.base64))
                rows.append(
                    ("    endpoint", tunnel.endpoint?.description ?? "not known: the far end speaks first"))
                rows.append(("    pre-shared key", tunnel.presharedKey.isNone ? "none" : "yes"))
                rows.append(("    cipher", tunnel.cipher.rawValue))
                rows.append(
                    (
                        "    keepalive",
                        tunnel.persistentKeepalive == 0 ? "off" : "every \(tunnel.persistentKeepalive) s"
                    ))
            }
        }
        for hook in hooks {
            rows.append(("", ""))
            rows.append(("hook", hook.run.joined(separator: " ")))
            rows.append(("  on", hook.on.joined(separator: ", ")))
            rows.append(("  timeout", Durations.text(hook.timeout)))
        }
        return rows.map { label, value in
            let padding = String(repeating: " ", count: max(0, 20 - label.count))
            return label.isEmpty ? "" : label + padding + value
        }.joined(separator: "\n")
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
        guard let table = routeTableNumber else { return "no table: somebody else installs them" }
        let metric = routeMetric.map { ", metric \($0)" } ?? ""
        let place = table == RouteTable.mainNumber ? "table main" : "table \(table)"
        guard let mark = firewallMark else { return "\(place)\(metric); outer packets have no mark" }
        return needsRoutingRule
            ? "\(place)\(metric), for packets without mark \(mark) (outer ones have it)"
            : "\(place)\(metric); outer packets have mark \(mark)"
    }

    private func list(_ prefixes: [IPPrefix], or none: String) -> String {
        prefixes.isEmpty ? none : prefixes.map(\.description).joined(separator: ", ")
    }
}
