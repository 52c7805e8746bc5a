/// Base64 (RFC 4648, section 4) of 32-byte keys, without Foundation and without tables: the characters are
/// computed, so that the time taken does not depend on the bits of a private key.
package enum Base64 {
    package static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        encode(count: bytes.count, byte: { bytes[$0] }, store: { text.append($0) })
        return String(decoding: text, as: UTF8.self)
    }

    /// Exactly `count` bytes in canonical form (padding present, unused bits zero), or nil.
    package static func decode(_ text: String, count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        return decode(text.utf8, count: count) { bytes[$0] = $1 } ? bytes : nil
    }

    /// One byte at a time, so that a secret passes through no buffer of ours.
    static func encode(count: Int, byte: (Int) -> UInt8, store: (UInt8) -> Void) {
        for index in stride(from: 0, to: count, by: 3) {
            let remaining = count - index
            let group =
                UInt32(byte(index)) << 16
                | (remaining > 1 ? UInt32(byte(index + 1)) << 8 : 0)
                | (remaining > 2 ? UInt32(byte(index + 2)) : 0)
            store(character(group >> 18 & 63))
            store(character(group >> 12 & 63))
            store(remaining > 1 ? character(group >> 6 & 63) : UInt8(ascii: "="))
            store(remaining > 2 ? character(group & 63) : UInt8(ascii: "="))
        }
    }

    /// Hands over each byte with its place. What was stored counts only when the answer is true.
    static func decode(_ text: some Collection<UInt8>, count: Int, store: (Int, UInt8) -> Void) -> Bool {
        let symbols = (count + 2) / 3 * 4
        let padding = (3 - count % 3) % 3
        guard text.count == symbols else { return false }
        var accumulator: UInt32 = 0
        var invalid: Int32 = 0
        var surplus: UInt8 = 0
        for (index, symbol) in text.enumerated() {
            let isPadding = index >= symbols - padding
            guard !isPadding || symbol == UInt8(ascii: "=") else { return false }
            let value = isPadding ? 0 : Self.value(symbol)
            invalid |= value
            accumulator = accumulator << 6 | UInt32(bitPattern: value) & 63
            guard index % 4 == 3 else { continue }
            for offset in 0..<3 {
                let byte = UInt8(truncatingIfNeeded: accumulator >> UInt32(16 - 8 * offset))
                let place = index / 4 * 3 + offset
                if place < count { store(place, byte) } else { surplus |= byte }
            }
            accumulator = 0
        }
        return invalid >= 0 && surplus == 0
    }

    /// Adds, for each range that `value` is past, the distance to the next range of ASCII.
    private static func character(_ value: UInt32) -> UInt8 {
        let v = Int32(bitPattern: value)
        var result = v + 65
        result += (25 - v) >> 8 & 6
        result -= (51 - v) >> 8 & 75
        result -= (61 - v) >> 8 & 15
        result += (62 - v) >> 8 & 3
        return UInt8(truncatingIfNeeded: result)
    }

    /// -1 for a character outside the alphabet.
    private static func value(_ symbol: UInt8) -> Int32 {
        let c = Int32(symbol)
        func inside(_ low: Int32, _ high: Int32, _ offset: Int32) -> Int32 {
            ((low - 1 - c) & (c - high - 1)) >> 8 & (c + offset)
        }
        return -1 + inside(65, 90, -64) + inside(97, 122, -70) + inside(48, 57, 5) + inside(43, 43, 20)
            + inside(47, 47, 17)
    }
}
