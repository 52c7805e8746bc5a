internal import CSodium

/// A Curve25519 private key (RFC 7748), static or ephemeral. It leaves only as text, through the two `export`
/// functions.
///
/// Concurrency: immutable.
package final class PrivateKey: Sendable {
    private let secret: SecretBytes
    package let publicKey: PublicKey

    /// Takes any 32 bytes and keeps the scalar that X25519 makes of them (RFC 7748, section 5).
    package init(clamping bytes: SecretBytes) {
        precondition(bytes.count == PublicKey.count)
        let secret = unsafe SecretBytes(count: PublicKey.count) { scalar in
            unsafe scalar.copyMemory(from: bytes.pointer, byteCount: PublicKey.count)
            unsafe (scalar.assumingMemoryBound(to: UInt8.self))[0] &= 248
            unsafe (scalar.assumingMemoryBound(to: UInt8.self))[31] &= 127
            unsafe (scalar.assumingMemoryBound(to: UInt8.self))[31] |= 64
        }
        var point = [UInt8](repeating: 0, count: PublicKey.count)
        _ = unsafe crypto_scalarmult_curve25519_base(
            &point, secret.pointer.assumingMemoryBound(to: UInt8.self))
        guard let publicKey = PublicKey(point) else { preconditionFailure("a point has 32 bytes") }
        self.secret = secret
        self.publicKey = publicKey
    }

    package convenience init?(base64 text: String) {
        guard let bytes = SecretBytes(base64: text.utf8) else { return nil }
        self.init(clamping: bytes)
    }

    package convenience init?(hex text: String) {
        guard let bytes = SecretBytes(hex: text.utf8) else { return nil }
        self.init(clamping: bytes)
    }

    package static func generate(from entropy: inout some Entropy) -> PrivateKey {
        PrivateKey(clamping: .random(PublicKey.count, from: &entropy))
    }

    /// X25519. Throws `.lowOrderPoint` when the result would be all zero: such a point gives the peer no part
    /// in the key.
    package func sharedSecret(with peer: PublicKey) throws(DropReason) -> SecretBytes {
        let point = peer.bytes
        var status: CInt = -1
        let shared = unsafe SecretBytes(count: PublicKey.count) { output in
            status = unsafe crypto_scalarmult_curve25519(
                output.assumingMemoryBound(to: UInt8.self),
                secret.pointer.assumingMemoryBound(to: UInt8.self), point)
        }
        guard status == 0, !shared.isZero else { throw .lowOrderPoint }
        return shared
    }

    /// For `genkey` and `wg`'s `get`: the caller is about to show it or write it down.
    package func exportBase64() -> String { secret.exportBase64() }
    /// `bytes` has room for 64 more, and is wiped by whoever owns it.
    package func exportHex(to bytes: inout [UInt8]) { secret.exportHex(to: &bytes) }
}
