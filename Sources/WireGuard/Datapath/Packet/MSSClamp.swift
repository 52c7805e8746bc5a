/// Lowers what a TCP connection being opened says it can receive (the MSS option of a SYN or SYN-ACK, RFC 9293,
/// section 3.7.1), so that its segments fit into the tunnel where ICMP gets lost. Both ways: each end's option
/// bounds what the other sends.
///
/// A packet whose options do not hold together stays as it is. So does a SYN behind IPv6 extension headers, or
/// in fragments, of which nobody sends any.
enum MSSClamp {
    private static let endOfOptions: UInt8 = 0
    private static let noOperation: UInt8 = 1
    private static let maximumSegmentSize: UInt8 = 2

    /// What the usual packet pays: two comparisons and a load.
    @inline(__always)
    static func concerns(_ packet: borrowing IPPacket) -> Bool {
        packet.hasTCPHeader && packet.tcpFlags & TCPFlag.syn != 0
    }

    /// Call for what it `concerns`, its checksum finished.
    @inline(never)
    static func clamp(_ packet: borrowing IPPacket, innerMTU: Int) {
        let limit = innerMTU &- IPPacket.headerLength(packet.family) &- TCPField.headerLength
        let end = packet.tcpHeaderLength
        guard (1...0xffff).contains(limit), end >= TCPField.headerLength, end <= packet.bodyLength else {
            return
        }
        let tcp = unsafe packet.start + packet.headerLength
        // All of them are looked at before one is written to.
        guard unsafe options(tcp, to: end, { _ in }) else { return }
        _ = unsafe options(tcp, to: end) { offset in
            let old = unsafe tcp.reading.bigEndian16(at: offset)
            guard old > limit else { return }
            unsafe tcp.storeBigEndian16(limit, at: offset)
            // A number at an odd offset counts with its bytes swapped (RFC 1071, section 2B).
            let isOdd = offset & 1 == 1
            let (from, to) = (UInt16(truncatingIfNeeded: old), UInt16(truncatingIfNeeded: limit))
            unsafe Checksum.update(
                tcp, at: TCPField.checksum, from: Checksum.word(Int(isOdd ? from.byteSwapped : from)),
                to: Checksum.word(Int(isOdd ? to.byteSwapped : to)))
        }
    }

    /// Calls `body` with the offset of each MSS; false when the list does not hold together.
    @inline(__always)
    private static func options(_ tcp: UnsafeRawPointer, to end: Int, _ body: (Int) -> Void) -> Bool {
        var offset = TCPField.headerLength
        while offset < end {
            let kind = unsafe tcp.byte(at: offset)
            if kind == endOfOptions { return true }
            if kind == noOperation {
                offset &+= 1
                continue
            }
            guard offset &+ 1 < end else { return false }
            let length = Int(unsafe tcp.byte(at: offset &+ 1))
            guard length >= 2, offset &+ length <= end else { return false }
            if kind == maximumSegmentSize {
                guard length == 4 else { return false }
                body(offset &+ 2)
            }
            offset &+= length
        }
        return true
    }
}
