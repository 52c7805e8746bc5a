internal import WireGuard

/// What a TUN gives at a read: one packet, or a superpacket that is to be segmented.
struct PacketShape: Sendable {
    let name: String
    /// From 10.1.0.1 to 10.2.0.1.
    let bytes: [UInt8]
    let offload: VirtioNetHeader
    /// Packets that go to the wire for it.
    let packets: Int
    /// Length of each, but perhaps the last, before sealing.
    let packetSize: Int

    private static let ipHeader = 20
    private static let udpHeader = 8
    /// Without options.
    private static let tcpHeader = 20

    /// A datagram that is finished: nothing is left to do but to seal it.
    static func single(_ size: Int) -> PacketShape {
        PacketShape(
            name: "\(size) B packet", bytes: udp(size), offload: VirtioNetHeader(), packets: 1,
            packetSize: size)
    }

    /// TSO: as many whole segments as 64 KB hold.
    static func tcpSuperpacket(packetSize: Int) -> PacketShape {
        let segment = packetSize - ipHeader - tcpHeader
        let count = (65_535 - ipHeader - tcpHeader) / segment
        var bytes = ip(protocol: 6, length: ipHeader + tcpHeader + count * segment)
        bytes += [0x30, 0x39, 0x14, 0x51]  // ports
        bytes += [0, 0, 0, 1, 0, 0, 0, 1]  // sequence, acknowledgement
        bytes += [0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]  // data offset, ACK, window, checksum, urgent
        bytes += payload(count * segment)
        return PacketShape(
            name: "TCP superpacket of \(count) times \(packetSize) B", bytes: bytes,
            offload: header(VirtioNetHeader.Segmentation.tcp4, segment: segment, checksumAt: 16),
            packets: count, packetSize: packetSize)
    }

    /// USO: as many datagrams as 64 KB hold, 64 at most.
    static func udpSuperpacket(packetSize: Int) -> PacketShape {
        let segment = packetSize - ipHeader - udpHeader
        let count = min(64, (65_535 - ipHeader - udpHeader) / segment)
        var bytes = ip(protocol: 17, length: ipHeader + udpHeader + count * segment)
        bytes += [0x30, 0x39, 0x14, 0x51]
        bytes += bigEndian(udpHeader + count * segment) + [0, 0]
        bytes += payload(count * segment)
        return PacketShape(
            name: "UDP superpacket of \(count) times \(packetSize) B", bytes: bytes,
            offload: header(VirtioNetHeader.Segmentation.udp, segment: segment, checksumAt: 6),
            packets: count,
            packetSize: packetSize)
    }

    // MARK: Bytes

    private static func udp(_ size: Int) -> [UInt8] {
        let length = size - ipHeader
        // A checksum of zero: there is none, so nothing joins these on the way out.
        return ip(protocol: 17, length: size) + [0x30, 0x39, 0x14, 0x51] + bigEndian(length) + [0, 0]
            + payload(length - udpHeader)
    }

    private static func ip(protocol: UInt8, length: Int) -> [UInt8] {
        var header: [UInt8] = [0x45, 0] + bigEndian(length)
        header += [0, 1, 0x40, 0, 64, `protocol`, 0, 0]
        header += [10, 1, 0, 1, 10, 2, 0, 1]
        var sum = stride(from: 0, to: header.count, by: 2).reduce(0) {
            $0 + Int(header[$1]) << 8 + Int(header[$1 + 1])
        }
        while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
        header.replaceSubrange(10..<12, with: bigEndian(~sum & 0xffff))
        return header
    }

    private static func payload(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) }
    }

    private static func bigEndian(_ value: Int) -> [UInt8] {
        [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)]
    }

    private static func header(_ kind: UInt8, segment: Int, checksumAt offset: UInt16) -> VirtioNetHeader {
        var header = VirtioNetHeader()
        header.flags = VirtioNetHeader.Flag.needsChecksum
        header.segmentation = kind
        header.headerLength = UInt16(ipHeader + (offset == 16 ? tcpHeader : udpHeader))
        header.segmentSize = UInt16(segment)
        header.checksumStart = UInt16(ipHeader)
        header.checksumOffset = offset
        return header
    }
}
