/// Hexadecimal of 32-byte keys, as the `wg` control socket writes them. Computed, not looked up, for the
/// reason that `Base64` is.
package enum Hex {
    package static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity(2 * bytes.count)
        for byte in bytes { encode(byte) { text.append($0) } }
        return String(decoding: text, as: UTF8.self)
    }

    /// Exactly `2 * count` digits of either case, or nil.
    package static func decode(_ text: String, count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        return decode(text, count: count) { bytes[$0] = $1 } ? bytes : nil
    }

    /// One byte at a time, so that a secret passes through no buffer of ours.
    static func encode(_ byte: UInt8, store: (UInt8) -> Void) {
        store(digit(byte >> 4))
        store(digit(byte & 15))
    }

    /// Hands over each byte with its place. What was stored counts only when the answer is true.
    static func decode(_ text: String, count: Int, store: (Int, UInt8) -> Void) -> Bool {
        guard text.utf8.count == 2 * count else { return false }
        var invalid: Int32 = 0
        var high: Int32 = 0
        for (index, symbol) in text.utf8.enumerated() {
            let value = Self.value(symbol)
            invalid |= value
            if index % 2 == 0 {
                high = value
            } else {
                store(index / 2, UInt8(truncatingIfNeeded: high << 4 | value & 15))
            }
        }
        return invalid >= 0
    }

    private static func digit(_ value: UInt8) -> UInt8 {
        let v = Int32(value)
        return UInt8(truncatingIfNeeded: v + 48 + ((9 - v) >> 8 & 39))
    }

    /// -1 for what is no digit.
    private static func value(_ symbol: UInt8) -> Int32 {
        let c = Int32(symbol)
        func inside(_ low: Int32, _ high: Int32, _ offset: Int32) -> Int32 {
            ((low - 1 - c) & (c - high - 1)) >> 8 & (c + offset)
        }
        return -1 + inside(48, 57, -47) + inside(65, 70, -54) + inside(97, 102, -86)
    }
}
