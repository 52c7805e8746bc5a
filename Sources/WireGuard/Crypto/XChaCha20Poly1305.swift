internal import CSodium

/// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) for cookies: its nonce is long enough to be random. The key
/// is the hash of a public key, so it is no secret.
package enum XChaCha20Poly1305 {
    package static let tagSize = 16
    package static let nonceSize = 24

    /// `key` has 32 bytes, `nonce` 24.
    package static func seal(
        _ plaintext: [UInt8], key: [UInt8], nonce: [UInt8], associatedData: [UInt8]
    ) -> [UInt8] {
        precondition(key.count == 32 && nonce.count == nonceSize)
        return unsafe [UInt8](unsafeUninitializedCapacity: plaintext.count + tagSize) { buffer, count in
            guard let output = buffer.baseAddress else { return }
            _ = unsafe crypto_aead_xchacha20poly1305_ietf_encrypt(
                output, nil, plaintext, UInt64(plaintext.count),
                associatedData, UInt64(associatedData.count), nil, nonce, key)
            count = plaintext.count + tagSize
        }
    }

    /// Nil unless every bit of text and associated data is authentic.
    package static func open(
        _ ciphertext: [UInt8], key: [UInt8], nonce: [UInt8], associatedData: [UInt8]
    ) -> [UInt8]? {
        guard ciphertext.count >= tagSize, key.count == 32, nonce.count == nonceSize else { return nil }
        var isAuthentic = false
        let plaintext = unsafe [UInt8](unsafeUninitializedCapacity: ciphertext.count - tagSize) {
            output, count in
            isAuthentic =
                unsafe crypto_aead_xchacha20poly1305_ietf_decrypt(
                    output.baseAddress, nil, nil, ciphertext, UInt64(ciphertext.count),
                    associatedData, UInt64(associatedData.count), nonce, key) == 0
            count = isAuthentic ? ciphertext.count - tagSize : 0
        }
        return isAuthentic ? plaintext : nil
    }
}
