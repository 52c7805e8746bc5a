import TestSupport
import Testing

@testable import WireGuard

extension InnerPackets {
    /// Lets `body` work on the packet in memory that ends with it, so that a sanitizer sees each byte too far.
    @safe static func edit<Result>(
        _ packet: inout [UInt8], _ body: (borrowing IPPacket) throws -> Result
    ) throws -> Result {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: packet.count, alignment: 1)
        defer { unsafe memory.deallocate() }
        unsafe memory.copyBytes(from: packet)
        let base = memory.baseAddress!
        let result = try body(unsafe IPPacket(base, count: packet.count))
        packet = unsafe Array(memory)
        return result
    }

    /// What ``Fragmenter`` makes of the packet, which must write nothing past the MTU; nil when it may not be fragmented.
    static func fragments(of packet: [UInt8], mtu: Int) throws -> [[UInt8]]? {
        var packet = packet
        return try edit(&packet) { packet -> [[UInt8]]? in
            guard var fragmenter = Fragmenter(packet, mtu: mtu) else { return nil }
            var buffer = [UInt8](repeating: 0xee, count: mtu + 16)
            var fragments: [[UInt8]] = []
            while true {
                let count = unsafe buffer.withUnsafeMutableBytes { buffer in
                    guard let fragment = unsafe fragmenter.next(into: buffer.baseAddress!) else { return 0 }
                    return fragment.count
                }
                guard count > 0 else { return fragments }
                #expect(buffer[mtu...].allSatisfy { $0 == 0xee })
                fragments.append(Array(buffer[..<count]))
            }
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
}

extension SplitMix {
    mutating func number(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + Int(next(UInt64.self) % UInt64(range.count))
    }
}
