@testable import WireGuard

extension InnerPackets {
    /// Lets `body` work on the packet where it lies, with 16 bytes behind it.
    @safe static func edit<Result>(
        _ packet: inout [UInt8], _ body: (UnsafeMutableRawPointer, InnerHeader) throws -> Result
    ) throws -> Result {
        let count = packet.count
        var bytes = packet + [UInt8](repeating: 0, count: 16)
        defer { packet = Array(bytes[..<count]) }
        return try unsafe bytes.withUnsafeMutableBytes { bytes in
            let base = bytes.baseAddress!
            let header = try unsafe InnerHeader(base, count: count)
            return try unsafe body(base, header)
        }
    }

    /// With an IPv4 header checksum that is right again.
    static func finished4(_ packet: [UInt8]) -> [UInt8] {
        var packet = packet
        let length = Int(packet[0] & 15) * 4
        packet[10] = 0
        packet[11] = 0
        packet.replaceSubrange(10..<12, with: bigEndian(internetChecksum(Array(packet[..<length]))))
        return packet
    }

    /// The packet as a TUN with NEEDS_CSUM gives it: only the pseudo header is in the checksum at `field`.
    static func partial(_ packet: [UInt8], field: Int) -> [UInt8] {
        var packet = packet
        let isV4 = packet[0] >> 4 == 4
        let header = isV4 ? 20 : 40
        let addresses = Array(isV4 ? packet[12..<20] : packet[8..<40])
        let length = UInt16(packet.count - header)
        let sum = ~internetChecksum(addresses + [0, packet[isV4 ? 9 : 6]] + bigEndian(length))
        packet.replaceSubrange(header + field..<header + field + 2, with: bigEndian(sum))
        return packet
    }

    /// What whoever finishes a partial checksum makes of it.
    static func completed(_ packet: [UInt8], field: Int) -> [UInt8] {
        var packet = packet
        let header = packet[0] >> 4 == 4 ? 20 : 40
        let sum = internetChecksum(Array(packet[header...]))
        packet.replaceSubrange(header + field..<header + field + 2, with: bigEndian(sum == 0 ? 0xffff : sum))
        return packet
    }
}

extension RepeatableEntropy {
    mutating func number(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + Int(next(UInt64.self) % UInt64(range.count))
    }
}
