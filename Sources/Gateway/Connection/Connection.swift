package import WireGuard

/// A far site as the control thread knows it: the prefixes behind it and the tunnels to it.
package struct Connection: Sendable {
    package typealias Policy = ConnectionConfiguration.Policy
    package typealias OnDown = ConnectionConfiguration.OnDown

    package struct Route: Hashable, Sendable {
        package enum Origin: Hashable, Sendable {
            case configured
            case runtime
            /// Allowed to a peer by `wg`.
            case wg
            /// Added at run time, and kept for the next run.
            case kept
            /// A routing daemon's: the kernel has it, and loses it, by that one's doing.
            case learned
        }

        /// Its host bits are zero.
        package let prefix: IPPrefix
        package let origin: Origin
        /// Metric of the kernel's route, where it is learned.
        package let metric: UInt32?

        package init(_ prefix: IPPrefix, origin: Origin, metric: UInt32? = nil) {
            self.prefix = prefix.network
            self.origin = origin
            self.metric = metric
        }
    }

    package let name: String
    package let policy: Policy
    package let isDynamic: Bool
    package let isExclusive: Bool
    package let metric: UInt32?
    package let onDown: OnDown
    package let health: HealthSettings
    package let recoveryTimeObjective: Duration?
    /// What this host sends to the far site from; empty where `PreferredSource` guesses.
    package let sources: [IPAddress]
    package let translations: [PrefixTranslationConfiguration]
    package let rateLimit: UInt64?
    package let copiesDSCP: Bool
    package var routes: ConnectionRoutes
    package var tunnels: [Tunnel]

    package var prefixes: [IPPrefix] { routes.map(\.prefix) }

    /// Whether what it once has learned stays out of the clear for good.
    package var guardsLearned: Bool { isDynamic && onDown == .unreachable }

    package func carries(_ prefix: IPPrefix) -> Bool { routes[prefix] != nil }
}

/// One path to a far site: a WireGuard peer as an operator described it. What it is doing is in `Device`.
package struct Tunnel: Sendable {
    /// Unique in the gateway.
    package let name: String
    package let publicKey: PublicKey
    /// Ours in this tunnel; nil is the gateway's.
    package let privateKey: PrivateKey?
    package var presharedKey: PresharedKey
    package let cipher: Cipher
    /// The preferred one first; empty where the far end must come to us first.
    package var endpoints: [EndpointName]
    package let binding: UnderlayBinding
    package let inside: InsideLink?
    package let priority: Int
    package let weight: Int
    package let rateLimit: UInt64?
    /// In seconds; 0 is off.
    package var persistentKeepalive: UInt16

    package var key: TunnelKey { TunnelKey(ours: privateKey?.publicKey, theirs: publicKey) }
}

/// The keys that a tunnel is between: ours only where it has one of its own.
package struct TunnelKey: Hashable, Sendable {
    package let ours: PublicKey?
    package let theirs: PublicKey
}

extension Connection {
    package init(_ configuration: ConnectionConfiguration) {
        name = configuration.name
        policy = configuration.policy
        isDynamic = configuration.isDynamic
        isExclusive = configuration.isExclusive
        metric = configuration.metric
        onDown = configuration.onDown
        health = configuration.health
        recoveryTimeObjective = configuration.recoveryTimeObjective
        sources = configuration.sources
        translations = configuration.translations
        rateLimit = configuration.rateLimit
        copiesDSCP = configuration.copiesDSCP
        routes = ConnectionRoutes(configuration.routes.lazy.map { Route($0, origin: .configured) })
        tunnels = configuration.tunnels.map { Tunnel($0) }
    }

    /// A peer that `wg` added: all that its language has no word for is as in a configuration that leaves it
    /// out.
    package init(name: String, peer: PublicKey, cipher: Cipher = .chacha20Poly1305) {
        self.init(
            ConnectionConfiguration(
                name: name, routes: [], isDynamic: false, policy: .failover, metric: nil,
                onDown: .unreachable, health: HealthSettings(), recoveryTimeObjective: nil, translations: [],
                rateLimit: nil, copiesDSCP: false,
                tunnels: [
                    TunnelConfiguration(
                        name: name, publicKey: peer, privateKey: nil, presharedKey: .none, endpoints: [],
                        binding: UnderlayBinding(), inside: nil, priority: 10, weight: 1, cipher: cipher,
                        persistentKeepalive: 0, rateLimit: nil)
                ]))
    }
}

extension Tunnel {
    package init(_ configuration: TunnelConfiguration) {
        name = configuration.name
        publicKey = configuration.publicKey
        privateKey = configuration.privateKey
        presharedKey = configuration.presharedKey
        cipher = configuration.cipher
        endpoints = configuration.endpoints
        binding = configuration.binding
        inside = configuration.inside
        priority = configuration.priority
        weight = configuration.weight
        rateLimit = configuration.rateLimit
        persistentKeepalive = configuration.persistentKeepalive
    }
}
