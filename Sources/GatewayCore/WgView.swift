package import WireGuard

/// What `wg` can change of a gateway, without a secret: what the configuration file said, to be compared with what is so
/// now. Keys are not kept for it: of a pre-shared key there is a fingerprint.
package struct WgView: Sendable {
    struct Peer: Hashable, Sendable {
        var name: String
        var endpoints: [EndpointName]
        var persistentKeepalive: UInt16
        var pskFingerprint: [UInt8]
        /// Nil for those of a connection's tunnels that are not the first: `wg` gives a prefix to one peer.
        var prefixes: Set<IPPrefix>?
    }

    var publicKey: PublicKey?
    /// 0 is of the kernel's choice.
    var listenPort: UInt16
    var firewallMark: UInt32
    var peers: [PublicKey: Peer] = [:]

    /// `salt` is a secret of this run. What an operator added by `vgwctl`, or a routing daemon, is left out.
    package init(_ spec: GatewaySpec, salt: SecretBytes) {
        publicKey = spec.privateKey?.publicKey
        listenPort = spec.listenPort
        firewallMark = spec.firewallMark
        for connection in spec.connections {
            let prefixes = connection.routes.filter { [.configured, .wg].contains($0.origin) }.map(\.prefix)
            for (place, tunnel) in connection.tunnels.enumerated() where tunnel.privateKey == nil {
                peers[tunnel.publicKey] = Peer(
                    name: tunnel.name, endpoints: tunnel.endpoints,
                    persistentKeepalive: tunnel.persistentKeepalive,
                    pskFingerprint: tunnel.presharedKey.fingerprint(salt: salt),
                    prefixes: place == 0 ? Set(prefixes) : nil)
            }
        }
    }

    /// In words, one thing each: what is so in this one and not in `before`.
    package func differences(from before: WgView) -> [String] {
        var found: [String] = []
        if publicKey != before.publicKey {
            found.append(
                publicKey.map { "another private key, of public key \($0.base64)" } ?? "no private key")
        }
        if listenPort != before.listenPort {
            found.append(
                "listen port \(listenPort), not \(before.listenPort == 0 ? "of the kernel's choice" : "\(before.listenPort)")"
            )
        }
        if firewallMark != before.firewallMark {
            found.append("firewall mark \(firewallMark), not \(before.firewallMark)")
        }
        for (key, peer) in before.peers.sorted(by: { $0.value.name < $1.value.name }) where peers[key] == nil
        {
            found.append("tunnel \(peer.name) removed")
        }
        for (key, peer) in peers.sorted(by: { $0.value.name < $1.value.name }) {
            if let old = before.peers[key] {
                found += peer.differences(from: old).map { "tunnel \(peer.name): \($0)" }
            } else {
                let allowed = Self.list((peer.prefixes ?? []).map(\.description), sign: "")
                found.append(
                    "peer \(key.base64) added\(allowed.isEmpty ? "" : ", with allowed IPs \(allowed)")")
            }
        }
        return found
    }

    private static let listLimit = 4

    fileprivate static func list(_ items: [String], sign: String) -> String {
        let shown = items.sorted().prefix(listLimit).map { sign + $0 }.joined(separator: " ")
        return items.count > listLimit ? "\(shown) and \(items.count - listLimit) more" : shown
    }
}

extension WgView.Peer {
    fileprivate func differences(from old: WgView.Peer) -> [String] {
        var found: [String] = []
        if endpoints != old.endpoints {
            func text(_ endpoints: [EndpointName]) -> String {
                endpoints.isEmpty ? "none" : endpoints.map(\.description).joined(separator: " ")
            }
            found.append("endpoint \(text(endpoints)), not \(text(old.endpoints))")
        }
        if pskFingerprint != old.pskFingerprint {
            found.append(
                pskFingerprint.isEmpty
                    ? "no pre-shared key"
                    : old.pskFingerprint.isEmpty ? "a pre-shared key" : "another pre-shared key")
        }
        if persistentKeepalive != old.persistentKeepalive {
            func text(_ seconds: UInt16) -> String { seconds == 0 ? "off" : "\(seconds) s" }
            found.append("keepalive \(text(persistentKeepalive)), not \(text(old.persistentKeepalive))")
        }
        if let prefixes, let before = old.prefixes, prefixes != before {
            let added = WgView.list(prefixes.subtracting(before).map(\.description), sign: "+")
            let removed = WgView.list(before.subtracting(prefixes).map(\.description), sign: "-")
            found.append("allowed IPs " + [added, removed].filter { !$0.isEmpty }.joined(separator: " "))
        }
        return found
    }
}
