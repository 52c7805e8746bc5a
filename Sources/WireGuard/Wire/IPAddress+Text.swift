extension IPAddress: CustomStringConvertible, LosslessStringConvertible {
    /// Accepts dotted decimal (four parts, no leading zeros) and the IPv6 forms of RFC 4291, section 2.2.
    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        if bytes.contains(UInt8(ascii: ":")) {
            guard let bits = Self.parseV6(bytes) else { return nil }
            self.init(v6: bits)
        } else {
            guard let bits = Self.parseV4(bytes[...]) else { return nil }
            self.init(v4: bits)
        }
    }

    /// IPv6 as RFC 5952 wants it: lower case, the longest run of two or more zero groups as `::`.
    package var description: String {
        switch family {
        case .v4:
            return bytes.map { String($0) }.joined(separator: ".")
        case .v6:
            if bits >> 32 == 0xffff {
                return "::ffff:" + IPAddress(v4: UInt32(truncatingIfNeeded: bits)).description
            }
            let groups = (0..<8).map { UInt16(truncatingIfNeeded: bits >> UInt128(16 * (7 - $0))) }
            let hex = groups.map { String($0, radix: 16) }
            guard let run = Self.longestZeroRun(groups) else { return hex.joined(separator: ":") }
            return hex[..<run.lowerBound].joined(separator: ":") + "::"
                + hex[run.upperBound...].joined(separator: ":")
        }
    }

    private static func longestZeroRun(_ groups: [UInt16]) -> Range<Int>? {
        var best: Range<Int>?
        var start = 0
        for index in 0...groups.count {
            if index < groups.count, groups[index] == 0 { continue }
            if index - start >= 2, index - start > best?.count ?? 0 { best = start..<index }
            start = index + 1
        }
        return best
    }

    private static func parseV4(_ text: ArraySlice<UInt8>) -> UInt32? {
        let parts = text.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var result: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.count), part.allSatisfy({ (0x30...0x39).contains($0) }),
                part.count == 1 || part.first != 0x30
            else { return nil }
            let value = part.reduce(0) { $0 * 10 + UInt32($1 - 0x30) }
            guard value <= 255 else { return nil }
            result = result << 8 | value
        }
        return result
    }

    private static func parseV6(_ text: [UInt8]) -> UInt128? {
        var before: [UInt16] = []
        var after: [UInt16]?
        var rest = text[...]
        if rest.starts(with: [0x3a, 0x3a]) {
            after = []
            rest = rest.dropFirst(2)
        }
        while !rest.isEmpty {
            let end = rest.firstIndex(of: 0x3a) ?? rest.endIndex
            let part = rest[rest.startIndex..<end]
            var groups: [UInt16] = []
            if part.contains(UInt8(ascii: ".")) {
                guard end == rest.endIndex, let tail = parseV4(part) else { return nil }
                groups = [UInt16(tail >> 16), UInt16(truncatingIfNeeded: tail)]
            } else {
                guard (1...4).contains(part.count), let value = parseHex(part) else { return nil }
                groups = [value]
            }
            if after == nil { before += groups } else { after! += groups }
            if end == rest.endIndex {
                rest = []
            } else if rest[end...].starts(with: [0x3a, 0x3a]) {
                guard after == nil else { return nil }
                after = []
                rest = rest[(end + 2)...]
            } else {
                rest = rest[(end + 1)...]
                guard !rest.isEmpty else { return nil }
            }
        }
        let total = before.count + (after?.count ?? 0)
        guard after == nil ? total == 8 : total <= 7 else { return nil }
        let groups = before + Array(repeating: 0, count: 8 - total) + (after ?? [])
        return groups.reduce(0) { $0 << 16 | UInt128($1) }
    }

    private static func parseHex(_ text: ArraySlice<UInt8>) -> UInt16? {
        var value: UInt16 = 0
        for byte in text {
            switch byte {
            case 0x30...0x39: value = value << 4 | UInt16(byte - 0x30)
            case 0x41...0x46: value = value << 4 | UInt16(byte - 0x41 + 10)
            case 0x61...0x66: value = value << 4 | UInt16(byte - 0x61 + 10)
            default: return nil
            }
        }
        return value
    }
}
