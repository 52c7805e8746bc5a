internal import CSodium

/// One direction of a session: its cipher under a 32-byte key, with the counter as nonce.
///
/// Concurrency: immutable; any thread may seal or open.
package final class TransportKey: Sendable {
    /// Bytes that sealing adds.
    package static let tagSize = 16

    package let cipher: Cipher
    /// ChaCha20-Poly1305: the key. AES-256-GCM: the key schedule and the powers of the hash key, expanded
    /// once, as that takes as long as sealing half a packet.
    private let secret: SecretBytes

    /// `cipher` must be available.
    package init(_ secret: SecretBytes, cipher: Cipher) {
        precondition(secret.count == 32 && cipher.isAvailable)
        self.cipher = cipher
        switch cipher {
        case .chacha20Poly1305: self.secret = secret
        case .aes256GCM:
            self.secret = unsafe SecretBytes(count: MemoryLayout<crypto_aead_aes256gcm_state>.size) {
                schedule in
                _ = unsafe crypto_aead_aes256gcm_beforenm(
                    schedule.assumingMemoryBound(to: crypto_aead_aes256gcm_state.self),
                    secret.pointer.assumingMemoryBound(to: UInt8.self))
            }
        }
    }

    /// Writes `count + tagSize` bytes to `output`, which may be `plaintext` itself but not overlap it
    /// otherwise. `chacha` is the thread's own.
    @inline(__always)
    package func seal(
        counter: UInt64, plaintext: UnsafeRawPointer, count: Int, into output: UnsafeMutableRawPointer,
        by chacha: inout ChaCha20Poly1305
    ) {
        let nonce = nonce(counter)
        unsafe withUnsafePointer(to: nonce) { nonce in
            let nonce = unsafe UnsafeRawPointer(nonce).assumingMemoryBound(to: UInt8.self)
            switch cipher {
            case .chacha20Poly1305:
                unsafe chacha.seal(
                    plaintext, count: count, into: output, nonce: nonce,
                    key: secret.pointer.assumingMemoryBound(to: UInt8.self))
            case .aes256GCM:
                _ = unsafe crypto_aead_aes256gcm_encrypt_afternm(
                    output.assumingMemoryBound(to: UInt8.self), nil,
                    plaintext.assumingMemoryBound(to: UInt8.self), UInt64(count), nil, 0, nil, nonce,
                    secret.pointer.assumingMemoryBound(to: crypto_aead_aes256gcm_state.self))
            }
        }
    }

    /// Writes `count - tagSize` bytes to `output`, which may be `ciphertext` itself. False, and nothing
    /// useful in `output`, unless every bit is authentic. `count` is at least `tagSize`.
    @inline(__always)
    package func open(
        counter: UInt64, ciphertext: UnsafeRawPointer, count: Int, into output: UnsafeMutableRawPointer,
        by chacha: inout ChaCha20Poly1305
    ) -> Bool {
        guard count >= Self.tagSize else { return false }
        let nonce = nonce(counter)
        return unsafe withUnsafePointer(to: nonce) { nonce in
            let nonce = unsafe UnsafeRawPointer(nonce).assumingMemoryBound(to: UInt8.self)
            return switch cipher {
            case .chacha20Poly1305:
                unsafe chacha.open(
                    ciphertext, count: count &- Self.tagSize, into: output, nonce: nonce,
                    key: secret.pointer.assumingMemoryBound(to: UInt8.self))
            case .aes256GCM:
                unsafe crypto_aead_aes256gcm_decrypt_afternm(
                    output.assumingMemoryBound(to: UInt8.self), nil, nil,
                    ciphertext.assumingMemoryBound(to: UInt8.self), UInt64(count), nil, 0, nonce,
                    secret.pointer.assumingMemoryBound(to: crypto_aead_aes256gcm_state.self)) == 0
            }
        }
    }

    /// Four zero bytes, then the counter: little endian for ChaCha20-Poly1305 (WireGuard, section 5.4.6), big
    /// endian for AES-256-GCM (Noise, section 12.4).
    @inline(__always)
    private func nonce(_ counter: UInt64) -> (UInt32, UInt32, UInt32) {
        let low = UInt32(truncatingIfNeeded: counter)
        let high = UInt32(truncatingIfNeeded: counter >> 32)
        return switch cipher {
        case .chacha20Poly1305: (0, low.littleEndian, high.littleEndian)
        case .aes256GCM: (0, high.bigEndian, low.bigEndian)
        }
    }
}
