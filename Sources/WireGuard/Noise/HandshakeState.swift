/// The pattern IKpsk2 of the Noise Protocol Framework (revision 34, sections 7.5 and 9), for both ends:
///
///     <- s                       init: the responder's static key is known
///     1. -> e, es, s, ss         writeInitiation, readInitiation
///     2. <- e, ee, se, psk       writeResponse, readResponse
///     3. split                   keys of both directions
///
/// A value: each step that throws leaves it half-done, so a caller that wants to go on keeps a copy from
/// before.
package struct HandshakeState: Sendable {
    private var symmetric: SymmetricState

    /// What is common to all WireGuard handshakes with a cipher, hashed once.
    private static let chacha = start(
        protocolName: Protocol.construction, cipher: .chacha20Poly1305,
        prologue: Array(Protocol.identifier.utf8))
    private static let aes = start(
        protocolName: Protocol.aesConstruction, cipher: .aes256GCM, prologue: Array(Protocol.identifier.utf8))

    /// A WireGuard handshake towards `responder` (section 5.4.2).
    package init(responder: PublicKey, cipher: Cipher) {
        let start =
            switch cipher {
            case .chacha20Poly1305: Self.chacha
            case .aes256GCM: Self.aes
            }
        self.init(start, responder: responder)
    }

    /// Under any other name and prologue: the vectors of the Noise project.
    package init(protocolName: String, cipher: Cipher, prologue: [UInt8], responder: PublicKey) {
        self.init(
            Self.start(protocolName: protocolName, cipher: cipher, prologue: prologue), responder: responder)
    }

    private init(_ start: SymmetricState, responder: PublicKey) {
        symmetric = start
        symmetric.mixHash(responder.bytes)
    }

    private static func start(protocolName: String, cipher: Cipher, prologue: [UInt8]) -> SymmetricState {
        var state = SymmetricState(protocolName: protocolName, cipher: cipher)
        state.mixHash(prologue)
        return state
    }

    package var cipher: Cipher { symmetric.cipher }

    /// The hash of all that was said: both ends agree on it, and on nothing less.
    package var hash: [UInt8] { symmetric.hash }

    package mutating func writeInitiation(
        ephemeral: PrivateKey, responder: PublicKey, static ownStatic: PublicKey, staticStatic: SecretBytes,
        payload: [UInt8]
    ) throws(DropReason) -> (encryptedStatic: [UInt8], encryptedPayload: [UInt8]) {
        mixEphemeral(ephemeral.publicKey)
        symmetric.mixKey(try ephemeral.sharedSecret(with: responder))
        let encryptedStatic = symmetric.encryptAndHash(ownStatic.bytes)
        symmetric.mixKey(staticStatic)
        return (encryptedStatic, symmetric.encryptAndHash(payload))
    }

    /// `ephemeralStatic` is the shared secret of the initiator's ephemeral key and our static one;
    /// `staticStatic` gives that with a static key that is known, nil for any other.
    package mutating func readInitiation(
        ephemeral: PublicKey, ephemeralStatic: SecretBytes, encryptedStatic: [UInt8],
        encryptedPayload: [UInt8], staticStatic: (PublicKey) -> SecretBytes?
    ) throws(DropReason) -> (initiator: PublicKey, payload: [UInt8]) {
        mixEphemeral(ephemeral)
        symmetric.mixKey(ephemeralStatic)
        guard let initiator = PublicKey(try symmetric.decryptAndHash(encryptedStatic)) else {
            throw .handshakeDecryptionFailed
        }
        guard let secret = staticStatic(initiator) else { throw .peerUnknown }
        symmetric.mixKey(secret)
        return (initiator, try symmetric.decryptAndHash(encryptedPayload))
    }

    package mutating func writeResponse(
        ephemeral: PrivateKey, initiatorEphemeral: PublicKey, initiator: PublicKey,
        presharedKey: PresharedKey,
        payload: [UInt8]
    ) throws(DropReason) -> [UInt8] {
        mixEphemeral(ephemeral.publicKey)
        symmetric.mixKey(try ephemeral.sharedSecret(with: initiatorEphemeral))
        symmetric.mixKey(try ephemeral.sharedSecret(with: initiator))
        symmetric.mixKeyAndHash(presharedKey.secret)
        return symmetric.encryptAndHash(payload)
    }

    package mutating func readResponse(
        ephemeral: PublicKey, encryptedPayload: [UInt8], ownEphemeral: PrivateKey,
        static ownStatic: PrivateKey,
        presharedKey: PresharedKey
    ) throws(DropReason) -> [UInt8] {
        mixEphemeral(ephemeral)
        symmetric.mixKey(try ownEphemeral.sharedSecret(with: ephemeral))
        symmetric.mixKey(try ownStatic.sharedSecret(with: ephemeral))
        symmetric.mixKeyAndHash(presharedKey.secret)
        return try symmetric.decryptAndHash(encryptedPayload)
    }

    /// The initiator sends under the first key and receives under the second.
    package func split() -> (TransportKey, TransportKey) { symmetric.split() }

    private mutating func mixEphemeral(_ key: PublicKey) {
        symmetric.mixHash(key.bytes)
        symmetric.mixKey(publicKey: key)
    }
}
