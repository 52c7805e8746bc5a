internal import CSodium

/// One direction of a session: ChaCha20-Poly1305 (RFC 8439) under a 32-byte key, with the counter as nonce.
///
/// Concurrency: immutable; any thread may seal or open.
package final class TransportKey: Sendable {
    /// Bytes that sealing adds.
    package static let tagSize = 16

    private let secret: SecretBytes

    package init(_ secret: SecretBytes) {
        precondition(secret.count == 32)
        self.secret = secret
    }

    /// Writes `count + tagSize` bytes to `output`, which may be `plaintext` itself but not overlap it
    /// otherwise.
    package func seal(
        counter: UInt64, plaintext: UnsafeRawPointer, count: Int, into output: UnsafeMutableRawPointer
    ) {
        let nonce = Self.nonce(counter)
        unsafe withUnsafePointer(to: nonce) { nonce in
            _ = unsafe crypto_aead_chacha20poly1305_ietf_encrypt(
                output.assumingMemoryBound(to: UInt8.self), nil,
                plaintext.assumingMemoryBound(to: UInt8.self), UInt64(count), nil, 0, nil,
                UnsafeRawPointer(nonce).assumingMemoryBound(to: UInt8.self),
                secret.pointer.assumingMemoryBound(to: UInt8.self))
        }
    }

    /// Writes `count - tagSize` bytes to `output`, which may be `ciphertext` itself. False, and nothing
    /// useful in `output`, unless every bit is authentic. `count` is at least `tagSize`.
    package func open(
        counter: UInt64, ciphertext: UnsafeRawPointer, count: Int, into output: UnsafeMutableRawPointer
    ) -> Bool {
        guard count >= Self.tagSize else { return false }
        let nonce = Self.nonce(counter)
        return unsafe withUnsafePointer(to: nonce) { nonce in
            unsafe crypto_aead_chacha20poly1305_ietf_decrypt(
                output.assumingMemoryBound(to: UInt8.self), nil, nil,
                ciphertext.assumingMemoryBound(to: UInt8.self), UInt64(count), nil, 0,
                UnsafeRawPointer(nonce).assumingMemoryBound(to: UInt8.self),
                secret.pointer.assumingMemoryBound(to: UInt8.self)) == 0
        }
    }

    /// Four zero bytes, then the counter, little endian (WireGuard, section 5.4.6).
    @inline(__always)
    private static func nonce(_ counter: UInt64) -> (UInt32, UInt32, UInt32) {
        (
            0, UInt32(truncatingIfNeeded: counter).littleEndian,
            UInt32(truncatingIfNeeded: counter >> 32).littleEndian
        )
    }
}
