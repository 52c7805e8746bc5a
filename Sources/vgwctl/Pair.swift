internal import WireGuard

/// Two sites and the tunnel between them: from what an operator says to both ends' configurations.
struct Pair {
    struct Side {
        var name: String
        /// What lies behind it.
        var prefixes: [IPPrefix]
        /// Where the other side reaches it; nil when it has no address of its own, as behind NAT.
        var endpoint: String?
        /// Of its end of the inside link, with the link's length.
        var address: IPPrefix
        var listenPort: UInt16
    }

    static let defaultPort: UInt16 = 51820
    /// How often the side that cannot be reached speaks, so that what is between keeps the way open.
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

    func drafts() -> (left: ConfigurationDraft, right: ConfigurationDraft) {
        let leftKey = FreshKey.privateKey()
        let rightKey = FreshKey.privateKey()
        let shared = FreshKey.presharedKey()
        return (
            draft(of: left, key: leftKey, to: right, peer: rightKey.publicKey, shared: shared),
            draft(of: right, key: rightKey, to: left, peer: leftKey.publicKey, shared: shared)
        )
    }

    private func draft(
        of side: Side, key: PrivateKey, to other: Side, peer: PublicKey, shared: PresharedKey
    ) -> ConfigurationDraft {
        // The far end's inside address is not within its prefixes, and is what one pings first.
        let inside = IPPrefix(host: other.address.address)
        let routes = other.prefixes + (other.prefixes.contains { $0.contains(inside) } ? [] : [inside])
        return ConfigurationDraft(
            comment: ["\(side.name): its end of the tunnel to \(other.name), made by vgwctl pair."],
            name: side.name,
            listenPort: side.listenPort,
            addresses: [side.address.description],
            privateKey: key,
            connections: [
                ConfigurationDraft.Connection(
                    name: other.name, routes: routes, publicKey: peer, presharedKey: shared, cipher: cipher,
                    endpoint: other.endpoint, persistentKeepalive: side.endpoint == nil ? Self.keepalive : 0)
            ])
    }

    /// What is left to do by hand, after the files are in `folder/NAME`.
    func nextSteps(folder: String) -> [String] {
        var lines: [String] = []
        for (number, side) in [left, right].enumerated() {
            lines += [
                "\(number + 1). Take \(folder)/\(side.name) to \(side.name) over a way that nobody else reads:",
                "     ssh root@\(side.name) install -d -m 700 -o vgwd -g vgwd /etc/vgwd",
                "     scp -p \(folder)/\(side.name)/* root@\(side.name):/etc/vgwd/",
                "     ssh root@\(side.name) 'chown -R vgwd: /etc/vgwd && vgwd check && systemctl enable --now vgwd'",
            ]
        }
        lines.append("3. Let these through on the way:")
        for side in [left, right] {
            if let endpoint = side.endpoint {
                lines.append("     to \(side.name): UDP to \(endpoint)")
            } else {
                lines.append("     from \(side.name): UDP out; it speaks first, every \(Self.keepalive) s")
            }
        }
        lines.append("4. Tell each site to send the other's prefixes to its gateway:")
        for (side, other) in [(left, right), (right, left)] {
            lines.append(
                "     at \(side.name): \(other.prefixes.map(\.description).joined(separator: ", ")), and forwarding on"
            )
        }
        lines += [
            "     in a cloud: a route to the instance, and its source/destination check off",
            "5. Look: vgwctl status; ping \(right.address.address) from \(left.name)",
            "6. Remove \(folder) here: it holds both private keys.",
        ]
        return lines
    }
}
