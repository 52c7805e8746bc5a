internal import CNetlink
internal import Glibc
internal import WireGuard

/// From libnl's objects, and the attributes that libnl does not know, to our values. Nil for what we have no
/// use for: another family, a cached route, a kind of route or rule that we do not make.
enum NetlinkParsing {
    // MARK: Messages

    static func parseEvent(_ message: OpaquePointer, into events: inout [NetlinkEvent]) {
        guard let header = unsafe nlmsg_hdr(message) else { return }
        switch unsafe Int(header.pointee.nlmsg_type) {
        case RTM_NEWLINK, RTM_DELLINK:
            // A link message of another family tells of a bridge's port, and its removal is not the link's.
            guard unsafe nlmsg_datalen(header) > 0, let data = unsafe nlmsg_data(header),
                unsafe data.load(as: UInt8.self) == UInt8(AF_UNSPEC)
            else { return }
            let isRemoval = unsafe Int(header.pointee.nlmsg_type) == RTM_DELLINK
            unsafe parse(message) { object in
                let link = unsafe link(object)
                events.append(
                    isRemoval ? .linkRemoved(index: link.index, name: link.name) : .linkChanged(link))
            }
        case RTM_NEWADDR:
            unsafe parse(message) { object in
                if let address = unsafe address(object) { events.append(.addressAdded(address)) }
            }
        case RTM_DELADDR:
            unsafe parse(message) { object in
                if let address = unsafe address(object) { events.append(.addressRemoved(address)) }
            }
        case RTM_NEWROUTE:
            if let route = unsafe parseRoute(message) { events.append(.routeAdded(route)) }
        case RTM_DELROUTE:
            if let route = unsafe parseRoute(message) { events.append(.routeRemoved(route)) }
        case RTM_NEWRULE:
            if let rule = unsafe parseRule(message) { events.append(.ruleAdded(rule)) }
        case RTM_DELRULE:
            if let rule = unsafe parseRule(message) { events.append(.ruleRemoved(rule)) }
        default: break
        }
    }

    /// Gives `body` the link or address that libnl makes of the message, if it can.
    static func parse(_ message: OpaquePointer, _ body: (OpaquePointer) -> Void) {
        unsafe withoutActuallyEscaping(body) { body in
            let receiver = unsafe NetlinkReceiver(body)
            _ = unsafe nl_msg_parse(message, giveObject, Unmanaged.passUnretained(receiver).toOpaque())
            unsafe receiver.body = { _ in }
        }
    }

    static func parseRoute(_ message: OpaquePointer) -> NetlinkRoute? {
        unsafe withRoute(message) { unsafe route($0) }
    }

    static func parseWay(_ message: OpaquePointer) -> RouteLookup? {
        unsafe withRoute(message) { object in
            guard let family = unsafe family(Int32(rtnl_route_get_family(object))),
                let hop = unsafe hop(object, 0, family)
            else { return nil }
            return unsafe RouteLookup(
                interface: hop.interface, gateway: hop.gateway,
                source: address(rtnl_route_get_pref_src(object), family))
        }
    }

    static func parseRule(_ message: OpaquePointer) -> NetlinkRule? {
        guard let header = unsafe nlmsg_hdr(message) else { return nil }
        return unsafe rule(header)
    }

    private static func withRoute<Result>(_ message: OpaquePointer, _ body: (OpaquePointer) -> Result?)
        -> Result?
    {
        var found: OpaquePointer?
        guard unsafe rtnl_route_parse(nlmsg_hdr(message), &found) >= 0, let route = unsafe found else {
            return nil
        }
        defer { unsafe rtnl_route_put(route) }
        return unsafe body(route)
    }

    // MARK: Objects

    static func link(_ link: OpaquePointer) -> NetlinkLink {
        let name = unsafe rtnl_link_get_name(link)
        let flags = unsafe rtnl_link_get_flags(link)
        var kind = unsafe rtnl_link_get_type(link).map { unsafe String(cString: $0) }
        let hasNoHeader = unsafe rtnl_link_get_arptype(link) == 0xFFFE  // ARPHRD_NONE
        if kind == "tun", !hasNoHeader { kind = "tap" }
        return unsafe NetlinkLink(
            index: UInt32(bitPattern: rtnl_link_get_ifindex(link)),
            name: name.map { unsafe String(cString: $0) } ?? "",
            mtu: Int(rtnl_link_get_mtu(link)), isUp: flags & UInt32(IFF_UP) != 0,
            hasCarrier: flags & 0x1_0000 != 0,  // IFF_LOWER_UP
            isPointToPoint: flags & UInt32(IFF_POINTOPOINT) != 0, kind: kind)
    }

    static func address(_ object: OpaquePointer) -> NetlinkAddress? {
        guard let family = unsafe family(rtnl_addr_get_family(object)),
            let local = unsafe address(rtnl_addr_get_local(object), family),
            let prefix = unsafe IPPrefix(address: local, length: Int(rtnl_addr_get_prefixlen(object)))
        else { return nil }
        let peer = unsafe address(rtnl_addr_get_peer(object), family)
        return unsafe NetlinkAddress(
            prefix: prefix, peer: peer == local ? nil : peer,
            interface: UInt32(bitPattern: rtnl_addr_get_ifindex(object)))
    }

    static func route(_ object: OpaquePointer) -> NetlinkRoute? {
        let flags = unsafe rtnl_route_get_flags(object)
        guard flags & UInt32(RTM_F_CLONED) == 0,
            let family = unsafe family(Int32(rtnl_route_get_family(object))),
            let kind = unsafe NetlinkRoute.Kind(rawValue: rtnl_route_get_type(object))
        else { return nil }
        // The default route has no destination attribute, or one without bytes.
        let target = unsafe rtnl_route_get_dst(object)
        let length = unsafe target.map { unsafe Int(nl_addr_get_prefixlen($0)) } ?? 0
        guard let prefix = unsafe IPPrefix(address: address(target, family) ?? .any(family), length: length)
        else { return nil }
        var (first, others): (NetlinkHop?, [NetlinkHop]) = (nil, [])
        for position in unsafe 0..<max(rtnl_route_get_nnexthops(object), 0) {
            guard let hop = unsafe hop(object, position, family) else { continue }
            if first == nil { first = hop } else { others.append(hop) }
        }
        return unsafe NetlinkRoute(
            destination: prefix, interface: first?.interface ?? 0, gateway: first?.gateway, otherHops: others,
            table: rtnl_route_get_table(object), protocol: rtnl_route_get_protocol(object),
            metric: rtnl_route_get_priority(object), kind: kind,
            preferredSource: address(rtnl_route_get_pref_src(object), family))
    }

    private static func hop(
        _ route: OpaquePointer, _ position: Int32, _ family: IPAddress.Family
    ) -> NetlinkHop? {
        // One of several whose link is down stays in the route, unused.
        guard let hop = unsafe rtnl_route_nexthop_n(route, position),
            unsafe rtnl_route_nh_get_flags(hop) & UInt32(RTNH_F_DEAD) == 0
        else { return nil }
        // RTA_VIA: of the other family.
        let other: IPAddress.Family = family == .v4 ? .v6 : .v4
        return unsafe NetlinkHop(
            interface: UInt32(bitPattern: rtnl_route_nh_get_ifindex(hop)),
            gateway: address(rtnl_route_nh_get_gateway(hop), family)
                ?? address(rtnl_route_nh_get_via(hop), other))
    }

    /// Reads the message, not libnl's object: libnl 3.7 leaves out FIB_RULE_INVERT and the suppressed length.
    static func rule(_ header: UnsafeMutablePointer<nlmsghdr>) -> NetlinkRule? {
        let fixed = 12
        guard unsafe nlmsg_datalen(header) >= fixed, let data = unsafe nlmsg_data(header),
            let family = unsafe family(Int32(data.load(as: UInt8.self))),
            unsafe Int(data.load(fromByteOffset: 7, as: UInt8.self)) == FR_ACT_TO_TBL
        else { return nil }
        let flags = unsafe data.load(fromByteOffset: 8, as: UInt32.self)
        func attribute<Value: FixedWidthInteger>(_ type: Int, _: Value.Type) -> Value? {
            guard let found = unsafe nlmsg_find_attr(header, Int32(fixed), Int32(type)),
                unsafe Int(nla_len(found)) >= MemoryLayout<Value>.size, let payload = unsafe nla_data(found)
            else { return nil }
            return unsafe payload.loadUnaligned(as: Value.self)
        }
        let suppressed = attribute(FRA_SUPPRESS_PREFIXLEN, UInt32.self)
        let mark = attribute(FRA_FWMARK, UInt32.self)
        let mask = attribute(FRA_FWMASK, UInt32.self)
        let table =
            unsafe attribute(FRA_TABLE, UInt32.self)
            ?? UInt32(data.load(fromByteOffset: 4, as: UInt8.self))
        let length = unsafe Int(data.load(fromByteOffset: 1, as: UInt8.self))
        return NetlinkRule(
            family: family, priority: attribute(FRA_PRIORITY, UInt32.self) ?? 0,
            mark: mark == 0 && (mask ?? 0) == 0 ? nil : mark, mask: mask ?? .max,
            isInverted: flags & UInt32(FIB_RULE_INVERT) != 0,
            destination: unsafe destination(header, fixed, family, length: length),
            table: table, suppressedPrefixLength: suppressed == .max ? nil : suppressed,
            protocol: attribute(FRA_PROTOCOL, UInt8.self) ?? 0)
    }

    /// Destination of a rule; nil where it is for every one.
    private static func destination(
        _ header: UnsafeMutablePointer<nlmsghdr>, _ fixed: Int, _ family: IPAddress.Family, length: Int
    ) -> IPPrefix? {
        guard length > 0, let found = unsafe nlmsg_find_attr(header, Int32(fixed), Int32(FRA_DST)),
            let bytes = unsafe nla_data(found), unsafe Int(nla_len(found)) == family.width / 8,
            let address = IPAddress(
                bytes: unsafe Array(UnsafeRawBufferPointer(start: bytes, count: family.width / 8)))
        else { return nil }
        return IPPrefix(address: address, length: length)
    }

    static func family(_ number: Int32) -> IPAddress.Family? {
        switch number {
        case AF_INET: .v4
        case AF_INET6: .v6
        default: nil
        }
    }

    static func number(_ family: IPAddress.Family) -> Int32 { family == .v4 ? AF_INET : AF_INET6 }

    /// Nil for an address that is absent or has no bytes.
    static func address(_ pointer: OpaquePointer?, _ family: IPAddress.Family) -> IPAddress? {
        guard let pointer = unsafe pointer, let bytes = unsafe nl_addr_get_binary_addr(pointer),
            unsafe Int(nl_addr_get_len(pointer)) == family.width / 8
        else { return nil }
        return unsafe IPAddress(bytes: UnsafeRawBufferPointer(start: bytes, count: family.width / 8))
    }
}

private func giveObject(_ object: OpaquePointer?, _ receiver: UnsafeMutableRawPointer?) {
    guard let object = unsafe object, let receiver = unsafe receiver else { return }
    unsafe Unmanaged<NetlinkReceiver>.fromOpaque(receiver).takeUnretainedValue().body(object)
}
