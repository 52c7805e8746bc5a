/// Prefixes of this site under other numbers to the far end (1:1 NAT), for sites that use the same ones: a
/// source inside leaves with the same host bits in the prefix outside, and a destination outside arrives
/// inside. No state, no port, nothing chosen: what RFC 6296 does for IPv6, for both families, with the
/// checksums mended where that mends them by the address.
///
/// A packet's way, out and in:
/// 1. the address, with the IPv4 header's checksum;
/// 2. what has the address in a pseudo header: TCP, UDP, UDP-Lite, DCCP and ICMPv6 checksums, behind IPv6
///    extension headers too, and in first fragments (later ones have none);
/// 3. an ICMP error is about a packet that went the other way: the same for the packet that it quotes, and for
///    its own checksum, which covers the quotation.
///
/// Addresses anywhere else (FTP, SIP, IPv4 source routes) stay as they are.
///
/// Concurrency: immutable; any thread may use it.
package final class PrefixTranslation: Sendable {
    /// Of one family, and of one length.
    package struct Pair: Hashable, Sendable {
        package let inside: IPPrefix
        package let outside: IPPrefix

        package init?(inside: IPPrefix, outside: IPPrefix) {
            guard inside.family == outside.family, inside.length == outside.length else { return nil }
            self.inside = inside.network
            self.outside = outside.network
        }
    }

    enum Outcome {
        /// Its address is in no prefix of the list.
        case unchanged
        case translated
        /// Its checksum lies in another fragment, or nowhere. Nothing was written: drop it.
        case impossible
    }

    /// One way of all pairs. Two prefixes are three ranges to search: the table is as quick as a list.
    private struct Mapping: Sendable {
        let table: PrefixTable
        let targets: [IPPrefix]

        init(_ pairs: [(from: IPPrefix, to: IPPrefix)]) {
            table = PrefixTable(pairs.enumerated().map { ($0.element.from, Int32($0.offset)) })
            targets = pairs.map(\.to)
        }

        @inline(__always)
        func target(v4 address: UInt32) -> UInt32? {
            let index = table.lookup(address)
            guard index >= 0 else { return nil }
            let target = targets[Int(index)]
            let mask = UInt32(truncatingIfNeeded: target.mask)
            return UInt32(truncatingIfNeeded: target.address.bits) & mask | address & ~mask
        }

        @inline(__always)
        func target(v6 address: UInt128) -> UInt128? {
            let index = table.lookup(address)
            guard index >= 0 else { return nil }
            let target = targets[Int(index)]
            return target.address.bits & target.mask | address & ~target.mask
        }

        func target(_ address: IPAddress) -> IPAddress {
            switch address.family {
            case .v4:
                target(v4: UInt32(truncatingIfNeeded: address.bits)).map { IPAddress(v4: $0) } ?? address
            case .v6: target(v6: address.bits).map { IPAddress(v6: $0) } ?? address
            }
        }
    }

    package let pairs: [Pair]
    private let toOutside: Mapping
    private let toInside: Mapping

    /// Inside prefixes of one list do not overlap, and neither do outside ones: the configuration sees to it.
    package init(_ pairs: [Pair]) {
        self.pairs = pairs
        toOutside = Mapping(pairs.map { ($0.inside, $0.outside) })
        toInside = Mapping(pairs.map { ($0.outside, $0.inside) })
    }

    /// What the far end sees of an address here; the address itself where no pair has it.
    package func outside(_ inside: IPAddress) -> IPAddress { toOutside.target(inside) }

    /// What is here behind an address that the far end sees.
    package func inside(_ outside: IPAddress) -> IPAddress { toInside.target(outside) }

    // MARK: Packets

    /// From the TUN to the tunnel. `partial` is the offset of a checksum that is still to be finished
    /// (NEEDS_CSUM), with the sum of its pseudo header in the field; -1 where there is none.
    @inline(__always)
    func outbound(
        _ packet: UnsafeMutableRawPointer, header: InnerHeader, partial: Int = -1
    ) -> Outcome {
        unsafe translate(packet, header, .source, toOutside, partial)
    }

    /// From the tunnel to the TUN: before it is coalesced.
    @inline(__always)
    func inbound(_ packet: UnsafeMutableRawPointer, header: InnerHeader) -> Outcome {
        unsafe translate(packet, header, .destination, toInside, -1)
    }

    private enum Side {
        case source
        case destination

        var other: Side { self == .source ? .destination : .source }
    }

    /// What replacing an address did to any sum that covers it. Always even places: every header here is of
    /// even length.
    private struct Change {
        var old: UInt64 = 0
        var new: UInt64 = 0
    }

    private func translate(
        _ packet: UnsafeMutableRawPointer, _ header: InnerHeader, _ side: Side, _ mapping: Mapping,
        _ partial: Int
    ) -> Outcome {
        let transport = unsafe Transport(packet, header: header)
        let field = transport.checksumField(header.family)
        if let field, field &+ 2 > header.totalLength {
            return unsafe isMapped(packet, header.family, side, mapping) ? .impossible : .unchanged
        }
        var outcome = Outcome.unchanged
        if let change = unsafe replace(packet, header.family, side, mapping) {
            outcome = .translated
            // A routing header that still leads on has the sum's destination, not the IPv6 header.
            if let field, side == .source || !transport.isRouted {
                unsafe update(packet, field, transport.number, change, isPartial: field == partial)
            }
        }
        // Also from a router whose own address is in no pair.
        if let error = unsafe transport.error(packet, header.family, end: header.totalLength),
            let change = unsafe translateQuotation(
                packet + (error &+ 8), count: header.totalLength &- error &- 8, header.family, side.other,
                mapping)
        {
            outcome = .translated
            if error &+ 2 != partial {
                unsafe Checksum.update(packet, at: error &+ 2, from: change.old, to: change.new)
            }
        }
        return outcome
    }

    /// The packet in an ICMP error, cut short most often: its address, its checksums as far as they are
    /// there. Returns all that changed, for the sum of the error; nil for nothing.
    private func translateQuotation(
        _ packet: UnsafeMutableRawPointer, count: Int, _ family: IPAddress.Family, _ side: Side,
        _ mapping: Mapping
    ) -> Change? {
        guard let header = unsafe InnerHeader(quoted: packet, count: count), header.family == family else {
            return nil
        }
        let headerSum = unsafe UInt64(packet.loadUnaligned(fromByteOffset: 10, as: UInt16.self))
        guard let change = unsafe replace(packet, family, side, mapping) else { return nil }
        var total = change
        if family == .v4 {
            total.old &+= headerSum
            total.new &+= unsafe UInt64(packet.loadUnaligned(fromByteOffset: 10, as: UInt16.self))
        }
        let transport = unsafe Transport(packet, header: header)
        let isCovered = side == .source || !transport.isRouted
        if let field = transport.checksumField(family), field &+ 2 <= count, isCovered {
            total.old &+= unsafe UInt64(packet.loadUnaligned(fromByteOffset: field, as: UInt16.self))
            unsafe update(packet, field, transport.number, change, isPartial: false)
            total.new &+= unsafe UInt64(packet.loadUnaligned(fromByteOffset: field, as: UInt16.self))
        }
        return total
    }

    // MARK: Fields

    /// Replaces the address, and mends the IPv4 header; nil when no pair has it.
    @inline(__always)
    private func replace(
        _ packet: UnsafeMutableRawPointer, _ family: IPAddress.Family, _ side: Side, _ mapping: Mapping
    ) -> Change? {
        var change = Change()
        switch family {
        case .v4:
            let place = side == .source ? 12 : 16
            let address = unsafe UnsafeRawPointer(packet).bigEndian32(at: place)
            guard let target = mapping.target(v4: address) else { return nil }
            change.old = UInt64(address.bigEndian)
            change.new = UInt64(target.bigEndian)
            unsafe packet.storeBigEndian32(target, at: place)
            unsafe Checksum.update(packet, at: 10, from: change.old, to: change.new)
        case .v6:
            let place = side == .source ? 8 : 24
            let address = unsafe UnsafeRawPointer(packet).bigEndian128(at: place)
            guard let target = mapping.target(v6: address) else { return nil }
            change.old = unsafe Checksum.add(packet + place, count: 16)
            unsafe packet.storeBytes(of: target.bigEndian, toByteOffset: place, as: UInt128.self)
            change.new = unsafe Checksum.add(packet + place, count: 16)
        }
        return change
    }

    private func isMapped(
        _ packet: UnsafeRawPointer, _ family: IPAddress.Family, _ side: Side, _ mapping: Mapping
    ) -> Bool {
        family == .v4
            ? mapping.target(v4: unsafe packet.bigEndian32(at: side == .source ? 12 : 16)) != nil
            : mapping.target(v6: unsafe packet.bigEndian128(at: side == .source ? 8 : 24)) != nil
    }

    @inline(__always)
    private func update(
        _ packet: UnsafeMutableRawPointer, _ field: Int, _ number: UInt8, _ change: Change, isPartial: Bool
    ) {
        if isPartial {
            unsafe Checksum.updatePartial(packet, at: field, from: change.old, to: change.new)
            return
        }
        let isUDP = number == InnerHeader.udp
        // Sent without a checksum, it stays without; and none that becomes zero may say so (RFC 768).
        if isUDP, unsafe packet.loadUnaligned(fromByteOffset: field, as: UInt16.self) == 0 { return }
        unsafe Checksum.update(packet, at: field, from: change.old, to: change.new)
        if isUDP, unsafe packet.loadUnaligned(fromByteOffset: field, as: UInt16.self) == 0 {
            unsafe packet.storeBytes(of: 0xffff, toByteOffset: field, as: UInt16.self)
        }
    }
}

/// What stands behind the IP header, extension headers walked.
private struct Transport {
    private static let icmp: UInt8 = 1
    private static let icmp6: UInt8 = 58
    private static let datagramCongestion: UInt8 = 33
    private static let udpLite: UInt8 = 136
    private static let hopByHop: UInt8 = 0
    private static let routing: UInt8 = 43
    private static let destinationOptions: UInt8 = 60
    /// More than this is nobody's packet.
    private static let extensionLimit = 8
    /// No protocol of IPv6 or IPv4: nothing that we know is there.
    private static let none: UInt8 = 59

    private(set) var number: UInt8
    private(set) var offset: Int
    /// The destination is not the last one (RFC 8200, section 4.4).
    private(set) var isRouted = false

    @inline(__always)
    init(_ packet: UnsafeRawPointer, header: InnerHeader) {
        number = header.transport
        offset = header.ipLength
        if header.family == .v4 {
            if header.isFragment, unsafe packet.bigEndian16(at: 6) & 0x1fff != 0 { number = Self.none }
        } else if number != InnerHeader.tcp, number != InnerHeader.udp, number != Self.icmp6 {
            unsafe walk(packet, end: header.totalLength)
        }
    }

    private mutating func walk(_ packet: UnsafeRawPointer, end: Int) {
        for _ in 0..<Self.extensionLimit {
            let isExtension =
                number == Self.hopByHop || number == Self.routing || number == Self.destinationOptions
            guard isExtension || number == InnerHeader.fragmentHeader else { return }
            guard offset &+ 8 <= end else { break }
            let next = unsafe packet.load(fromByteOffset: offset, as: UInt8.self)
            if isExtension {
                if number == Self.routing {
                    isRouted = unsafe packet.load(fromByteOffset: offset &+ 3, as: UInt8.self) != 0
                }
                let length = Int(unsafe packet.load(fromByteOffset: offset &+ 1, as: UInt8.self))
                offset &+= length &* 8 &+ 8
            } else {
                // The header of the whole is in its first fragment.
                guard unsafe packet.bigEndian16(at: offset &+ 2) & 0xfff8 == 0 else { break }
                offset &+= 8
            }
            number = next
        }
        number = Self.none
    }

    /// Where the checksum is that covers the addresses; nil where none does.
    @inline(__always)
    func checksumField(_ family: IPAddress.Family) -> Int? {
        switch number {
        case InnerHeader.tcp: offset &+ 16
        case InnerHeader.udp, Self.udpLite, Self.datagramCongestion: offset &+ 6
        case Self.icmp6: family == .v6 ? offset &+ 2 : nil
        default: nil
        }
    }

    /// Where an ICMP error begins that has room for its quotation.
    @inline(__always)
    func error(_ packet: UnsafeRawPointer, _ family: IPAddress.Family, end: Int) -> Int? {
        guard number == (family == .v4 ? Self.icmp : Self.icmp6), offset &+ 8 < end else { return nil }
        let type = unsafe packet.load(fromByteOffset: offset, as: UInt8.self)
        if family == .v6 { return type < 128 ? offset : nil }
        // Unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122, section 3.2.2).
        return type == 3 || type == 4 || type == 5 || type == 11 || type == 12 ? offset : nil
    }
}

extension InnerHeader {
    /// Of a packet that an ICMP error quotes: `totalLength` is what is there. Nil when not even its addresses
    /// are.
    fileprivate init?(quoted packet: UnsafeRawPointer, count: Int) {
        guard count >= 20 else { return nil }
        switch unsafe packet.load(as: UInt8.self) >> 4 {
        case 4:
            let length = Int(unsafe packet.load(as: UInt8.self) & 15) * 4
            guard length >= 20, length <= count else { return nil }
            self.init(
                family: .v4, ipLength: length, totalLength: count,
                transport: unsafe packet.load(fromByteOffset: 9, as: UInt8.self),
                isFragment: unsafe packet.bigEndian16(at: 6) & 0x3fff != 0)
        case 6:
            guard count >= 40 else { return nil }
            self.init(
                family: .v6, ipLength: 40, totalLength: count,
                transport: unsafe packet.load(fromByteOffset: 6, as: UInt8.self), isFragment: false)
        default: return nil
        }
    }

    private init(
        family: IPAddress.Family, ipLength: Int, totalLength: Int, transport: UInt8, isFragment: Bool
    ) {
        self.family = family
        self.ipLength = ipLength
        self.totalLength = totalLength
        self.transport = transport
        self.isFragment = isFragment
    }
}
