package import GatewayCore
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
    package var connections: [ConnectionSpec]
    /// What `PreferredSource` guessed for each connection when the file was read, by its name: for `vgwd check`.
    package var guessedSources: [String: [PreferredSource]] = [:]
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

package struct ControlConfiguration: Hashable, Sendable {
    package var socket: String
}
