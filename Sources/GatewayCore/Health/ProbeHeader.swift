internal import WireGuard

/// Where things are in a packet that control looks at: an IPv4 packet in one piece, or an IPv6 packet without
/// extension headers. The packet may have been cut off; its header was not.
struct ProbeHeader {
    let family: IPAddress.Family
    let transport: UInt8
    /// Of the transport header and what follows.
    let bodyOffset: Int
    let bodyLength: Int
    let source: IPAddress
    let destination: IPAddress

    static let icmp: UInt8 = 1
    static let tcp: UInt8 = 6
    static let icmpV6: UInt8 = 58
    static let timeToLive: UInt8 = 64

    static func length(_ family: IPAddress.Family) -> Int { family == .v4 ? 20 : 40 }

    var addresses: Range<Int> { family == .v4 ? 12..<20 : 8..<40 }

    /// `length`: of the whole packet, of which `packet` holds the beginning.
    init?(_ packet: [UInt8], length: Int) {
        guard let first = packet.first else { return nil }
        switch first >> 4 {
        case 4:
            let headerLength = Int(first & 15) * 4
            guard headerLength >= 20, packet.count >= headerLength else { return nil }
            let totalLength = packet.bigEndian16(at: 2)
            guard totalLength >= headerLength, totalLength <= length else { return nil }
            guard packet.bigEndian16(at: 6) & 0x3fff == 0 else { return nil }
            var checksum = InternetChecksum()
            checksum.add(packet, 0..<headerLength)
            guard checksum.value == 0 else { return nil }
            family = .v4
            transport = packet[9]
            bodyOffset = headerLength
            bodyLength = totalLength - headerLength
        case 6:
            guard packet.count >= 40 else { return nil }
            family = .v6
            transport = packet[6]
            bodyOffset = 40
            bodyLength = packet.bigEndian16(at: 4)
            guard bodyOffset + bodyLength <= length else { return nil }
        default: return nil
        }
        let range = family == .v4 ? 12..<20 : 8..<40
        let middle = (range.lowerBound + range.upperBound) / 2
        guard let source = IPAddress(bytes: packet[range.lowerBound..<middle]),
            let destination = IPAddress(bytes: packet[middle..<range.upperBound])
        else { return nil }
        self.source = source
        self.destination = destination
    }

    /// Bytes of the body that are there.
    func available(in packet: [UInt8]) -> Int { min(bodyLength, packet.count - bodyOffset) }

    /// True also when too little of the packet is there to say.
    func isBodyChecksumRight(_ packet: [UInt8]) -> Bool {
        guard packet.count >= bodyOffset + bodyLength else { return true }
        var checksum = InternetChecksum()
        if transport != Self.icmp { checksum.addPseudoHeader(of: packet, self) }
        checksum.add(packet, bodyOffset..<bodyOffset + bodyLength)
        return checksum.value == 0
    }
}

extension [UInt8] {
    func bigEndian16(at offset: Int) -> Int { Int(self[offset]) << 8 | Int(self[offset + 1]) }

    func bigEndian32(at offset: Int) -> UInt32 {
        UInt32(bigEndian16(at: offset)) << 16 | UInt32(bigEndian16(at: offset + 2))
    }

    mutating func appendBigEndian(_ value: some FixedWidthInteger & UnsignedInteger) {
        for shift in stride(from: value.bitWidth - 8, through: 0, by: -8) {
            append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }

    mutating func storeBigEndian16(_ value: UInt16, at offset: Int) {
        self[offset] = UInt8(value >> 8)
        self[offset + 1] = UInt8(value & 0xff)
    }
}
