/// Lowers what a TCP connection being opened says it can receive (the MSS option of a SYN or SYN-ACK, RFC 9293,
/// section 3.7.1), so that its segments fit into the tunnel where ICMP gets lost. Both ways: each end's option
/// bounds what the other sends.
///
/// A packet whose options do not hold together stays as it is. So does a SYN behind IPv6 extension headers, or
/// in fragments, of which nobody sends any.
enum MSSClamp {
    private static let synchronize: UInt8 = 0x02
    private static let endOfOptions: UInt8 = 0
    private static let noOperation: UInt8 = 1
    private static let maximumSegmentSize: UInt8 = 2

    /// What the usual packet pays: two comparisons and a load.
    @inline(__always)
    static func concerns(_ packet: UnsafeRawPointer, header: InnerHeader) -> Bool {
        guard header.transport == InnerHeader.tcp, !header.isFragment,
            header.totalLength >= header.ipLength &+ 20
        else { return false }
        return unsafe packet.load(fromByteOffset: header.ipLength &+ 13, as: UInt8.self) & synchronize != 0
    }

    /// Call for what it `concerns`. `isPartial`: the checksum field holds the sum of the pseudo header alone
    /// (NEEDS_CSUM): whoever finishes it adds the option as it then is. True when something was lowered.
    @inline(never)
    @discardableResult
    static func clamp(
        _ packet: UnsafeMutableRawPointer, header: InnerHeader, innerMTU: Int, isPartial: Bool
    ) -> Bool {
        let limit = innerMTU &- (header.family == .v4 ? 40 : 60)
        let tcp = header.ipLength
        let length = Int(unsafe packet.load(fromByteOffset: tcp &+ 12, as: UInt8.self) >> 4) &* 4
        let end = tcp &+ length
        guard (1...0xffff).contains(limit), length >= 20, end <= header.totalLength else { return false }
        // All of them are looked at before one is written to.
        guard unsafe options(packet, from: tcp &+ 20, to: end, { _ in }) else { return false }
        var wasLowered = false
        _ = unsafe options(packet, from: tcp &+ 20, to: end) { position in
            let old = unsafe UnsafeRawPointer(packet).bigEndian16(at: position)
            guard old > limit else { return }
            unsafe packet.storeBigEndian16(limit, at: position)
            wasLowered = true
            guard !isPartial else { return }
            // A number at an odd place counts with its bytes swapped (RFC 1071, section 2B).
            let isOdd = (position &- tcp) & 1 == 1
            let (from, to) = (UInt16(truncatingIfNeeded: old), UInt16(truncatingIfNeeded: limit))
            unsafe Checksum.update(
                packet, at: tcp &+ 16, from: Checksum.word(Int(isOdd ? from.byteSwapped : from)),
                to: Checksum.word(Int(isOdd ? to.byteSwapped : to)))
        }
        return wasLowered
    }

    /// Calls `body` with the place of each MSS; false when the list does not hold together.
    @inline(__always)
    private static func options(
        _ packet: UnsafeRawPointer, from start: Int, to end: Int, _ body: (Int) -> Void
    ) -> Bool {
        var offset = start
        while offset < end {
            let kind = unsafe packet.load(fromByteOffset: offset, as: UInt8.self)
            if kind == endOfOptions { return true }
            if kind == noOperation {
                offset &+= 1
                continue
            }
            guard offset &+ 1 < end else { return false }
            let length = Int(unsafe packet.load(fromByteOffset: offset &+ 1, as: UInt8.self))
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
