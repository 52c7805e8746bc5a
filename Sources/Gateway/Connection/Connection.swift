package import WireGuard

/// A far site as the control thread knows it: the prefixes behind it and the tunnels to it.
package struct Connection: Sendable {
    package typealias Policy = ConnectionConfiguration.Policy

    package struct Route: Hashable, Sendable {
        package enum Origin: Hashable, Sendable {
            case configured
            case runtime
        }

        /// Its host bits are zero.
        package let prefix: IPPrefix
        package let origin: Origin

        package init(_ prefix: IPPrefix, origin: Origin) {
            self.prefix = prefix.network
            self.origin = origin
        }
    }

    package let name: String
    package let policy: Policy
    package var routes: [Route]
    package var tunnels: [Tunnel]

    package init(name: String, policy: Policy = .failover, routes: [Route] = [], tunnels: [Tunnel] = []) {
        self.name = name
        self.policy = policy
        self.routes = routes
        self.tunnels = tunnels
    }

    package var prefixes: [IPPrefix] { routes.map(\.prefix) }
}

/// One path to a far site: a WireGuard peer as an operator described it. What it is doing is in `Device`.
package struct Tunnel: Sendable {
    package let name: String
    package let publicKey: PublicKey
    package var presharedKey: PresharedKey
    package let cipher: Cipher
    /// Nil where the far end must come to us first.
    package var endpoint: EndpointName?
    /// In seconds; 0 is off.
    package var persistentKeepalive: UInt16

    package init(
        name: String, publicKey: PublicKey, presharedKey: PresharedKey = .none,
        cipher: Cipher = .chacha20Poly1305, endpoint: EndpointName? = nil, persistentKeepalive: UInt16 = 0
    ) {
        self.name = name
        self.publicKey = publicKey
        self.presharedKey = presharedKey
        self.cipher = cipher
        self.endpoint = endpoint
        self.persistentKeepalive = persistentKeepalive
    }
}

extension Connection {
    package init(_ configuration: ConnectionConfiguration) {
        self.init(
            name: configuration.name, policy: configuration.policy,
            routes: configuration.routes.map { Route($0, origin: .configured) },
            tunnels: configuration.tunnels.map { tunnel in
                Tunnel(
                    name: tunnel.name, publicKey: tunnel.publicKey, presharedKey: tunnel.presharedKey,
                    cipher: tunnel.cipher, endpoint: tunnel.endpoint,
                    persistentKeepalive: tunnel.persistentKeepalive)
            })
    }
}
