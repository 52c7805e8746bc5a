/// Explicit congestion notification through the tunnel (RFC 6040): the outer packet carries the inner one's
/// ECN field, and what a router on the way marks there reaches the receiver inside. The DSCP stays ours, unless
/// the operator wants it copied out.
enum ECN {
    /// The two low bits of TOS and traffic class (RFC 3168, section 5).
    enum Codepoint {
        static let notCapable: UInt8 = 0
        static let capable1: UInt8 = 1
        static let capable0: UInt8 = 2
        static let experienced: UInt8 = 3
        static let mask: UInt8 = 3
    }

    /// TOS of IPv4, traffic class of IPv6. The packet's header has been checked.
    @inline(__always)
    static func tos(_ packet: UnsafeRawPointer, family: IPAddress.Family) -> UInt8 {
        family == .v4
            ? unsafe packet.load(fromByteOffset: 1, as: UInt8.self)
            : UInt8(truncatingIfNeeded: (unsafe packet.bigEndian16(at: 0)) &>> 4)
    }

    /// For the outer header of a packet (section 4.1, normal mode): the inner ECN field under the DSCP of
    /// `ours`, or under the inner one.
    @inline(__always)
    static func outer(inner: UInt8, ours: UInt8 = 0, copiesDSCP: Bool) -> UInt8 {
        copiesDSCP ? inner : ours & ~Codepoint.mask | inner & Codepoint.mask
    }

    /// What the inner ECN field becomes (section 4.2, figure 4); nil: the packet is to be dropped.
    @inline(__always)
    static func merged(inner: UInt8, outer: UInt8) -> UInt8? {
        switch (inner & Codepoint.mask, outer & Codepoint.mask) {
        case (Codepoint.notCapable, Codepoint.experienced): nil
        case (Codepoint.capable0, Codepoint.capable1): Codepoint.capable1
        case (Codepoint.capable0, Codepoint.experienced), (Codepoint.capable1, Codepoint.experienced):
            Codepoint.experienced
        case (let inner, _): inner
        }
    }

    /// Brings what the outer header said into an opened packet. `outer` is the class that it came with;
    /// `.congestionMarked` when it is to be dropped.
    @inline(__always)
    static func decapsulate(
        _ packet: UnsafeMutableRawPointer, family: IPAddress.Family, outer: UInt8
    ) throws(DropReason) {
        // Not-ECT and ECT(0) outside change nothing.
        guard outer & 1 != 0 else { return }
        let inner = unsafe tos(packet, family: family)
        guard let ecn = merged(inner: inner, outer: outer) else { throw .congestionMarked }
        guard ecn != inner & Codepoint.mask else { return }
        unsafe mark(packet, family: family, ecn)
    }

    /// Replaces the ECN field, and mends the IPv4 header's checksum.
    @inline(never)
    private static func mark(
        _ packet: UnsafeMutableRawPointer, family: IPAddress.Family, _ ecn: UInt8
    ) {
        switch family {
        case .v4:
            let old = unsafe UnsafeRawPointer(packet).bigEndian16(at: 0)
            let new = old & ~3 | Int(ecn)
            unsafe packet.storeBigEndian16(new, at: 0)
            unsafe Checksum.update(packet, at: 10, from: Checksum.word(old), to: Checksum.word(new))
        case .v6:
            let old = unsafe packet.load(fromByteOffset: 1, as: UInt8.self)
            unsafe packet.storeBytes(of: old & 0xcf | ecn << 4, toByteOffset: 1, as: UInt8.self)
        }
    }
}
