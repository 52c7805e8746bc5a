internal import CNetlink
internal import Glibc
package import WireGuard

/// What an interface asks of an IPv4 packet's source: net.ipv4.conf.INTERFACE.rp_filter, and whether the packet's mark
/// counts for it (src_valid_mark).
package struct ReversePathFilter: Hashable, Sendable {
    package enum Mode: UInt32, Sendable {
        case off = 0
        /// The way back leads out of the interface that the packet came by.
        case strict = 1
        /// There is a way back.
        case loose = 2
    }

    package let mode: Mode
    package let honoursMark: Bool

    package init(mode: Mode, honoursMark: Bool) {
        self.mode = mode
        self.honoursMark = honoursMark
    }
}

/// By netlink, not /proc/sys: that is hidden, or read-only, from a unit of systemd that is locked down.
extension Netlink {
    /// IPV4_DEVCONF_* of linux/ip.h.
    private static let modeNumber: UInt32 = 8
    private static let markNumber: UInt32 = 24

    /// Nil where there is no such interface, or it has no IPv4.
    package func reversePathFilter(of interface: UInt32) throws(SystemError) -> ReversePathFilter? {
        var values: (mode: UInt32, mark: UInt32)?
        try unsafe withLink("look up rp_filter of link \(interface)", index: Int32(bitPattern: interface)) {
            link in
            var mode: UInt32 = 0
            var mark: UInt32 = 0
            guard unsafe rtnl_link_inet_get_conf(link, Self.modeNumber, &mode) >= 0,
                unsafe rtnl_link_inet_get_conf(link, Self.markNumber, &mark) >= 0
            else { return }
            values = (mode, mark)
        }
        guard let values else { return nil }
        // The greater of the interface's own and that of all counts.
        let mode = ReversePathFilter.Mode(rawValue: max(values.mode, try modeOfAll()))
        return ReversePathFilter(mode: mode ?? .loose, honoursMark: values.mark != 0)
    }

    /// From now on the mark of a packet that comes by this interface counts when the kernel looks for the way back.
    package func honourMark(on interface: UInt32) throws(SystemError) {
        try unsafe change(interface, "set src_valid_mark of link \(interface)") { change in
            _ = unsafe rtnl_link_inet_set_conf(change, Self.markNumber, 1)
        }
    }

    /// net.ipv4.conf.all.rp_filter.
    private func modeOfAll() throws(SystemError) -> UInt32 {
        try setting(NETCONFA_RP_FILTER, of: .v4, at: UInt32(bitPattern: NETCONFA_IFINDEX_ALL)) ?? 0
    }

    /// net.ipv4.ip_forward (conf.all.forwarding), or net.ipv6.conf.all.forwarding. Nil where the kernel does not tell.
    package func isForwarding(_ family: IPAddress.Family) -> Bool? {
        (try? setting(NETCONFA_FORWARDING, of: family, at: UInt32(bitPattern: NETCONFA_IFINDEX_ALL)))
            .flatMap(\.self).map { $0 != 0 }
    }

    /// net.ipv4.conf.INTERFACE.forwarding, which decides about what comes by that interface; the one that new interfaces
    /// get for nil. Nil where the kernel does not tell.
    package func isForwardingIPv4(by interface: UInt32?) -> Bool? {
        let ofNewOnes = UInt32(bitPattern: NETCONFA_IFINDEX_DEFAULT)
        return (try? setting(NETCONFA_FORWARDING, of: .v4, at: interface ?? ofNewOnes))
            .flatMap(\.self).map { $0 != 0 }
    }

    /// A NETCONFA_* of rtnetlink; nil where there is none.
    private func setting(
        _ attribute: Int, of family: IPAddress.Family, at interface: UInt32
    ) throws(SystemError) -> UInt32? {
        let message = try NetlinkMessage(
            type: RTM_GETNETCONF, flags: NLM_F_REQUEST,
            header: [UInt8(NetlinkParsing.number(family)), 0, 0, 0])
        message.put(NETCONFA_IFINDEX, interface)
        var value: UInt32?
        try unsafe query("look up settings of IP\(family)", message) { answer in
            guard let header = unsafe nlmsg_hdr(answer),
                let found = unsafe nlmsg_find_attr(header, 4, Int32(attribute)), unsafe nla_len(found) >= 4,
                let payload = unsafe nla_data(found)
            else { return }
            value = unsafe payload.loadUnaligned(as: UInt32.self)
        }
        return value
    }
}
