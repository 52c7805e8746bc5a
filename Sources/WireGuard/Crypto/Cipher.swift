internal import CSodium

/// What seals the fields of a handshake and the packets of a session. Both ends of a tunnel are told; nothing
/// is negotiated, so nothing can be downgraded.
package enum Cipher: String, Hashable, Sendable, CaseIterable {
    /// WireGuard's own (RFC 8439): every far end speaks it.
    case chacha20Poly1305 = "chacha20-poly1305"
    /// Between two vgwd (NIST SP 800-38D), where the processor has the instructions for it.
    case aes256GCM = "aes-256-gcm"

    /// False without hardware AES: libsodium has no other, since in software it would leak its key by timing.
    package var isAvailable: Bool {
        switch self {
        case .chacha20Poly1305: true
        case .aes256GCM: sodiumIsReady && crypto_aead_aes256gcm_is_available() == 1
        }
    }

    /// Those that this machine can compute.
    package static let available = allCases.filter(\.isAvailable)
}

/// Over arrays, for the three sealed fields of a handshake. Packets go through ``TransportKey``.
extension Cipher {
    package static let tagSize = 16
    package static let nonceSize = 12

    /// `key` has 32 bytes, `nonce` 12. The cipher must be available.
    package func seal(
        _ plaintext: [UInt8], key: SecretBytes, nonce: [UInt8], associatedData: [UInt8]
    ) -> [UInt8] {
        precondition(key.count == 32 && nonce.count == Self.nonceSize && isAvailable)
        let encrypt =
            switch self {
            case .chacha20Poly1305: unsafe crypto_aead_chacha20poly1305_ietf_encrypt
            case .aes256GCM: unsafe crypto_aead_aes256gcm_encrypt
            }
        return unsafe [UInt8](unsafeUninitializedCapacity: plaintext.count + Self.tagSize) { buffer, count in
            guard let output = buffer.baseAddress else { return }
            _ = unsafe encrypt(
                output, nil, plaintext, UInt64(plaintext.count),
                associatedData, UInt64(associatedData.count), nil, nonce,
                key.pointer.assumingMemoryBound(to: UInt8.self))
            count = plaintext.count + Self.tagSize
        }
    }

    /// Nil unless every bit of text and associated data is authentic.
    package func open(
        _ ciphertext: [UInt8], key: SecretBytes, nonce: [UInt8], associatedData: [UInt8]
    ) -> [UInt8]? {
        guard ciphertext.count >= Self.tagSize, key.count == 32, nonce.count == Self.nonceSize, isAvailable
        else { return nil }
        let decrypt =
            switch self {
            case .chacha20Poly1305: unsafe crypto_aead_chacha20poly1305_ietf_decrypt
            case .aes256GCM: unsafe crypto_aead_aes256gcm_decrypt
            }
        var isAuthentic = false
        let plaintext = unsafe [UInt8](unsafeUninitializedCapacity: ciphertext.count - Self.tagSize) {
            output, count in
            isAuthentic =
                unsafe decrypt(
                    output.baseAddress, nil, nil, ciphertext, UInt64(ciphertext.count),
                    associatedData, UInt64(associatedData.count), nonce,
                    key.pointer.assumingMemoryBound(to: UInt8.self)) == 0
            count = isAuthentic ? ciphertext.count - Self.tagSize : 0
        }
        return isAuthentic ? plaintext : nil
    }
}
