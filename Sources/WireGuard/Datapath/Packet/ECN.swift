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

    /// Brings what the outer header said into an opened packet. `outer` is the TOS that it came with. Throws
    /// `.congestionMarked` when the packet is to be dropped.
    @inline(__always)
    static func decapsulate(_ packet: borrowing IPPacket, outer: UInt8) throws(DropReason) {
        // Not-ECT and ECT(0) outside change nothing.
        guard outer & 1 != 0 else { return }
        let inner = packet.tos
        guard let ecn = merged(inner: inner, outer: outer) else { throw .congestionMarked }
        if ecn != inner & Codepoint.mask { packet.setECN(ecn) }
    }
}
