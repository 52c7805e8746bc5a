/// What a router owes a sender whose packet it cannot pass on, at most a hundred a second.
///
/// It is written in the name of the packet's destination: that one is behind the TUN by every routing table,
/// so no reverse-path filter stands in the answer's way, and none of our own addresses need be known here.
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

    /// The packet as its sender wrote it: before any translation, which the sender knows nothing of.
    mutating func make(_ kind: Kind = .unreachable, for packet: UnsafeRawPointer, header: InnerHeader) {
        guard tokens > 0 else { return }
        switch header.family {
        case .v4: unsafe makeV4(kind, packet, header)
        case .v6: unsafe makeV6(kind, packet, header)
        }
        if count > 0 { tokens -= 1 }
    }

    /// Never about an ICMP error, a later fragment, or what was not sent from one host to one host (RFC 1122,
    /// 3.2.2).
    private mutating func makeV4(_ kind: Kind, _ packet: UnsafeRawPointer, _ header: InnerHeader) {
        let source = IPAddress(v4: unsafe packet.bigEndian32(at: 12))
        let destination = IPAddress(v4: unsafe packet.bigEndian32(at: 16))
        guard Self.isHost(source), Self.isHost(destination), unsafe packet.bigEndian16(at: 6) & 0x1fff == 0
        else { return }
        if header.transport == 1 {
            let queries: [UInt8] = [8, 13, 15, 17]
            guard header.totalLength > header.ipLength,
                unsafe queries.contains(packet.load(fromByteOffset: header.ipLength, as: UInt8.self))
            else { return }
        }
        let quoted = min(header.totalLength, Self.quoted)
        unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0, count: 28)
        unsafe buffer.storeBytes(of: 0x45, as: UInt8.self)
        unsafe buffer.storeBigEndian16(28 + quoted, at: 2)
        unsafe buffer.storeBytes(of: 64, toByteOffset: 8, as: UInt8.self)
        unsafe buffer.storeBytes(of: 1, toByteOffset: 9, as: UInt8.self)
        unsafe (buffer + 12).copyMemory(from: packet + 16, byteCount: 4)
        unsafe (buffer + 16).copyMemory(from: packet + 12, byteCount: 4)
        unsafe Checksum.finishIPv4Header(buffer, headerLength: 20)
        // Destination unreachable; of its codes, host unreachable or fragmentation needed.
        unsafe buffer.storeBytes(of: 3, toByteOffset: 20, as: UInt8.self)
        switch kind {
        case .unreachable: unsafe buffer.storeBytes(of: 1, toByteOffset: 21, as: UInt8.self)
        case .tooBig(let mtu):
            unsafe buffer.storeBytes(of: 4, toByteOffset: 21, as: UInt8.self)
            unsafe buffer.storeBigEndian16(min(mtu, 0xffff), at: 26)
        }
        unsafe (buffer + 28).copyMemory(from: packet, byteCount: quoted)
        let sum = unsafe ~Checksum.fold(Checksum.add(buffer + 20, count: 8 + quoted))
        unsafe buffer.storeBytes(of: sum, toByteOffset: 22, as: UInt16.self)
        count = 28 + quoted
    }

    private mutating func makeV6(_ kind: Kind, _ packet: UnsafeRawPointer, _ header: InnerHeader) {
        let source = IPAddress(v6: unsafe packet.bigEndian128(at: 8))
        let destination = IPAddress(v6: unsafe packet.bigEndian128(at: 24))
        guard Self.isHost(source), Self.isHost(destination) else { return }
        if header.transport == 58 {
            guard header.totalLength > 40, unsafe packet.load(fromByteOffset: 40, as: UInt8.self) >= 128
            else { return }
        }
        let quoted = min(header.totalLength, Self.quoted)
        unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0, count: 48)
        unsafe buffer.storeBytes(of: 0x60, as: UInt8.self)
        unsafe buffer.storeBigEndian16(8 + quoted, at: 4)
        unsafe buffer.storeBytes(of: 58, toByteOffset: 6, as: UInt8.self)
        unsafe buffer.storeBytes(of: 64, toByteOffset: 7, as: UInt8.self)
        unsafe (buffer + 8).copyMemory(from: packet + 24, byteCount: 16)
        unsafe (buffer + 24).copyMemory(from: packet + 8, byteCount: 16)
        switch kind {
        case .unreachable:
            // Destination unreachable, address unreachable.
            unsafe buffer.storeBytes(of: 1, toByteOffset: 40, as: UInt8.self)
            unsafe buffer.storeBytes(of: 3, toByteOffset: 41, as: UInt8.self)
        case .tooBig(let mtu):
            unsafe buffer.storeBytes(of: 2, toByteOffset: 40, as: UInt8.self)
            unsafe buffer.storeBigEndian32(
                UInt32(truncatingIfNeeded: max(mtu, Self.minimumMTU6)), at: 44)
        }
        unsafe (buffer + 48).copyMemory(from: packet, byteCount: quoted)
        let pseudo = unsafe Checksum.pseudoHeader(buffer, family: .v6, transport: 58, length: 8 + quoted)
        let sum = unsafe ~Checksum.fold(Checksum.add(buffer + 40, count: 8 + quoted, to: pseudo))
        unsafe buffer.storeBytes(of: sum, toByteOffset: 42, as: UInt16.self)
        count = 48 + quoted
    }

    private static func isHost(_ address: IPAddress) -> Bool {
        !address.isUnspecified && !address.isMulticast
            && !(address.family == .v4 && address.bits == 0xffff_ffff)
    }
}
