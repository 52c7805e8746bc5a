package import WireGuard

/// A whole configuration after every check: what is in here can be applied. Made by `load(path:)`.
package struct GatewayConfiguration: Sendable {
    package static let defaultPath = "/etc/vgwd/vgwd.toml"
    package static let defaultInterface = "vgw0"
    package static let defaultPort: UInt16 = 51820
    package static let defaultStateDirectory = "/var/lib/vgwd"
    package static let defaultSocket = "/run/vgwd/vgwd.sock"
    package static let mtuRange = 1280...65535

    package var name: String
    package var interface: String
    /// 0 lets the kernel choose.
    package var listenPort: UInt16
    package var privateKey: PrivateKey
    /// Host addresses with the prefix of the inside link: `169.254.100.2/30`.
    package var addresses: [IPPrefix]
    package var mtu: MTU
    package var offloads: OffloadConfiguration
    /// Pairs of data threads, each with a queue of the TUN device and a socket of its own.
    package var workers: Int
    /// What the UDP sockets' packets are marked with; nil: no mark and no rule.
    package var firewallMark: RoutingNumbers.Wish?
    package var routeTable: RouteTable
    /// False: rules of somebody else lead to the table, and to nothing else of ours.
    package var makesRules = true
    /// Metric of the routes into the TUN; nil leaves it to the kernel.
    package var routeMetric: UInt32?
    /// Where the timestamp floor and what else must outlive a run is kept.
    package var stateDirectory: String
    /// Asked for the names of endpoints in place of those in /etc/resolv.conf; empty where those are asked.
    package var nameServers: [Endpoint]
    package var connections: [ConnectionConfiguration]
    package var control: ControlConfiguration
    package var hooks: [HookConfiguration] = []
    /// Paths of the files of `conf.d` that were read too, in their order.
    package var dropIns: [String] = []
    /// What is right in the file and may not work on this host now, in the order of lines.
    package var warnings: [ConfigurationError] = []

    package enum MTU: Hashable, Sendable {
        /// What the paths to the peers carry, less the outer headers.
        case automatic
        case bytes(Int)
    }

    package enum RouteTable: Hashable, Sendable {
        /// A table of the gateway's own, looked up for every packet that has not the firewall mark, so that
        /// outer packets never match a route into the tunnel: the one with the mark's number, if it is free. Main
        /// when there is no mark.
        case automatic
        /// The main table, without a rule: other daemons see the routes there.
        case main
        /// As automatic, with this number; without rules of ours, somebody else's lead there.
        case number(UInt32)
        /// No route is installed; somebody else does it.
        case off
    }

    /// What the interface gets: its own, and the near ends of its tunnels' inside links.
    package var interfaceAddresses: [IPPrefix] {
        var addresses = addresses
        for local in connections.flatMap(\.tunnels).compactMap(\.inside?.local)
        where !addresses.contains(where: { $0.address == local }) {
            addresses.append(IPPrefix(host: local))
        }
        return addresses
    }

    /// The numbers of rules and tables, as far as they are said.
    package var routingNumbers: RoutingNumbers.Wishes {
        let table: RoutingNumbers.Wish? =
            switch routeTable {
            case .automatic:
                switch firewallMark {
                case .fixed(let mark), .free(let mark): .free(from: mark)
                case nil: .fixed(RouteTable.mainNumber)
                }
            case .main: .fixed(RouteTable.mainNumber)
            case .number(let number): .fixed(number)
            case .off: nil
            }
        return RoutingNumbers.Wishes(mark: firewallMark, table: table)
    }
}

extension GatewayConfiguration.RouteTable {
    /// RT_TABLE_MAIN of rtnetlink.
    package static let mainNumber: UInt32 = 254
}

/// False turns an offload off; true leaves it to the probe at start.
package struct OffloadConfiguration: Hashable, Sendable {
    package var udpGSO = true
    package var udpGRO = true
    package var tun = true

    package init(udpGSO: Bool = true, udpGRO: Bool = true, tun: Bool = true) {
        self.udpGSO = udpGSO
        self.udpGRO = udpGRO
        self.tun = tun
    }
}

/// A far site: the prefixes behind it and the ways there.
package struct ConnectionConfiguration: Sendable {
    package enum Policy: String, Sendable {
        /// By the tunnel of the lowest priority that is healthy.
        case failover
        /// Flows spread over all healthy tunnels, by weight.
        case balance
    }

    /// What becomes of the kernel's routes while no tunnel is usable.
    package enum OnDown: String, Sendable {
        /// The same prefix, of type unreachable: nothing leaves in clear by a less specific route.
        case unreachable
        /// No route: the less specific one takes over.
        case withdraw
    }

    package var name: String
    /// Without host bits. They are both what is sent there and what inner source addresses are taken from
    /// there.
    package var routes: [IPPrefix]
    /// Whether the prefixes that a routing daemon routes to the far end's inside addresses are behind it too.
    package var isDynamic: Bool
    /// Whether no route of others inside its prefixes is taken, however long it is.
    package var isExclusive = false
    package var policy: Policy
    /// Among connections to the same prefix the least one that is usable wins; also the metric of the kernel's
    /// routes. Nil is the gateway's.
    package var metric: UInt32?
    package var onDown: OnDown
    package var health: HealthSettings
    /// How long traffic may be lost when a tunnel fails: what a drill is measured against.
    package var recoveryTimeObjective: Duration?
    /// What this host sends to the far site from, of each family one at most; empty where `PreferredSource` guesses.
    package var sources: [IPAddress] = []
    /// What `PreferredSource` guessed when the file was read, for `vgwd check`.
    package var guessedSources: [PreferredSource] = []
    /// Between sites whose prefixes overlap.
    package var translations: [PrefixTranslationConfiguration]
    /// Bits a second of outer packets, all tunnels together; nil is no limit.
    package var rateLimit: UInt64?
    /// Whether the inner packet's DSCP shows on the outer one.
    package var copiesDSCP: Bool
    /// One or more.
    package var tunnels: [TunnelConfiguration]
}

/// Our `inside` is `outside` to the far site, host by host.
package struct PrefixTranslationConfiguration: Hashable, Sendable {
    package var inside: IPPrefix
    package var outside: IPPrefix
}

/// One path to a far site: a WireGuard peer.
package struct TunnelConfiguration: Sendable {
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

package struct ControlConfiguration: Hashable, Sendable {
    package var socket: String
}
