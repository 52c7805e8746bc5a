/// What a path may ask for beside sealing: its MTU kept. The usual packet of a path that asks for nothing pays one
/// branch for it.
extension Outbound {
    /// True when the packet, whose checksums are finished, is to be sealed as it is now; false when it has been
    /// seen to.
    @inline(never)
    mutating func treat(
        _ packet: UnsafeMutableRawPointer, _ header: InnerHeader, _ trafficClass: UInt8, use index: Int
    ) -> Bool {
        let limit = unsafe uses[index].limit
        guard header.totalLength <= limit else {
            unsafe cut(packet, header, trafficClass, use: index)
            return false
        }
        if limit < .max, unsafe SegmentClamp.concerns(packet, header: header) {
            unsafe SegmentClamp.clamp(packet, header: header, innerMTU: limit, isPartial: false)
        }
        return true
    }

    /// The same for a superpacket. One of TCP has been cut to fit, and never has a SYN.
    @inline(never)
    mutating func treat(
        _ superpacket: borrowing Superpacket, _ trafficClass: UInt8, use index: Int
    ) -> Bool {
        guard unsafe superpacket.longest > uses[index].limit else { return true }
        for number in 0..<superpacket.segmentCount {
            let (start, length) = unsafe superpacket.segment(number)
            guard let header = unsafe try? InnerHeader(start, count: length) else { continue }
            if unsafe treat(start, header, trafficClass, use: index) {
                unsafe seal(start, count: length, trafficClass, use: index)
            }
        }
        return false
    }

    /// A packet that is too long: sent in pieces, or its sender is told what would pass (RFC 1191; RFC 8201).
    private mutating func cut(
        _ packet: UnsafeMutableRawPointer, _ header: InnerHeader, _ trafficClass: UInt8, use index: Int
    ) {
        let limit = unsafe uses[index].limit
        guard var fragments = unsafe Fragmenter(packet, header: header, mtu: limit) else {
            drops.add(.outboundTooBig)
            // Of the segments of one packet, the first one's sender is the others'.
            if unsafe answer.bytes == nil {
                unsafe answer.make(.tooBig(mtu: limit), for: packet, header: header)
            }
            return
        }
        while true {
            let count = unsafe fragments.next(into: scratch)
            guard count > 0 else { return }
            unsafe seal(scratch, count: count, trafficClass, use: index)
        }
    }
}
