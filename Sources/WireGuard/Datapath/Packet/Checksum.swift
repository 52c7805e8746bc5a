/// The Internet checksum (RFC 1071): a ones' complement sum, taken in the machine's byte order. The sum of
/// swapped words is the swapped sum (section 2B), so results are stored as they are, and constants are added
/// through `word`.
enum Checksum {
    /// Adds `count` bytes to a partial sum. The 64 bits of an accumulator, in a vector or alone, hold 2^32
    /// additions of 32 bits without carry.
    @inline(__always)
    static func add(_ bytes: UnsafeRawPointer, count: Int, to partial: UInt64 = 0) -> UInt64 {
        var sum = partial
        var offset = 0
        if count >= 64 {
            // The sum of the lower halves is what is left of the whole sum without that of the upper ones: it
            // has no carry, so it does not matter that the whole sum loses its own.
            var whole = SIMD8<UInt64>(repeating: 0)
            var upper = SIMD8<UInt64>(repeating: 0)
            repeat {
                let words = unsafe bytes.loadUnaligned(fromByteOffset: offset, as: SIMD8<UInt64>.self)
                whole &+= words
                upper &+= words &>> 32
                offset &+= 64
            } while offset &+ 64 <= count
            let lower = whole &- upper &<< 32
            sum &+= lower.wrappedSum() &+ upper.wrappedSum()
        }
        while offset &+ 8 <= count {
            let word = unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            sum &+= (word & 0xffff_ffff) &+ (word >> 32)
            offset &+= 8
        }
        if offset &+ 4 <= count {
            sum &+= UInt64(unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
            offset &+= 4
        }
        if offset &+ 2 <= count {
            sum &+= UInt64(unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
            offset &+= 2
        }
        if offset < count {
            sum &+= UInt64(
                UInt16(littleEndian: UInt16(unsafe bytes.load(fromByteOffset: offset, as: UInt8.self))))
        }
        return sum
    }

    /// A 16-bit number as it stands in a packet.
    @inline(__always)
    static func word(_ value: Int) -> UInt64 { UInt64(UInt16(truncatingIfNeeded: value).bigEndian) }

    /// The 16-bit sum, not complemented: what the kernel wants in the field of a packet it is to finish
    /// itself.
    @inline(__always)
    static func fold(_ sum: UInt64) -> UInt16 {
        var folded = (sum & 0xffff_ffff) &+ (sum >> 32)
        folded = (folded & 0xffff_ffff) &+ (folded >> 32)
        folded = (folded & 0xffff) &+ (folded >> 16)
        folded = (folded & 0xffff) &+ (folded >> 16)
        folded = (folded & 0xffff) &+ (folded >> 16)
        return UInt16(truncatingIfNeeded: folded)
    }

    /// Addresses, protocol and length (RFC 9293, section 3.1; RFC 8200, section 8.1).
    @inline(__always)
    static func pseudoHeader(
        _ packet: UnsafeRawPointer, family: IPAddress.Family, transport: UInt8, length: Int
    ) -> UInt64 {
        let addresses =
            family == .v4
            ? unsafe add(packet + IPv4Field.source, count: 8)
            : unsafe add(packet + IPv6Field.source, count: 32)
        return addresses &+ word(Int(transport)) &+ word(length)
    }

    /// Recomputes an IPv4 header's checksum in place.
    @inline(__always)
    static func finishIPv4Header(_ packet: UnsafeMutableRawPointer, headerLength: Int) {
        unsafe packet.storeWord(0, at: IPv4Field.checksum)
        let sum = unsafe fold(add(packet, count: headerLength))
        unsafe packet.storeWord(~sum, at: IPv4Field.checksum)
    }

    /// Takes a change of what a checksum covers into the field at `offset` (RFC 1624, equation 3). `old` and
    /// `new` are sums of words as `add` and `word` give them. Never writes 0xffff where a recomputation would
    /// write 0, or the other way round, unless all that is covered is zero.
    @inline(__always)
    static func update(_ packet: UnsafeMutableRawPointer, at offset: Int, from old: UInt64, to new: UInt64) {
        let field = unsafe packet.reading.word(at: offset)
        let sum = fold(UInt64(~field) &+ UInt64(~fold(old)) &+ UInt64(fold(new)))
        unsafe packet.storeWord(~sum, at: offset)
    }
}
