internal import CNetlink
internal import Glibc
package import WireGuard

/// What a route lookup is asked about.
package struct NetlinkPacket: Hashable, Sendable {
    package var destination: IPAddress
    package var source: IPAddress?
    /// Nil where this host itself makes the packet. One that comes by an interface needs a source.
    package var incoming: NetlinkLink?
    /// Index of the interface that the sending socket is bound to, or that a link-local destination names; 0 for none.
    package var outgoing: UInt32
    package var mark: UInt32

    package init(
        to destination: IPAddress, from source: IPAddress? = nil, by incoming: NetlinkLink? = nil,
        outOf outgoing: UInt32 = 0, mark: UInt32 = 0
    ) {
        self.destination = destination
        self.source = source
        self.incoming = incoming
        self.outgoing = outgoing
        self.mark = mark
    }
}

/// The way that the kernel would take to an address now.
package struct RouteLookup: Hashable, Sendable {
    package let interface: UInt32
    package let gateway: IPAddress?
    package let source: IPAddress?

    package init(interface: UInt32, gateway: IPAddress?, source: IPAddress?) {
        self.interface = interface
        self.gateway = gateway
        self.source = source
    }
}

extension Netlink {
    /// How a packet to `destination` with this mark would leave now. ENETUNREACH, or the errno of the
    /// unreachable route that it meets.
    package func way(to destination: IPAddress, mark: UInt32 = 0) throws(SystemError) -> RouteLookup {
        try way(of: NetlinkPacket(to: destination, mark: mark))
    }

    package func way(of packet: NetlinkPacket) throws(SystemError) -> RouteLookup {
        var way: RouteLookup?
        try unsafe lookUp(packet, flags: 0) { way = unsafe NetlinkParsing.parseWay($0) }
        guard let way else {
            throw SystemError(call: "look up way to \(packet.destination)", code: ENETUNREACH)
        }
        return way
    }

    /// The route that the packet takes, with its table: nil where the kernel has none to show.
    package func match(of packet: NetlinkPacket) throws(SystemError) -> NetlinkRoute? {
        // The table of an IPv6 route is told in any case, and must not be asked for.
        let lookUpTable: UInt32 = packet.destination.family == .v4 ? UInt32(RTM_F_LOOKUP_TABLE) : 0
        var route: NetlinkRoute?
        try unsafe lookUp(packet, flags: UInt32(RTM_F_FIB_MATCH) | lookUpTable) {
            route = unsafe NetlinkParsing.parseRoute($0)
        }
        return route
    }

    /// Whether packets may be sent from an address, and come to it. True where the kernel does not tell.
    package func isLocal(_ address: IPAddress) -> Bool {
        // The same link-local address may be on every link.
        guard !address.isLinkLocal else { return true }
        do throws(SystemError) {
            return try match(of: NetlinkPacket(to: address))?.kind == .local
        } catch {
            return ![ENETUNREACH, EHOSTUNREACH, EINVAL, EACCES].contains(error.code)
        }
    }

    private func lookUp(
        _ packet: NetlinkPacket, flags: UInt32, _ body: (OpaquePointer) -> Void
    ) throws(SystemError) {
        let family = packet.destination.family
        let width = UInt8(family.width)
        let header =
            [UInt8(NetlinkParsing.number(family)), width, packet.source == nil ? 0 : width, 0, 0, 0, 0, 0]
            + Self.bytes(flags)
        let message = try NetlinkMessage(type: RTM_GETROUTE, flags: NLM_F_REQUEST, header: header)
        message.put(RTA_DST, packet.destination.bytes)
        if let source = packet.source { message.put(RTA_SRC, source.bytes) }
        if let link = packet.incoming { message.put(RTA_IIF, link.index) }
        if packet.outgoing != 0 { message.put(RTA_OIF, packet.outgoing) }
        if packet.mark != 0 { message.put(RTA_MARK, packet.mark) }
        try unsafe query("look up way to \(packet.destination)", message, body)
    }
}
