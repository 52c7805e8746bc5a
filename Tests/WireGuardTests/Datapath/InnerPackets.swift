@testable import WireGuard

/// Inner packets for tests, with right checksums unless a test breaks them.
enum InnerPackets {
    static let left4 = IPAddress("10.1.0.2")!
    static let right4 = IPAddress("10.2.0.2")!
    static let left6 = IPAddress("fd00:1::2")!
    static let right6 = IPAddress("fd00:2::2")!

    static func payload(_ count: Int, seed: UInt8 = 1) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8 &+ Int(seed)) }
    }

    static func tcp(
        from source: IPAddress = left4, to destination: IPAddress = right4, sequence: UInt32 = 1000,
        flags: UInt8 = 0x10, payload: [UInt8], options: [UInt8] = [], tos: UInt8 = 0,
        identification: UInt16 = 7, sourcePort: UInt16 = 40000
    ) -> [UInt8] {
        var segment: [UInt8] = []
        segment +=
            bigEndian(sourcePort) + bigEndian(UInt16(443)) + bigEndian(sequence) + bigEndian(UInt32(5555))
        segment += [UInt8((20 + options.count) / 4) << 4, flags] + bigEndian(UInt16(512)) + [0, 0, 0, 0]
        segment += options + payload
        let sum = transportChecksum(segment, from: source, to: destination, transport: 6)
        segment.replaceSubrange(16..<18, with: bigEndian(sum))
        return ip(
            from: source, to: destination, transport: 6, body: segment, tos: tos,
            identification: identification)
    }

    static func udp(
        from source: IPAddress = left4, to destination: IPAddress = right4, payload: [UInt8],
        sourcePort: UInt16 = 5000,
        identification: UInt16 = 7
    ) -> [UInt8] {
        var datagram =
            bigEndian(sourcePort) + bigEndian(UInt16(53)) + bigEndian(UInt16(8 + payload.count)) + [0, 0]
        datagram += payload
        let sum = transportChecksum(datagram, from: source, to: destination, transport: 17)
        datagram.replaceSubrange(6..<8, with: bigEndian(sum == 0 ? 0xffff : sum))
        return ip(
            from: source, to: destination, transport: 17, body: datagram, identification: identification)
    }

    static func ip(
        from source: IPAddress, to destination: IPAddress, transport: UInt8, body: [UInt8],
        tos: UInt8 = 0,
        identification: UInt16 = 7
    ) -> [UInt8] {
        switch source.family {
        case .v4:
            var header: [UInt8] = [0x45, tos] + bigEndian(UInt16(20 + body.count))
            header +=
                bigEndian(identification) + [0x40, 0, 64, transport, 0, 0] + source.bytes + destination.bytes
            header.replaceSubrange(10..<12, with: bigEndian(internetChecksum(header)))
            return header + body
        case .v6:
            return [0x60 | tos >> 4, tos << 4, 0, 0] + bigEndian(UInt16(body.count))
                + [transport, 64] + source.bytes + destination.bytes + body
        }
    }

    /// RFC 1071, word by word: the slow oracle.
    static func internetChecksum(_ bytes: [UInt8]) -> UInt16 {
        var sum = 0
        for index in stride(from: 0, to: bytes.count, by: 2) {
            sum += Int(bytes[index]) << 8 + (index + 1 < bytes.count ? Int(bytes[index + 1]) : 0)
        }
        while sum >> 16 != 0 { sum = sum & 0xffff + sum >> 16 }
        return ~UInt16(sum)
    }

    static func transportChecksum(
        _ segment: [UInt8], from source: IPAddress, to destination: IPAddress, transport: UInt8
    ) -> UInt16 {
        internetChecksum(
            source.bytes + destination.bytes + [0, transport] + bigEndian(UInt16(segment.count)) + segment)
    }

    /// Whether the IPv4 header's and the transport's checksums are both right.
    static func isIntact(_ packet: [UInt8]) -> Bool {
        let isV4 = packet[0] >> 4 == 4
        let header = isV4 ? 20 : 40
        if isV4, internetChecksum(Array(packet[..<20])) != 0 { return false }
        let source = IPAddress(bytes: isV4 ? packet[12..<16] : packet[8..<24])!
        let destination = IPAddress(bytes: isV4 ? packet[16..<20] : packet[24..<40])!
        return transportChecksum(
            Array(packet[header...]), from: source, to: destination, transport: packet[isV4 ? 9 : 6]) == 0
    }

    static func bigEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        (0..<Value.bitWidth / 8).reversed().map { UInt8(truncatingIfNeeded: value >> Value($0 * 8)) }
    }
}

extension InnerPackets {
    /// An echo request, or a reply, whose data is `payload`.
    static func echo(
        from source: IPAddress, to destination: IPAddress, isReply: Bool = false, payload: [UInt8],
        identifier: UInt16 = 77
    ) -> [UInt8] {
        let isV4 = source.family == .v4
        let type: UInt8 = isV4 ? (isReply ? 0 : 8) : (isReply ? 129 : 128)
        var message = [type, 0, 0, 0] + bigEndian(identifier) + bigEndian(UInt16(3)) + payload
        let sum =
            isV4
            ? internetChecksum(message)
            : transportChecksum(message, from: source, to: destination, transport: 58)
        message.replaceSubrange(2..<4, with: bigEndian(sum))
        return ip(from: source, to: destination, transport: isV4 ? 1 : 58, body: message)
    }
}
