/// Keys as text. Each byte goes from the text into locked memory or the other way, through no buffer of ours;
/// the text itself is its owner's to keep short-lived.
extension SecretBytes {
    /// 32 bytes in canonical base64.
    package convenience init?(base64 text: some Collection<UInt8>) {
        var isValid = false
        unsafe self.init(count: PublicKey.count) { storage in
            isValid = Base64.decode(text, count: PublicKey.count) { place, byte in
                unsafe storage.storeBytes(of: byte, toByteOffset: place, as: UInt8.self)
            }
        }
        guard isValid else { return nil }
    }

    /// The key that stands in these bytes in base64, as a file holds it: with white space, or zeros, around.
    package var decodedBase64: SecretBytes? {
        let text = unsafe UnsafeRawBufferPointer(start: pointer, count: count)
        let isBlank = { (byte: UInt8) in byte <= 0x20 }
        let start = unsafe text.firstIndex { !isBlank($0) } ?? count
        let end = unsafe text.lastIndex { !isBlank($0) }.map { $0 + 1 } ?? start
        return unsafe SecretBytes(base64: text[start..<end])
    }

    /// 32 bytes in hexadecimal.
    convenience init?(hex text: String) {
        var isValid = false
        unsafe self.init(count: PublicKey.count) { storage in
            isValid = Hex.decode(text, count: PublicKey.count) { place, byte in
                unsafe storage.storeBytes(of: byte, toByteOffset: place, as: UInt8.self)
            }
        }
        guard isValid else { return nil }
    }

    func exportBase64() -> String {
        unsafe String(unsafeUninitializedCapacity: (count + 2) / 3 * 4) { output in
            var length = 0
            Base64.encode(
                count: count, byte: { unsafe pointer.load(fromByteOffset: $0, as: UInt8.self) },
                store: { character in
                    unsafe output[length] = character
                    length += 1
                })
            return length
        }
    }

    /// Appends the digits to bytes that their owner wipes, with room for them: an array that grows leaves
    /// what it held behind.
    func exportHex(to bytes: inout [UInt8]) {
        precondition(bytes.capacity - bytes.count >= 2 * count)
        for place in 0..<count {
            Hex.encode(unsafe pointer.load(fromByteOffset: place, as: UInt8.self)) { bytes.append($0) }
        }
    }

    /// `count` bytes straight from `entropy` into locked memory.
    package static func random(_ count: Int, from entropy: inout some Entropy) -> SecretBytes {
        unsafe SecretBytes(count: count) { storage in
            unsafe entropy.fill(UnsafeMutableRawBufferPointer(start: storage, count: count))
        }
    }
}
