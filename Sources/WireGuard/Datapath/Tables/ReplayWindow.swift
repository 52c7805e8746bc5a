/// Which counters of a session have been seen (RFC 6479): a ring of 64-bit blocks that moves with the
/// greatest one.
///
/// A counter may arrive up to `size` late; one block is always being cleared, so the ring holds one block
/// more.
package struct ReplayWindow: ~Copyable {
    private static let blocks = 128
    /// Bits that may be asked about behind the greatest counter: 8192 less the block in use (RFC 6479,
    /// section 2.1).
    package static let size: UInt64 = UInt64(blocks - 1) * 64

    private var ring = InlineArray<128, UInt64>(repeating: 0)
    /// The greatest counter taken, plus one; 0 while there is none.
    private var next: UInt64 = 0

    package init() {}

    /// True once for each counter that is not too old. Call only for a packet that is authentic.
    package mutating func accept(_ counter: UInt64) -> Bool {
        guard counter < Protocol.rejectAfterMessages else { return false }
        let block = counter >> 6
        if counter >= next {
            let newest = next == 0 ? 0 : (next &- 1) >> 6
            let steps = min(block &- newest, UInt64(Self.blocks))
            var step: UInt64 = 1
            while step <= steps {
                ring[Int((newest &+ step) % UInt64(Self.blocks))] = 0
                step &+= 1
            }
            next = counter &+ 1
        } else if next &- counter > Self.size {
            return false
        }
        let slot = Int(block % UInt64(Self.blocks))
        let bit: UInt64 = 1 << (counter & 63)
        guard ring[slot] & bit == 0 else { return false }
        ring[slot] |= bit
        return true
    }
}
