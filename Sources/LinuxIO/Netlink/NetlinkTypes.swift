internal import Glibc
package import WireGuard

/// A network interface.
package struct NetlinkLink: Hashable, Sendable {
    package let index: UInt32
    package let name: String
    package let mtu: Int
    /// IFF_UP: the administrator's wish, not the carrier's state.
    package let isUp: Bool
    /// IFF_LOWER_UP: there is something at the other end of the wire.
    package let hasCarrier: Bool
    /// IFF_POINTOPOINT: there is one other end, as of a tunnel.
    package let isPointToPoint: Bool
    /// What kind of software device it is, in the kernel's words (IFLA_INFO_KIND): `bridge`, `wireguard`. A TAP device
    /// is `tap` here, which the kernel calls `tun` too. Nil for hardware and the loopback.
    package let kind: String?

    package init(
        index: UInt32, name: String, mtu: Int, isUp: Bool, hasCarrier: Bool = true,
        isPointToPoint: Bool = false, kind: String? = nil
    ) {
        self.index = index
        self.name = name
        self.mtu = mtu
        self.isUp = isUp
        self.hasCarrier = hasCarrier
        self.isPointToPoint = isPointToPoint
        self.kind = kind
    }

    /// Whether a program can attach to it as a TUN device.
    package var isTun: Bool { kind == "tun" }
}

/// An address on an interface.
package struct NetlinkAddress: Hashable, Sendable {
    /// The address, host bits included, with the length of its network.
    package let prefix: IPPrefix
    /// The far end of a point-to-point address; nil where it is our own.
    package let peer: IPAddress?
    package let interface: UInt32

    package init(prefix: IPPrefix, peer: IPAddress? = nil, interface: UInt32) {
        self.prefix = prefix
        self.peer = peer
        self.interface = interface
    }
}

/// Where a route leads next.
package struct NetlinkHop: Hashable, Sendable {
    /// 0 where the kernel finds it by the gateway.
    package let interface: UInt32
    /// An IPv4 route may have one of IPv6 (RFC 8950). Nil: the destination is on the link.
    package let gateway: IPAddress?

    package init(interface: UInt32, gateway: IPAddress? = nil) {
        self.interface = interface
        self.gateway = gateway
    }
}

/// A route in one of the kernel's tables.
package struct NetlinkRoute: Hashable, Sendable {
    package enum Kind: UInt8, Sendable {
        case unicast = 1
        case local = 2
        case blackhole = 6
        case unreachable = 7
        case prohibit = 8
    }

    /// vgwd's own protocol, named in conf/rt_protos.d.
    package static let ownProtocol: UInt8 = 153
    package static let mainTable: UInt32 = 254
    package static let localTable: UInt32 = 255

    /// RTPROT_* of rtnetlink.h: what the kernel makes by itself, for a redirect and for an address.
    package static let redirectProtocol: UInt8 = 1
    package static let kernelProtocol: UInt8 = 2

    // The order keeps a route small: there may be 100,000.

    /// With its host bits cleared.
    package let destination: IPPrefix
    package let kind: Kind
    package let `protocol`: UInt8
    /// The first next hop's; 0 where the kind has none.
    package let interface: UInt32
    package let table: UInt32
    /// Less is preferred. The kernel turns an IPv6 metric of 0 into 1024, and so does `init`.
    package let metric: UInt32
    /// Behind the first: those of a multipath route.
    package let otherHops: [NetlinkHop]
    package let gateway: IPAddress?
    /// The source that locally made packets take.
    package let preferredSource: IPAddress?

    package init(
        destination: IPPrefix, interface: UInt32, gateway: IPAddress? = nil, otherHops: [NetlinkHop] = [],
        table: UInt32 = mainTable, protocol: UInt8 = ownProtocol, metric: UInt32 = 0, kind: Kind = .unicast,
        preferredSource: IPAddress? = nil
    ) {
        self.destination = destination.network
        // The kernel gives an IPv6 route without a way the loopback interface.
        self.interface = kind == .unicast || kind == .local ? interface : 0
        self.gateway = gateway
        self.otherHops = otherHops
        self.table = table
        self.protocol = `protocol`
        self.metric = destination.family == .v6 && metric == 0 ? 1024 : metric
        self.kind = kind
        self.preferredSource = preferredSource
    }

    /// By what tells most routes of a host apart.
    package func hash(into hasher: inout Hasher) {
        hasher.combine(destination)
        hasher.combine(table ^ metric &* 31 ^ UInt32(kind.rawValue) << 16)
    }

    package var hops: [NetlinkHop] { [NetlinkHop(interface: interface, gateway: gateway)] + otherHops }
}

/// A rule on the firewall mark: `[not] [to PREFIX] [fwmark MARK/MASK] lookup TABLE [suppress_prefixlength N]`.
package struct NetlinkRule: Hashable, Sendable {
    package let family: IPAddress.Family
    /// Rules are tried from the lowest on. 0 leaves it to the kernel.
    package let priority: UInt32
    /// Nil matches every packet.
    package let mark: UInt32?
    package let mask: UInt32
    /// Matches the packets that do not have the mark. With a destination too, those that lack either.
    package let isInverted: Bool
    /// Nil matches every destination.
    package let destination: IPPrefix?
    package let table: UInt32
    /// A route this short or shorter counts as not found, and the next rule is tried.
    package let suppressedPrefixLength: UInt32?
    package let `protocol`: UInt8

    package init(
        family: IPAddress.Family, priority: UInt32, mark: UInt32?, mask: UInt32 = .max,
        isInverted: Bool = false, destination: IPPrefix? = nil,
        table: UInt32, suppressedPrefixLength: UInt32? = nil, protocol: UInt8 = NetlinkRoute.ownProtocol
    ) {
        self.family = family
        self.priority = priority
        self.mark = mark
        self.mask = mark == nil ? .max : mask
        self.isInverted = isInverted
        self.destination = destination.flatMap { $0.length == 0 ? nil : $0.network }
        self.table = table
        self.suppressedPrefixLength = suppressedPrefixLength
        self.protocol = `protocol`
    }

    /// Returns true if packets with this mark go by the rule.
    package func takes(_ mark: UInt32) -> Bool {
        guard let own = self.mark else { return true }
        return (mark & mask == own) != isInverted
    }
}

/// What changed, as `NetlinkMonitor` tells it.
package enum NetlinkEvent: Hashable, Sendable {
    /// New, or anything of it changed.
    case linkChanged(NetlinkLink)
    /// Deleted, or moved to another network namespace: `TunDevice.presence` tells which.
    case linkRemoved(index: UInt32, name: String)
    case addressAdded(NetlinkAddress)
    case addressRemoved(NetlinkAddress)
    /// Added, or replaced what was there.
    case routeAdded(NetlinkRoute)
    case routeRemoved(NetlinkRoute)
    case ruleAdded(NetlinkRule)
    case ruleRemoved(NetlinkRule)
    /// The kernel dropped events for want of room: read everything again.
    case overflow
}

extension NetlinkRoute: CustomStringConvertible {
    package var description: String {
        let way = gateway.map { " via \($0)" } ?? ""
        let link = interface == 0 ? "" : " on link \(interface)"
        let name = kind == .unicast ? "route" : "\(kind) route"
        return "\(name) \(destination)\(way)\(link) table \(table) metric \(metric)"
    }
}

extension NetlinkRule: CustomStringConvertible {
    package var description: String { "IP\(family) rule \(condition)lookup \(table) priority \(priority)" }

    /// `not fwmark 0xca6c `, with the blank; empty where every packet goes by it.
    package var condition: String {
        let parts = [
            destination.map { "to \($0) " }, mark.map { "fwmark 0x\(String($0, radix: 16)) " },
        ].compactMap(\.self)
        return parts.isEmpty ? "" : (isInverted ? "not " : "") + parts.joined()
    }
}
