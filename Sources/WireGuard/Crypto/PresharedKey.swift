/// The symmetric key that two peers may share beside their key pairs; 32 zero bytes when they do not.
///
/// Concurrency: immutable.
package final class PresharedKey: Sendable {
    package static let none = PresharedKey(SecretBytes(repeatElement(0, count: PublicKey.count)))

    /// Read by the handshake alone.
    let secret: SecretBytes

    package init(_ secret: SecretBytes) {
        precondition(secret.count == PublicKey.count)
        self.secret = secret
    }

    package convenience init?(base64 text: String) {
        guard let secret = SecretBytes(base64: text.utf8) else { return nil }
        self.init(secret)
    }

    package convenience init?(hex text: String) {
        guard let secret = SecretBytes(hex: text.utf8) else { return nil }
        self.init(secret)
    }

    package static func generate(from entropy: inout some Entropy) -> PresharedKey {
        PresharedKey(.random(PublicKey.count, from: &entropy))
    }

    package var isNone: Bool { secret.isZero }

    /// In constant time: whether a reload changes it.
    package func isEqual(to other: PresharedKey) -> Bool { secret.isEqual(to: other.secret) }

    /// Tells whether it is the same as before to whoever does not keep it: nobody gets the key from it without `salt`, which
    /// is a secret of one run.
    package func fingerprint(salt: SecretBytes) -> [UInt8] {
        isNone ? [] : Blake2s.fingerprint(of: secret, salt: salt)
    }

    package func exportBase64() -> String { secret.exportBase64() }
    /// `bytes` has room for 64 more, and is wiped by whoever owns it.
    package func exportHex(to bytes: inout [UInt8]) { secret.exportHex(to: &bytes) }
}
