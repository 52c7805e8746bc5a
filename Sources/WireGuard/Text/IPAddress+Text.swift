extension IPAddress: CustomStringConvertible, LosslessStringConvertible {
    /// Accepts dotted decimal (four parts, no leading zeros) and the IPv6 forms of RFC 4291, section 2.2.
    package init?(_ text: String) {
        self.init(text: Array(text.utf8)[...])
    }

    init?(text: ArraySlice<UInt8>) {
        if text.contains(UInt8(ascii: ":")) {
            guard let bits = Self.parseV6(text) else { return nil }
            self.init(v6: bits)
        } else {
            guard let bits = Self.parseV4(text) else { return nil }
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
        var result: UInt32 = 0
        var (parts, part, digits) = (0, UInt32(0), 0)
        // No arrays: a configuration may have 100,000 of these.
        for byte in text {
            switch byte {
            case UInt8(ascii: ".") where digits > 0 && parts < 3:
                result = result << 8 | part
                (parts, part, digits) = (parts + 1, 0, 0)
            case 0x30...0x39 where digits == 0 || part > 0:
                part = part * 10 + UInt32(byte - 0x30)
                digits += 1
                guard part <= 255 else { return nil }
            default: return nil
            }
        }
        return parts == 3 && digits > 0 ? result << 8 | part : nil
    }

    private static func parseV6(_ text: ArraySlice<UInt8>) -> UInt128? {
        var before: [UInt16] = []
        var after: [UInt16]?
        var rest = text
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
