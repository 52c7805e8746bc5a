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
    package var firewallMark: UInt32?
    package var routeTable: RouteTable
    /// Of the routes; nil leaves it to the kernel.
    package var routeMetric: UInt32?
    /// Where the timestamp floor and what else must outlive a run is kept.
    package var stateDirectory: String
    package var connections: [ConnectionConfiguration]
    package var control: ControlConfiguration
    package var hooks: [HookConfiguration] = []

    package enum MTU: Hashable, Sendable {
        /// What the paths to the peers carry, less the outer headers.
        case automatic
        case bytes(Int)
    }

    package enum RouteTable: Hashable, Sendable {
        /// A table of the gateway's own, looked up for every packet that has not the firewall mark, so that
        /// outer packets never match a route into the tunnel. Main when there is no mark.
        case automatic
        /// The main table, without a rule: other daemons see the routes there.
        case main
        /// As automatic, with this number.
        case number(UInt32)
        /// No route is installed; somebody else does it.
        case off
    }

    /// The kernel's number of the table that routes go to; nil: none are installed.
    package var routeTableNumber: UInt32? {
        switch routeTable {
        case .automatic: firewallMark ?? RouteTable.mainNumber
        case .main: RouteTable.mainNumber
        case .number(let number): number
        case .off: nil
        }
    }

    /// Whether the rule `not fwmark MARK lookup TABLE` belongs to this configuration.
    package var needsRoutingRule: Bool {
        guard let table = routeTableNumber else { return false }
        return firewallMark != nil && table != RouteTable.mainNumber
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
    package enum Policy: String, Sendable { case failover }

    package var name: String
    /// Without host bits. They are both what is sent there and what inner source addresses are taken from
    /// there.
    package var routes: [IPPrefix]
    package var policy: Policy
    /// Exactly one in this version.
    package var tunnels: [TunnelConfiguration]
}

/// One path to a far site: a WireGuard peer.
package struct TunnelConfiguration: Sendable {
    /// Unique in the gateway.
    package var name: String
    package var publicKey: PublicKey
    package var presharedKey: PresharedKey
    /// Nil: the far end speaks first.
    package var endpoint: EndpointName?
    /// Lowest first; without effect among one.
    package var priority: Int
    package var weight: Int
    /// The same at the far end; available on this machine.
    package var cipher: Cipher
    /// Seconds; 0 is off.
    package var persistentKeepalive: UInt16
}

/// The far end as written: an address, or a name that is resolved when it is needed.
package enum EndpointName: Hashable, Sendable, CustomStringConvertible {
    case address(Endpoint)
    case name(String, port: UInt16)

    package var description: String {
        switch self {
        case .address(let endpoint): endpoint.description
        case .name(let host, let port): "\(host):\(port)"
        }
    }
}

package struct ControlConfiguration: Hashable, Sendable {
    package var socket: String
}
