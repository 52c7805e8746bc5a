internal import CSodium

/// Hexadecimal, as the `wg` control socket writes keys, by libsodium, whose time does not depend on the bits of a key.
package enum Hex {
    package static func encode(_ bytes: [UInt8]) -> String {
        // libsodium writes a zero behind the text.
        let capacity = 2 * bytes.count + 1
        return unsafe String(unsafeUninitializedCapacity: capacity) { output in
            guard let output = UnsafeMutableRawPointer(output.baseAddress) else { return 0 }
            _ = unsafe sodium_bin2hex(
                output.assumingMemoryBound(to: CChar.self), capacity, bytes, bytes.count)
            return capacity - 1
        }
    }

    /// Exactly `2 * count` digits of either case, or nil.
    package static func decode(_ text: String, count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        return unsafe bytes.withUnsafeMutableBytes { unsafe decode(text.utf8, into: $0) } ? bytes : nil
    }

    /// Fills `output`. What was stored counts only when it returns true.
    static func decode(_ text: some Collection<UInt8>, into output: UnsafeMutableRawBufferPointer) -> Bool {
        guard let base = output.baseAddress else { return text.isEmpty }
        let isDecoded = text.withContiguousStorageIfAvailable { text in
            var length = 0
            return unsafe text.withMemoryRebound(to: CChar.self) { text in
                unsafe sodium_hex2bin(
                    base.assumingMemoryBound(to: UInt8.self), output.count, text.baseAddress,
                    text.count, nil, &length, nil) == 0 && length == output.count
            }
        }
        return isDecoded ?? false
    }
}
