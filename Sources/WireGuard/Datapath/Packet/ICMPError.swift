/// What a router owes a sender whose packet it cannot pass on, at most a hundred a second.
///
/// It is written in the name of the packet's destination: that one is behind the TUN by every routing table,
/// so no reverse-path filter stands in the error's way, and none of our own addresses need be known here.
@safe struct ICMPError: ~Copyable {
    enum Kind {
        /// ICMP host unreachable (RFC 792) or ICMPv6 address unreachable (RFC 4443, section 3.1).
        case unreachable
        /// ICMP fragmentation needed and DF set (RFC 1191, section 4) or ICMPv6 packet too big (RFC 4443,
        /// section 3.2), with the size that would pass. An IPv4 packet without DF is fragmented instead: see
        /// ``Fragmenter``.
        case tooBig(mtu: Int)
    }

    /// No IPv6 sender goes below it, whatever it is told (RFC 8200, section 5).
    static let minimumMTU6 = 1280

    private static let perSecond = 100
    /// Bytes of the packet that are sent back: within 576 for IPv4 (RFC 1812, section 4.3.2.3).
    private static let quoted = 520

    private static let hostUnreachable: UInt8 = 1
    private static let fragmentationNeeded: UInt8 = 4
    private static let addressUnreachable: UInt8 = 3
    /// ICMP messages that are no errors: echo, timestamp, information and address mask requests.
    private static let queries: [UInt8] = [8, 13, 15, 17]

    private let buffer: UnsafeMutableRawPointer
    private var count = 0
    private var tokens = perSecond
    private var second: UInt64 = 0

    init() { unsafe buffer = .allocate(byteCount: Self.quoted + 64, alignment: 16) }

    deinit { unsafe buffer.deallocate() }

    var bytes: UnsafeRawBufferPointer? {
        count == 0 ? nil : unsafe UnsafeRawBufferPointer(start: buffer, count: count)
    }

    mutating func refill(at now: Instant) {
        let current = now.nanoseconds / 1_000_000_000
        if current != second {
            second = current
            tokens = Self.perSecond
        }
    }

    @inline(__always)
    mutating func clear() { count = 0 }

    /// Writes the error to the sender of `packet`, which is as its sender wrote it: before any translation, which the
    /// sender knows nothing of.
    mutating func make(_ kind: Kind = .unreachable, for packet: borrowing IPPacket) {
        guard tokens > 0, Self.mayBeAbout(packet) else { return }
        let quoted = min(packet.count, Self.quoted)
        let error = unsafe IPPacket(
            writingTo: buffer, from: packet.address(.destination), to: packet.address(.source),
            transport: IPProtocol.icmp(packet.family), bodyLength: ICMPField.headerLength &+ quoted)
        let icmp = unsafe buffer + error.headerLength
        unsafe icmp.initializeMemory(as: UInt8.self, repeating: 0, count: ICMPField.headerLength)
        let (type, code): (UInt8, UInt8)
        switch (kind, packet.family) {
        case (.unreachable, .v4): (type, code) = (ICMPType.unreachable4, Self.hostUnreachable)
        case (.unreachable, .v6): (type, code) = (ICMPType.unreachable6, Self.addressUnreachable)
        case (.tooBig(let mtu), .v4):
            (type, code) = (ICMPType.unreachable4, Self.fragmentationNeeded)
            unsafe icmp.storeBigEndian16(min(mtu, 0xffff), at: ICMPField.mtu4)
        case (.tooBig(let mtu), .v6):
            (type, code) = (ICMPType.packetTooBig6, 0)
            unsafe icmp.storeBigEndian32(
                UInt32(truncatingIfNeeded: max(mtu, Self.minimumMTU6)), at: ICMPField.mtu6)
        }
        unsafe icmp.storeByte(type, at: ICMPField.type)
        unsafe icmp.storeByte(code, at: ICMPField.code)
        unsafe (icmp + ICMPField.headerLength).copyMemory(from: packet.bytes, byteCount: quoted)
        error.finishBody(checksumAt: ICMPField.checksum)
        count = error.count
        tokens -= 1
    }

    /// Never about an ICMP error, a later fragment, or what was not sent from one host to one host (RFC 1122, section
    /// 3.2.2; RFC 4443, section 2.4).
    private static func mayBeAbout(_ packet: borrowing IPPacket) -> Bool {
        guard isHost(packet.address(.source)), isHost(packet.address(.destination)) else { return false }
        if packet.family == .v4, packet.fragmentField & FragmentBits.offset != 0 { return false }
        guard packet.transport == IPProtocol.icmp(packet.family) else { return true }
        guard packet.bodyLength > ICMPField.type else { return false }
        let type = unsafe packet.body.byte(at: ICMPField.type)
        return packet.family == .v4 ? queries.contains(type) : !ICMPType.isError(type, .v6)
    }

    private static func isHost(_ address: IPAddress) -> Bool {
        !address.isUnspecified && !address.isMulticast
            && !(address.family == .v4 && address.bits == 0xffff_ffff)
    }
}
