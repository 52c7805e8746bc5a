internal import CNetlink
internal import Glibc
package import WireGuard

/// Links, addresses, routes and rules of the calling thread's network namespace.
///
/// Adding what is there replaces it, and removing what is not there succeeds, so that a change may be
/// repeated. An error says what was attempted and holds the kernel's errno.
///
/// Concurrency: the control thread's. Every call waits for the kernel's answer, which never takes long.
package struct Netlink: ~Copyable {
    private let socket: NetlinkSocket
    /// For routes in batches: libnl counts the answers on the other, and here only refusals and each last request have one.
    let routeSocket: NetlinkSocket

    package init() throws(SystemError) {
        let first = try NetlinkSocket()
        let second = try NetlinkSocket()
        socket = first
        routeSocket = second
    }

    /// What the kernel calls the one who changes routes by this (`NetlinkMonitor.ignoreRoutes`).
    package var routePort: UInt32 { routeSocket.port }

    // MARK: Links

    /// Nil when there is none of that name.
    package func link(_ name: String) throws(SystemError) -> NetlinkLink? {
        try link("look up link \(name)", index: 0, name: name)
    }

    package func link(index: UInt32) throws(SystemError) -> NetlinkLink? {
        try link("look up link \(index)", index: Int32(bitPattern: index), name: nil)
    }

    private func link(_ call: String, index: Int32, name: String?) throws(SystemError) -> NetlinkLink? {
        var link: NetlinkLink?
        try unsafe withLink(call, index: index, name: name) { link = unsafe NetlinkParsing.link($0) }
        return link
    }

    /// Gives `body` libnl's link of that index or name, if there is one.
    func withLink(
        _ call: String, index: Int32, name: String? = nil, _ body: (OpaquePointer) -> Void
    ) throws(SystemError) {
        var found: OpaquePointer?
        do throws(SystemError) {
            try unsafe socket.run(call) { handle in unsafe rtnl_link_get_kernel(handle, index, name, &found) }
        } catch {
            if error.code == ENODEV || error.code == ENOENT { return }
            throw error
        }
        guard let link = unsafe found else { return }
        defer { unsafe rtnl_link_put(link) }
        unsafe body(link)
    }

    package func setUp(_ index: UInt32) throws(SystemError) {
        try unsafe change(index, "set link \(index) up") { change in
            unsafe rtnl_link_set_flags(change, UInt32(IFF_UP))
        }
    }

    package func setMTU(_ index: UInt32, _ mtu: Int) throws(SystemError) {
        try unsafe change(index, "set link \(index) mtu \(mtu)") { change in
            unsafe rtnl_link_set_mtu(change, UInt32(clamping: mtu))
        }
    }

    /// From its next start on the kernel gives the link no IPv6 address of its own making, and so asks for no router there.
    package func makeNoAddresses(_ index: UInt32) throws(SystemError) {
        try unsafe change(index, "set addrgenmode of link \(index)") { change in
            _ = unsafe rtnl_link_inet6_set_addr_gen_mode(change, 1)  // IN6_ADDR_GEN_MODE_NONE
        }
    }

    /// How many packets wait in the link to be sent, or in a TUN device to be read.
    package func setQueueLength(_ index: UInt32, packets: Int) throws(SystemError) {
        try unsafe change(index, "set link \(index) txqueuelen \(packets)") { change in
            unsafe rtnl_link_set_txqlen(change, UInt32(clamping: packets))
        }
    }

    func change(_ index: UInt32, _ call: String, _ body: (OpaquePointer) -> Void) throws(SystemError) {
        guard let link = unsafe rtnl_link_alloc() else { throw SystemError(call: call, code: ENOMEM) }
        defer { unsafe rtnl_link_put(link) }
        guard let change = unsafe rtnl_link_alloc() else { throw SystemError(call: call, code: ENOMEM) }
        defer { unsafe rtnl_link_put(change) }
        unsafe rtnl_link_set_ifindex(link, Int32(bitPattern: index))
        unsafe body(change)
        try unsafe socket.run(call) { handle in unsafe rtnl_link_change(handle, link, change, 0) }
    }

    // MARK: Addresses

    package func addAddress(_ prefix: IPPrefix, to interface: UInt32) throws(SystemError) {
        let address = NetlinkAddress(prefix: prefix, interface: interface)
        let message = try Self.message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, address)
        try socket.request("add address \(prefix) to link \(interface)", message)
    }

    package func removeAddress(_ address: NetlinkAddress) throws(SystemError) {
        do throws(SystemError) {
            let message = try Self.message(RTM_DELADDR, 0, address)
            try socket.request("remove address \(address.prefix) from link \(address.interface)", message)
        } catch {
            if error.code != EADDRNOTAVAIL, error.code != ENODEV { throw error }
        }
    }

    package func removeAddress(_ prefix: IPPrefix, from interface: UInt32) throws(SystemError) {
        try removeAddress(NetlinkAddress(prefix: prefix, interface: interface))
    }

    /// Addresses of both families. A link that is gone has none.
    package func addresses(of interface: UInt32 = 0) throws(SystemError) -> [NetlinkAddress] {
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        let header = [0, 0, 0, 0] + Self.bytes(interface)
        let link = interface == 0 ? "all links" : "link \(interface)"
        do throws(SystemError) {
            return try unsafe dump("list addresses of \(link)", RTM_GETADDR, header) { message, list in
                unsafe NetlinkParsing.parse(message) { object in
                    guard let address = unsafe NetlinkParsing.address(object) else { return }
                    if interface == 0 || address.interface == interface { list.append(address) }
                }
            }
        } catch {
            guard error.code == ENODEV else { throw error }
            return []
        }
    }

    /// Not by libnl's address object, which refuses an IPv6 peer.
    private static func message(
        _ type: Int, _ flags: Int32, _ address: NetlinkAddress
    ) throws(SystemError) -> NetlinkMessage {
        let family = UInt8(NetlinkParsing.number(address.prefix.family))
        let header = [family, UInt8(address.prefix.length), 0, 0] + bytes(address.interface)
        let message = try NetlinkMessage(type: type, flags: NLM_F_REQUEST | flags, header: header)
        let local = address.prefix.address.bytes
        message.put(IFA_LOCAL, local)
        message.put(IFA_ADDRESS, address.peer?.bytes ?? local)
        return message
    }

    // MARK: Routes

    /// Those of one protocol that `isWanted` takes, in all tables and both families.
    package func routes(
        protocol: UInt8 = NetlinkRoute.ownProtocol, where isWanted: (NetlinkRoute) -> Bool = { _ in true }
    ) throws(SystemError) -> [NetlinkRoute] {
        try eachFamily { family throws(SystemError) in
            // struct rtmsg: family, destination and source length, class, table, protocol, scope, type,
            // flags.
            let header = [UInt8(NetlinkParsing.number(family)), 0, 0, 0, 0, `protocol`, 0, 0, 0, 0, 0, 0]
            return try unsafe dump("list routes of protocol \(`protocol`)", RTM_GETROUTE, header) {
                message, list in
                guard let route = unsafe NetlinkParsing.parseRoute(message), route.protocol == `protocol`,
                    isWanted(route)
                else { return }
                list.append(route)
            }
        }
    }

    /// Those of one table, whoever made them, in both families.
    package func routes(table: UInt32) throws(SystemError) -> [NetlinkRoute] {
        try eachFamily { family throws(SystemError) in
            let header = [UInt8(NetlinkParsing.number(family))] + [UInt8](repeating: 0, count: 11)
            do throws(SystemError) {
                return try unsafe dump(
                    "list routes of table \(table)", RTM_GETROUTE, header,
                    attributes: { $0.put(RTA_TABLE, table) }
                ) { message, list in
                    guard let route = unsafe NetlinkParsing.parseRoute(message), route.table == table else {
                        return
                    }
                    list.append(route)
                }
            } catch {
                // IPv4 has no such table.
                if error.code == ENOENT { return [] }
                throw error
            }
        }
    }

    /// Those that have a hop on one link, whoever made them, in all tables and both families.
    package func routes(through interface: UInt32) throws(SystemError) -> [NetlinkRoute] {
        try eachFamily { family throws(SystemError) in
            let header = [UInt8(NetlinkParsing.number(family))] + [UInt8](repeating: 0, count: 11)
            return try unsafe dump(
                "list routes on link \(interface)", RTM_GETROUTE, header,
                attributes: { $0.put(RTA_OIF, interface) }
            ) { message, list in
                guard let route = unsafe NetlinkParsing.parseRoute(message),
                    route.hops.contains(where: { $0.interface == interface })
                else { return }
                list.append(route)
            }
        }
    }

    // MARK: Rules

    package func addRule(_ rule: NetlinkRule) throws(SystemError) {
        do throws(SystemError) {
            let message = try Self.message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule)
            try socket.request("add \(rule)", message)
        } catch {
            if error.code != EEXIST { throw error }
        }
    }

    package func removeRule(_ rule: NetlinkRule) throws(SystemError) {
        do throws(SystemError) {
            try socket.request("remove \(rule)", Self.message(RTM_DELRULE, 0, rule))
        } catch {
            if error.code != ENOENT { throw error }
        }
    }

    /// Those that look up a table, in both families; of all protocols for nil.
    package func rules(protocol: UInt8? = NetlinkRoute.ownProtocol) throws(SystemError) -> [NetlinkRule] {
        try eachFamily { family throws(SystemError) in
            let header = [UInt8(NetlinkParsing.number(family))] + [UInt8](repeating: 0, count: 11)
            return try unsafe dump("list rules", RTM_GETRULE, header) { message, list in
                guard let rule = unsafe NetlinkParsing.parseRule(message),
                    `protocol` == nil || rule.protocol == `protocol`
                else { return }
                list.append(rule)
            }
        }
    }

    private static func message(_ type: Int, _ flags: Int32, _ rule: NetlinkRule) throws(SystemError)
        -> NetlinkMessage
    {
        // struct fib_rule_hdr: family, lengths, class, table, two reserved, action FR_ACT_TO_TBL, flags.
        let header: [UInt8] = [
            UInt8(NetlinkParsing.number(rule.family)), UInt8(rule.destination?.length ?? 0), 0, 0,
            rule.table < 256 ? UInt8(rule.table) : 0, 0,
            0, 1,
        ]
        let inverted: UInt32 = rule.isInverted ? 2 : 0  // FIB_RULE_INVERT
        let message = try NetlinkMessage(
            type: type, flags: NLM_F_REQUEST | flags, header: header + bytes(inverted))
        message.put(FRA_TABLE, rule.table)
        if let destination = rule.destination, destination.length > 0 {
            message.put(FRA_DST, destination.address.bytes)
        }
        message.put(FRA_PROTOCOL, rule.protocol)
        if rule.priority != 0 { message.put(FRA_PRIORITY, rule.priority) }
        if let mark = rule.mark {
            message.put(FRA_FWMARK, mark)
            message.put(FRA_FWMASK, rule.mask)
        }
        if let length = rule.suppressedPrefixLength {
            message.put(FRA_SUPPRESS_PREFIXLEN, length)
        }
        return message
    }

    // MARK: Helpers

    /// What `body` lists of each family that the kernel has: without IPv6 in it, or without its rules, the dump is
    /// EAFNOSUPPORT.
    private func eachFamily<Element>(
        _ body: (IPAddress.Family) throws(SystemError) -> [Element]
    ) throws(SystemError) -> [Element] {
        var list: [Element] = []
        for family in IPAddress.Family.allCases {
            do throws(SystemError) {
                list += try body(family)
            } catch {
                guard error.code == EAFNOSUPPORT else { throw error }
            }
        }
        return list
    }

    /// For a request with a single answer.
    func query(
        _ call: String, _ message: borrowing NetlinkMessage, _ body: (OpaquePointer) -> Void
    ) throws(SystemError) {
        try unsafe socket.query(call, message, isDump: false, body)
    }

    private func dump<Element>(
        _ call: String, _ type: Int, _ header: [UInt8],
        attributes: (borrowing NetlinkMessage) -> Void = { _ in },
        _ body: (OpaquePointer, inout [Element]) -> Void
    ) throws(SystemError) -> [Element] {
        var attempts = 0
        while true {
            attempts += 1
            let message = try NetlinkMessage(type: type, flags: NLM_F_REQUEST | NLM_F_DUMP, header: header)
            attributes(message)
            var list: [Element] = []
            do throws(SystemError) {
                try unsafe socket.query(call, message, isDump: true) { answer in unsafe body(answer, &list) }
                return list
            } catch {
                // Something changed while the kernel was telling it: what we have may have holes.
                guard error.code == EINTR, attempts < 5 else { throw error }
            }
        }
    }

    static func bytes(_ value: UInt32) -> [UInt8] {
        unsafe withUnsafeBytes(of: value) { unsafe Array($0) }
    }
}
