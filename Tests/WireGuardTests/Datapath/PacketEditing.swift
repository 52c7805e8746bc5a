import TestSupport

@testable import WireGuard

extension InnerPackets {
    /// Lets `body` work on the packet in memory that ends with it, so that a sanitizer sees each byte too far.
    @safe static func edit<Result>(
        _ packet: inout [UInt8], _ body: (UnsafeMutableRawPointer, InnerHeader) throws -> Result
    ) throws -> Result {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: packet.count, alignment: 1)
        defer { unsafe memory.deallocate() }
        unsafe memory.copyBytes(from: packet)
        let base = memory.baseAddress!
        let header = try unsafe InnerHeader(base, count: packet.count)
        let result = try unsafe body(base, header)
        packet = unsafe Array(memory)
        return result
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

extension SplitMix {
    mutating func number(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + Int(next(UInt64.self) % UInt64(range.count))
    }
}
