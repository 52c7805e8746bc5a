extension UnsafeRawPointer {
    @inline(__always)
    func byte(at offset: Int) -> UInt8 { unsafe load(fromByteOffset: offset, as: UInt8.self) }

    /// A 16-bit number as it stands in memory: what checksums are made of.
    @inline(__always)
    func word(at offset: Int) -> UInt16 { unsafe loadUnaligned(fromByteOffset: offset, as: UInt16.self) }

    @inline(__always)
    func bigEndian16(at offset: Int) -> Int { Int(UInt16(bigEndian: unsafe word(at: offset))) }

    @inline(__always)
    func bigEndian32(at offset: Int) -> UInt32 {
        UInt32(bigEndian: unsafe loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    @inline(__always)
    func bigEndian128(at offset: Int) -> UInt128 {
        let high = UInt64(bigEndian: unsafe loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        let low = UInt64(bigEndian: unsafe loadUnaligned(fromByteOffset: offset &+ 8, as: UInt64.self))
        return UInt128(high) << 64 | UInt128(low)
    }
}

extension UnsafeMutableRawPointer {
    @inline(__always)
    var reading: UnsafeRawPointer { UnsafeRawPointer(self) }

    @inline(__always)
    func storeByte(_ value: UInt8, at offset: Int) {
        unsafe storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
    }

    @inline(__always)
    func storeWord(_ value: UInt16, at offset: Int) {
        unsafe storeBytes(of: value, toByteOffset: offset, as: UInt16.self)
    }

    @inline(__always)
    func storeBigEndian16(_ value: Int, at offset: Int) {
        unsafe storeWord(UInt16(truncatingIfNeeded: value).bigEndian, at: offset)
    }

    @inline(__always)
    func storeBigEndian32(_ value: UInt32, at offset: Int) {
        unsafe storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
    }
}
