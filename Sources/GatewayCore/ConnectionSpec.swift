package import WireGuard

/// A far site as it is wanted: the prefixes behind it and the ways there. What it is doing is in ``Connection``.
package struct ConnectionSpec: Sendable {
    package enum Policy: String, Sendable {
        /// By the tunnel of the lowest priority that is healthy.
        case failover
        /// Flows spread over all healthy tunnels, by weight.
        case balance
    }

    /// What becomes of the kernel's routes while no tunnel is usable.
    package enum OnDown: String, Hashable, Sendable, CaseIterable {
        /// The same prefix, of type unreachable: nothing leaves in clear by a less specific route.
        case unreachable
        /// No route: the less specific one takes over.
        case withdraw
    }

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

    package var name: String
    /// They are both what is sent there and what inner source addresses are taken from there.
    package var routes: ConnectionRoutes
    /// Whether the prefixes that a routing daemon routes to the far end's inside addresses are behind it too.
    package var isDynamic: Bool
    /// Whether no route of others inside its prefixes is taken, however long it is.
    package var isExclusive: Bool
    package var policy: Policy
    /// Among connections to the same prefix the least one that is usable wins; also the metric of the kernel's
    /// routes. Nil is the gateway's.
    package var metric: UInt32?
    package var onDown: OnDown
    package var health: HealthSettings
    /// How long traffic may be lost when a tunnel fails: what a drill is measured against.
    package var recoveryTimeObjective: Duration?
    /// What this host sends to the far site from, of each family one at most; empty where it is guessed.
    package var sources: [IPAddress]
    /// Between sites whose prefixes overlap.
    package var translations: [PrefixTranslationSpec]
    /// Bits a second of outer packets, all tunnels together; nil is no limit.
    package var rateLimit: UInt64?
    /// Whether the inner packet's DSCP shows on the outer one.
    package var copiesDSCP: Bool
    /// One or more.
    package var tunnels: [TunnelSpec]

    /// Each default is that of a configuration that leaves the key out.
    package init(
        name: String, routes: [IPPrefix] = [], isDynamic: Bool = false, isExclusive: Bool = false,
        policy: Policy = .failover, metric: UInt32? = nil, onDown: OnDown = .unreachable,
        health: HealthSettings = HealthSettings(), recoveryTimeObjective: Duration? = nil,
        sources: [IPAddress] = [], translations: [PrefixTranslationSpec] = [], rateLimit: UInt64? = nil,
        copiesDSCP: Bool = false, tunnels: [TunnelSpec]
    ) {
        self.name = name
        self.routes = ConnectionRoutes(routes.lazy.map { Route($0, origin: .configured) })
        self.isDynamic = isDynamic
        self.isExclusive = isExclusive
        self.policy = policy
        self.metric = metric
        self.onDown = onDown
        self.health = health
        self.recoveryTimeObjective = recoveryTimeObjective
        self.sources = sources
        self.translations = translations
        self.rateLimit = rateLimit
        self.copiesDSCP = copiesDSCP
        self.tunnels = tunnels
    }

    package var prefixes: [IPPrefix] { routes.map(\.prefix) }

    /// Whether what it once has learned stays out of the clear for good.
    package var guardsLearned: Bool { isDynamic && onDown == .unreachable }

    package func carries(_ prefix: IPPrefix) -> Bool { routes[prefix] != nil }
}

/// Our `inside` is `outside` to the far site, host by host.
package struct PrefixTranslationSpec: Hashable, Sendable {
    package var inside: IPPrefix
    package var outside: IPPrefix

    package init(inside: IPPrefix, outside: IPPrefix) {
        self.inside = inside
        self.outside = outside
    }
}

/// One path to a far site as it is wanted: a WireGuard peer. What it is doing is in ``Tunnel``.
package struct TunnelSpec: Sendable {
    /// Unique in the gateway.
    package var name: String
    package var publicKey: PublicKey
    /// Ours in this tunnel; nil is the gateway's.
    package var privateKey: PrivateKey?
    package var presharedKey: PresharedKey
    /// The preferred one first; none: the far end speaks first.
    package var endpoints: [EndpointName]
    package var binding: UnderlayBinding
    /// The two ends of the link inside the tunnel, which probes go between.
    package var inside: InsideLink?
    /// Lowest first; without effect among one.
    package var priority: Int
    /// Share of the flows, under policy balance.
    package var weight: Int
    /// The same at the far end; available on this machine.
    package var cipher: Cipher
    /// Seconds; 0 is off.
    package var persistentKeepalive: UInt16
    /// Bits a second of outer packets; nil is no limit.
    package var rateLimit: UInt64?

    package static let defaultPriority = 10

    /// Each default is that of a configuration that leaves the key out.
    package init(
        name: String, publicKey: PublicKey, privateKey: PrivateKey? = nil,
        presharedKey: PresharedKey = .none, endpoints: [EndpointName] = [],
        binding: UnderlayBinding = UnderlayBinding(), inside: InsideLink? = nil,
        priority: Int = defaultPriority, weight: Int = 1, cipher: Cipher = .chacha20Poly1305,
        persistentKeepalive: UInt16 = 0, rateLimit: UInt64? = nil
    ) {
        self.name = name
        self.publicKey = publicKey
        self.privateKey = privateKey
        self.presharedKey = presharedKey
        self.endpoints = endpoints
        self.binding = binding
        self.inside = inside
        self.priority = priority
        self.weight = weight
        self.cipher = cipher
        self.persistentKeepalive = persistentKeepalive
        self.rateLimit = rateLimit
    }

    package var keys: TunnelKeys { TunnelKeys(ours: privateKey?.publicKey, theirs: publicKey) }
}

/// The public keys that a tunnel is between: ours only where it has one of its own.
package struct TunnelKeys: Hashable, Sendable {
    package let ours: PublicKey?
    package let theirs: PublicKey

    package init(ours: PublicKey?, theirs: PublicKey) {
        self.ours = ours
        self.theirs = theirs
    }
}

/// The wire that a tunnel leaves by, where the routing table is not to choose it.
package struct UnderlayBinding: Hashable, Sendable {
    /// Nil is the gateway's port.
    package var listenPort: UInt16?
    /// SO_BINDTODEVICE: whatever the routes say.
    package var device: String?
    package var source: IPAddress?

    package init(listenPort: UInt16? = nil, device: String? = nil, source: IPAddress? = nil) {
        self.listenPort = listenPort
        self.device = device
        self.source = source
    }

    /// The gateway's own sockets do.
    package var isDefault: Bool { self == UnderlayBinding() }
}

/// The far end as written: an address, or a name that is resolved when it is needed. A link-local address whose
/// interface is named (`fe80::1%eth0`) is a name too: the interface may come later, and with another index.
package enum EndpointName: Hashable, Sendable, CustomStringConvertible {
    case address(Endpoint)
    case name(String, port: UInt16)

    package var description: String {
        switch self {
        case .address(let endpoint): endpoint.description
        case .name(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        }
    }
}
