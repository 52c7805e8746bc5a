internal import CSodium

/// Keys as text. Each goes from the text straight into locked memory, and the other way through no buffer of ours that
/// is not locked; the text itself is its owner's to keep short-lived.
extension SecretBytes {
    /// 32 bytes in canonical base64.
    package convenience init?(base64 text: some Collection<UInt8>) {
        unsafe self.init { unsafe Base64.decode(text, into: $0) }
    }

    /// 32 bytes in hexadecimal.
    package convenience init?(hex text: some Collection<UInt8>) {
        unsafe self.init { unsafe Hex.decode(text, into: $0) }
    }

    /// Nil unless `decode` has filled a key's bytes.
    private convenience init?(decode: (UnsafeMutableRawBufferPointer) -> Bool) {
        var isValid = false
        unsafe self.init(count: PublicKey.count) { storage in
            isValid = unsafe decode(UnsafeMutableRawBufferPointer(start: storage, count: PublicKey.count))
        }
        guard isValid else { return nil }
    }

    private var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: pointer, count: count) }

    /// The key that stands in these bytes in base64, as a file holds it: with white space, or zeros, around.
    package var decodedBase64: SecretBytes? {
        let text = unsafe UnsafeBufferPointer(
            start: pointer.assumingMemoryBound(to: UInt8.self), count: count)
        let isBlank = { (byte: UInt8) in byte <= 0x20 }
        let start = unsafe text.firstIndex { !isBlank($0) } ?? count
        let end = unsafe text.lastIndex { !isBlank($0) }.map { $0 + 1 } ?? start
        return unsafe SecretBytes(base64: UnsafeBufferPointer(rebasing: text[start..<end]))
    }

    func exportBase64() -> String { unsafe Base64.encode(bytes) }

    /// Appends the digits to bytes that their owner wipes, with room for them: an array that grows leaves
    /// what it held behind.
    func exportHex(to text: inout [UInt8]) {
        precondition(text.capacity - text.count >= 2 * count)
        // libsodium writes a zero behind the digits.
        let digits = unsafe SecretBytes(count: 2 * count + 1) { output in
            _ = unsafe sodium_bin2hex(
                output.assumingMemoryBound(to: CChar.self), 2 * count + 1,
                pointer.assumingMemoryBound(to: UInt8.self),
                count)
        }
        unsafe text.append(contentsOf: digits.bytes.dropLast())
    }

    /// `count` bytes straight from `entropy` into locked memory.
    package static func random(_ count: Int, from entropy: inout some Entropy) -> SecretBytes {
        unsafe SecretBytes(count: count) { storage in
            unsafe entropy.fill(UnsafeMutableRawBufferPointer(start: storage, count: count))
        }
    }
}
