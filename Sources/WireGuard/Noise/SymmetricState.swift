/// The SymmetricState of the Noise Protocol Framework (revision 34, section 5.2): a chaining key that every
/// secret is mixed into, and a hash of all that was said.
///
/// A value: a handshake tried with a forged message is thrown away and the state before it stays.
package struct SymmetricState: Sendable {
    package let cipher: Cipher
    private var chainingKey: SecretBytes
    /// Nil until a secret was mixed in, and after a public value was. Used once: the nonce is always zero.
    private var key: SecretBytes?
    package private(set) var hash: [UInt8]

    /// `cipher` is the one that the name says.
    package init(protocolName: String, cipher: Cipher) {
        self.cipher = cipher
        let name = Array(protocolName.utf8)
        hash =
            name.count <= Blake2s.digestSize
            ? name + Array(repeating: 0, count: Blake2s.digestSize - name.count) : Blake2s.hash(name)
        chainingKey = SecretBytes(hash)
    }

    package mutating func mixHash(_ data: [UInt8]) { hash = Blake2s.hash(hash, data) }

    /// Mixes in the result of a Diffie-Hellman.
    package mutating func mixKey(_ secret: SecretBytes) {
        (chainingKey, key) = Blake2s.kdf2(chainingKey: chainingKey, input: secret)
    }

    /// Mixes in an ephemeral public key, as patterns with a pre-shared key do (section 9.2).
    package mutating func mixKey(publicKey: PublicKey) {
        chainingKey = Blake2s.kdf1(chainingKey: chainingKey, publicInput: publicKey.bytes)
        key = nil
    }

    /// Mixes in a pre-shared key.
    package mutating func mixKeyAndHash(_ secret: SecretBytes) {
        let (next, temporary, key) = Blake2s.kdf3(chainingKey: chainingKey, input: secret)
        chainingKey = next
        hash = Blake2s.hash(hash, temporary)
        self.key = key
    }

    /// Seals `plaintext` with all that was said before it as associated data. A secret has been mixed in
    /// before.
    package mutating func encryptAndHash(_ plaintext: [UInt8]) -> [UInt8] {
        guard let key else { preconditionFailure("no pattern of ours encrypts before its first secret") }
        let ciphertext = cipher.seal(plaintext, key: key, nonce: Self.nonce, associatedData: hash)
        mixHash(ciphertext)
        return ciphertext
    }

    package mutating func decryptAndHash(_ ciphertext: [UInt8]) throws(DropReason) -> [UInt8] {
        guard let key,
            let plaintext = cipher.open(ciphertext, key: key, nonce: Self.nonce, associatedData: hash)
        else { throw .handshakeDecryptionFailed }
        mixHash(ciphertext)
        return plaintext
    }

    /// The keys of both directions; the initiator sends under the first.
    package func split() -> (TransportKey, TransportKey) {
        let (first, second) = Blake2s.kdf2(chainingKey: chainingKey, input: nil)
        return (TransportKey(first, cipher: cipher), TransportKey(second, cipher: cipher))
    }

    private static let nonce = [UInt8](repeating: 0, count: Cipher.nonceSize)
}
