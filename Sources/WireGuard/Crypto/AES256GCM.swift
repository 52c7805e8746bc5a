internal import CSodium

/// AES-256-GCM (NIST SP 800-38D) over arrays, for the three sealed fields of a handshake. Packets go through
/// `TransportKey`. Call only where `Cipher.aes256GCM.isAvailable`.
package enum AES256GCM {
    package static let tagSize = 16
    package static let nonceSize = 12

    /// `key` has 32 bytes, `nonce` 12.
    package static func seal(
        _ plaintext: [UInt8], key: SecretBytes, nonce: [UInt8], associatedData: [UInt8]
    ) -> [UInt8] {
        precondition(key.count == 32 && nonce.count == nonceSize)
        return unsafe [UInt8](unsafeUninitializedCapacity: plaintext.count + tagSize) { buffer, count in
            guard let output = buffer.baseAddress else { return }
            _ = unsafe crypto_aead_aes256gcm_encrypt(
                output, nil, plaintext, UInt64(plaintext.count),
                associatedData, UInt64(associatedData.count), nil, nonce,
                key.pointer.assumingMemoryBound(to: UInt8.self))
            count = plaintext.count + tagSize
        }
    }

    /// Nil unless every bit of text and associated data is authentic.
    package static func open(
        _ ciphertext: [UInt8], key: SecretBytes, nonce: [UInt8], associatedData: [UInt8]
    ) -> [UInt8]? {
        guard ciphertext.count >= tagSize, key.count == 32, nonce.count == nonceSize else { return nil }
        var isAuthentic = false
        let plaintext = unsafe [UInt8](unsafeUninitializedCapacity: ciphertext.count - tagSize) {
            output, count in
            isAuthentic =
                unsafe crypto_aead_aes256gcm_decrypt(
                    output.baseAddress, nil, nil, ciphertext, UInt64(ciphertext.count),
                    associatedData, UInt64(associatedData.count), nonce,
                    key.pointer.assumingMemoryBound(to: UInt8.self)) == 0
            count = isAuthentic ? ciphertext.count - tagSize : 0
        }
        return isAuthentic ? plaintext : nil
    }
}
