/// An IPv4 or IPv6 address as a number, so that prefixes, tables and comparisons are integer arithmetic.
package struct IPAddress: Hashable, Sendable, BitwiseCopyable {
    package enum Family: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        case v4 = 4
        case v6 = 6

        /// Width of an address in bits.
        @inlinable package var width: Int { self == .v4 ? 32 : 128 }
    }

    // Two halves: a UInt128 would be aligned to 16 bytes, and so would all that holds an address, tables of 100,000
    // routes among them.
    @usableFromInline let high: UInt64
    @usableFromInline let low: UInt64
    package let family: Family

    /// Host order; an IPv4 address is in the low 32 bits.
    @inlinable package var bits: UInt128 { UInt128(high) << 64 | UInt128(low) }

    @inlinable package init(family: Family, bits: UInt128) {
        self.family = family
        high = family == .v4 ? 0 : UInt64(truncatingIfNeeded: bits >> 64)
        low = UInt64(truncatingIfNeeded: bits) & (family == .v4 ? 0xffff_ffff : .max)
    }

    @inlinable package init(v4 bits: UInt32) { self.init(family: .v4, bits: UInt128(bits)) }

    @inlinable package init(v6 bits: UInt128) { self.init(family: .v6, bits: bits) }

    /// 4 or 16 bytes in network order; anything else is no address.
    @inlinable package init?(bytes: some Collection<UInt8>) {
        let family: Family
        switch bytes.count {
        case 4: family = .v4
        case 16: family = .v6
        default: return nil
        }
        self.init(family: family, bits: bytes.reduce(0) { $0 << 8 | UInt128($1) })
    }

    /// Network order, 4 or 16 bytes.
    package var bytes: [UInt8] {
        let count = family.width / 8
        return (0..<count).map { UInt8(truncatingIfNeeded: bits >> UInt128(8 * (count - 1 - $0))) }
    }

    package static func any(_ family: Family) -> IPAddress { IPAddress(family: family, bits: 0) }

    package var isUnspecified: Bool { bits == 0 }
    /// 127.0.0.0/8 or ::1.
    package var isLoopback: Bool { family == .v4 ? bits >> 24 == 127 : bits == 1 }
    package var isMulticast: Bool {
        family == .v4 ? bits >> 28 == 0xe : bits >> 120 == 0xff
    }
    /// fe80::/10 or 169.254.0.0/16. An IPv6 one means nothing without its interface.
    package var isLinkLocal: Bool {
        family == .v4 ? bits >> 16 == 0xa9fe : bits >> 118 == 0x3fa
    }
}
