/// A CIDR prefix: allowed IPs, routes, interface addresses (RFC 4632, RFC 4291).
package struct IPPrefix: Hashable, Sendable {
    /// As given, host bits included: `169.254.100.2/30` is an address with its link's prefix.
    package let address: IPAddress
    // In one byte: there may be 100,000.
    private let bitCount: UInt8

    package var length: Int { Int(bitCount) }

    package init?(address: IPAddress, length: Int) {
        guard (0...address.family.width).contains(length) else { return nil }
        self.address = address
        bitCount = UInt8(truncatingIfNeeded: length)
    }

    package init(host address: IPAddress) {
        self.address = address
        bitCount = UInt8(truncatingIfNeeded: address.family.width)
    }

    package var family: IPAddress.Family { address.family }

    package var mask: UInt128 {
        length == 0 ? 0 : (~UInt128(0) << UInt128(128 - length)) >> UInt128(128 - family.width)
    }

    /// The same prefix with its host bits cleared.
    package var network: IPPrefix {
        IPPrefix(address: IPAddress(family: family, bits: address.bits & mask), length: length) ?? self
    }

    package var first: UInt128 { address.bits & mask }
    package var last: UInt128 {
        first | (family == .v4 ? ~mask & 0xffff_ffff : ~mask)
    }

    /// Returns true if all of its addresses are.
    package var isMulticast: Bool { address.isMulticast && length >= (family == .v4 ? 4 : 8) }

    package func contains(_ other: IPAddress) -> Bool {
        other.family == family && other.bits & mask == first
    }

    package func contains(_ other: IPPrefix) -> Bool { other.length >= length && contains(other.address) }

    package func overlaps(_ other: IPPrefix) -> Bool { contains(other) || other.contains(self) }
}

extension IPPrefix {
    /// In two words: tables of 100,000 prefixes are made of nothing but hashing.
    package func hash(into hasher: inout Hasher) {
        hasher.combine(UInt64(truncatingIfNeeded: address.bits))
        hasher.combine(
            UInt64(truncatingIfNeeded: address.bits >> 64) ^ UInt64(length) ^ UInt64(family.width) << 8)
    }
}

extension IPPrefix: CustomStringConvertible, LosslessStringConvertible {
    /// `10.0.0.0/8`, `2001:db8::/32`; a bare address is a host prefix.
    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        let slash = bytes.firstIndex(of: UInt8(ascii: "/"))
        guard let address = IPAddress(text: bytes[..<(slash ?? bytes.endIndex)]) else { return nil }
        guard let slash else {
            self.init(host: address)
            return
        }
        let digits = bytes[(slash + 1)...]
        guard (1...3).contains(digits.count), digits.allSatisfy({ (0x30...0x39).contains($0) }) else {
            return nil
        }
        self.init(address: address, length: digits.reduce(0) { $0 * 10 + Int($1 - 0x30) })
    }

    package var description: String { "\(address)/\(length)" }
}
