internal import CSodium

/// Base64 (RFC 4648, section 4) by libsodium, whose time does not depend on the bits of a key.
package enum Base64 {
    package static func encode(_ bytes: [UInt8]) -> String {
        unsafe bytes.withUnsafeBytes { unsafe encode($0) }
    }

    /// Exactly `count` bytes in canonical form (padding present, unused bits zero), or nil.
    package static func decode(_ text: String, count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        return unsafe bytes.withUnsafeMutableBytes { unsafe decode(text.utf8, into: $0) } ? bytes : nil
    }

    static func encode(_ bytes: UnsafeRawBufferPointer) -> String {
        // libsodium writes a zero behind the text.
        let capacity = (bytes.count + 2) / 3 * 4 + 1
        return unsafe String(unsafeUninitializedCapacity: capacity) { output in
            guard let output = UnsafeMutableRawPointer(output.baseAddress) else { return 0 }
            _ = unsafe sodium_bin2base64(
                output.assumingMemoryBound(to: CChar.self), capacity,
                bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count,
                sodium_base64_VARIANT_ORIGINAL)
            return capacity - 1
        }
    }

    /// Fills `output`. What was stored counts only when it returns true.
    static func decode(_ text: some Collection<UInt8>, into output: UnsafeMutableRawBufferPointer) -> Bool {
        // libsodium 1.0.18 takes some bytes that are no ASCII for digits.
        guard text.reduce(0, |) < 0x80 else { return false }
        guard let base = output.baseAddress else { return text.isEmpty }
        let isDecoded = text.withContiguousStorageIfAvailable { text in
            var length = 0
            return unsafe text.withMemoryRebound(to: CChar.self) { text in
                unsafe sodium_base642bin(
                    base.assumingMemoryBound(to: UInt8.self), output.count, text.baseAddress,
                    text.count, nil, &length, nil, sodium_base64_VARIANT_ORIGINAL) == 0
                    && length == output.count
            }
        }
        return isDecoded ?? false
    }
}
