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
    /// Two prefixes of one family and of one length.
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

    /// From the TUN to the tunnel, its checksums finished.
    @inline(__always)
    func outbound(_ packet: borrowing IPPacket) -> Outcome { translate(packet, .source, toOutside) }

    /// From the tunnel to the TUN: before it is coalesced.
    @inline(__always)
    func inbound(_ packet: borrowing IPPacket) -> Outcome { translate(packet, .destination, toInside) }

    /// What replacing an address did to any sum that covers it. Always at even offsets: every header here is of
    /// even length.
    private struct Change {
        var old: UInt64 = 0
        var new: UInt64 = 0
    }

    private func translate(
        _ packet: borrowing IPPacket, _ side: IPPacket.Side, _ mapping: Mapping
    ) -> Outcome {
        let transport = Transport(packet)
        let field = transport.checksumField(packet.family)
        if let field, field &+ 2 > packet.count {
            return isMapped(packet, side, mapping) ? .impossible : .unchanged
        }
        var outcome = Outcome.unchanged
        if let change = replace(packet, side, mapping) {
            outcome = .translated
            // A routing header that still leads on has the sum's destination, not the IPv6 header.
            if let field, side == .source || !transport.isRouted {
                unsafe update(packet.start, field, transport.number, change)
            }
        }
        // Also from a router whose own address is in no pair.
        if let error = transport.error(packet) {
            let quotation = error &+ ICMPField.headerLength
            let change = unsafe translateQuotation(
                packet.start + quotation, count: packet.count &- quotation, packet.family, side.other, mapping
            )
            if let change {
                outcome = .translated
                unsafe Checksum.update(
                    packet.start, at: error &+ ICMPField.checksum, from: change.old, to: change.new)
            }
        }
        return outcome
    }

    /// Translates the packet in an ICMP error, which most often is not whole: its address, its checksums as far as they are
    /// there. Returns all that changed, for the sum of the error; nil for nothing.
    private func translateQuotation(
        _ start: UnsafeMutableRawPointer, count: Int, _ family: IPAddress.Family, _ side: IPPacket.Side,
        _ mapping: Mapping
    ) -> Change? {
        guard let packet = unsafe try? IPPacket(start, count: count, isQuoted: true), packet.family == family
        else { return nil }
        let headerSum = unsafe UInt64(start.reading.word(at: IPv4Field.checksum))
        guard let change = replace(packet, side, mapping) else { return nil }
        var total = change
        if family == .v4 {
            total.old &+= headerSum
            total.new &+= unsafe UInt64(start.reading.word(at: IPv4Field.checksum))
        }
        let transport = Transport(packet)
        let isCovered = side == .source || !transport.isRouted
        if let field = transport.checksumField(family), field &+ 2 <= count, isCovered {
            total.old &+= unsafe UInt64(start.reading.word(at: field))
            unsafe update(start, field, transport.number, change)
            total.new &+= unsafe UInt64(start.reading.word(at: field))
        }
        return total
    }

    // MARK: Fields

    /// Replaces the address, and mends the IPv4 header; nil when no pair has it.
    @inline(__always)
    private func replace(
        _ packet: borrowing IPPacket, _ side: IPPacket.Side, _ mapping: Mapping
    ) -> Change? {
        let offset = packet.offset(of: side)
        let field = unsafe packet.start + offset
        var change = Change()
        switch packet.family {
        case .v4:
            let address = unsafe field.reading.bigEndian32(at: 0)
            guard let target = mapping.target(v4: address) else { return nil }
            change.old = UInt64(address.bigEndian)
            change.new = UInt64(target.bigEndian)
            unsafe field.storeBigEndian32(target, at: 0)
            unsafe Checksum.update(packet.start, at: IPv4Field.checksum, from: change.old, to: change.new)
        case .v6:
            guard let target = mapping.target(v6: unsafe field.reading.bigEndian128(at: 0)) else {
                return nil
            }
            change.old = unsafe Checksum.add(field, count: 16)
            unsafe field.storeBytes(of: target.bigEndian, as: UInt128.self)
            change.new = unsafe Checksum.add(field, count: 16)
        }
        return change
    }

    private func isMapped(
        _ packet: borrowing IPPacket, _ side: IPPacket.Side, _ mapping: Mapping
    ) -> Bool {
        let field = unsafe packet.bytes + packet.offset(of: side)
        return packet.family == .v4
            ? mapping.target(v4: unsafe field.bigEndian32(at: 0)) != nil
            : mapping.target(v6: unsafe field.bigEndian128(at: 0)) != nil
    }

    @inline(__always)
    private func update(
        _ packet: UnsafeMutableRawPointer, _ field: Int, _ number: UInt8, _ change: Change
    ) {
        let isUDP = number == IPProtocol.udp
        // Sent without a checksum, it stays without; and none that becomes zero may say so (RFC 768).
        if isUDP, unsafe packet.reading.word(at: field) == 0 { return }
        unsafe Checksum.update(packet, at: field, from: change.old, to: change.new)
        if isUDP, unsafe packet.reading.word(at: field) == 0 { unsafe packet.storeWord(0xffff, at: field) }
    }
}

/// What stands behind the IP header, extension headers walked.
private struct Transport {
    /// More than this is nobody's packet.
    private static let extensionLimit = 8

    private(set) var number: UInt8
    private(set) var offset: Int
    /// The destination is not the last one (RFC 8200, section 4.4).
    private(set) var isRouted = false

    @inline(__always)
    init(_ packet: borrowing IPPacket) {
        number = packet.transport
        offset = packet.headerLength
        if packet.family == .v4 {
            if packet.isFragment, packet.fragmentField & FragmentBits.offset != 0 { number = IPProtocol.none }
        } else if number != IPProtocol.tcp, number != IPProtocol.udp, number != IPProtocol.icmp6 {
            walk(packet)
        }
    }

    private mutating func walk(_ packet: borrowing IPPacket) {
        for _ in 0..<Self.extensionLimit {
            let isExtension =
                number == IPProtocol.hopByHop || number == IPProtocol.routing
                || number == IPProtocol.destinationOptions
            guard isExtension || number == IPProtocol.fragment else { return }
            guard offset &+ ExtensionField.unit <= packet.count else { break }
            let header = unsafe packet.bytes + offset
            if isExtension {
                if number == IPProtocol.routing {
                    isRouted = unsafe header.byte(at: ExtensionField.segmentsLeft) != 0
                }
                let length = Int(unsafe header.byte(at: ExtensionField.length)) &+ 1
                offset &+= length &* ExtensionField.unit
            } else {
                // The header of the whole is in its first fragment.
                guard unsafe header.bigEndian16(at: ExtensionField.fragment) & 0xfff8 == 0 else { break }
                offset &+= ExtensionField.unit
            }
            number = unsafe header.byte(at: ExtensionField.nextHeader)
        }
        number = IPProtocol.none
    }

    /// Where the checksum is that covers the addresses; nil where none does.
    @inline(__always)
    func checksumField(_ family: IPAddress.Family) -> Int? {
        switch number {
        case IPProtocol.tcp: offset &+ TCPField.checksum
        case IPProtocol.udp, IPProtocol.udpLite, IPProtocol.dccp: offset &+ UDPField.checksum
        case IPProtocol.icmp6: family == .v6 ? offset &+ ICMPField.checksum : nil
        default: nil
        }
    }

    /// Where an ICMP error begins that has room for its quotation.
    @inline(__always)
    func error(_ packet: borrowing IPPacket) -> Int? {
        guard number == IPProtocol.icmp(packet.family), offset &+ ICMPField.headerLength < packet.count else {
            return nil
        }
        let type = unsafe packet.bytes.byte(at: offset &+ ICMPField.type)
        return ICMPType.isError(type, packet.family) ? offset : nil
    }
}
