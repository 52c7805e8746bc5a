/// An initiation that has been decrypted: its sender owns the static key it names, or replays someone who
/// does, which the timestamp tells (section 5.4.2).
package struct ReceivedInitiation: Sendable {
    package let peer: PublicKey
    /// The caller drops what is not later than the greatest of this peer.
    package let timestamp: TAI64N
    /// The peer's, for us to answer to.
    package let senderIndex: UInt32
    /// What the peer was told to use. The caller drops what it was not told itself.
    package var cipher: Cipher { state.cipher }

    private let state: HandshakeState
    private let ephemeral: PublicKey

    /// `sharedSecret` gives the static-static secret of a peer that is known, nil for any other
    /// (`.peerUnknown`). The MACs have been checked before.
    ///
    /// Who sent it, and so which cipher it should have, is known only once it is decrypted: each that this
    /// machine has is tried, over one Diffie-Hellman. So two ends that were told different ones can say so.
    package static func open(
        _ message: HandshakeInitiation, static ownStatic: PrivateKey,
        sharedSecret: (PublicKey) -> SecretBytes?
    ) throws(DropReason) -> ReceivedInitiation {
        guard let ephemeral = PublicKey(message.ephemeral) else { throw .messageLengthWrong }
        let ephemeralStatic = try ownStatic.sharedSecret(with: ephemeral)
        for cipher in Cipher.available {
            var state = HandshakeState(responder: ownStatic.publicKey, cipher: cipher)
            do throws(DropReason) {
                let (peer, payload) = try state.readInitiation(
                    ephemeral: ephemeral, ephemeralStatic: ephemeralStatic,
                    encryptedStatic: message.encryptedStatic, encryptedPayload: message.encryptedTimestamp,
                    staticStatic: sharedSecret)
                guard let timestamp = TAI64N(bytes: payload) else { throw .handshakeDecryptionFailed }
                return ReceivedInitiation(
                    peer: peer, timestamp: timestamp, senderIndex: message.senderIndex, state: state,
                    ephemeral: ephemeral)
            } catch {
                guard error == .handshakeDecryptionFailed else { throw error }
            }
        }
        throw .handshakeDecryptionFailed
    }

    /// `index` is ours for the new session. The message has no MACs yet. Throws `.lowOrderPoint` when the
    /// initiator's ephemeral key, or the peer's static one, is no key.
    package func respond(
        presharedKey: PresharedKey, index: UInt32, entropy: inout some Entropy
    ) throws(DropReason) -> (HandshakeResponse, SessionKeys) {
        let ownEphemeral = PrivateKey.generate(from: &entropy)
        var state = state
        let encryptedNothing = try state.writeResponse(
            ephemeral: ownEphemeral, initiatorEphemeral: ephemeral, initiator: peer,
            presharedKey: presharedKey,
            payload: [])
        let message = HandshakeResponse(
            senderIndex: index, receiverIndex: senderIndex, ephemeral: ownEphemeral.publicKey.bytes,
            encryptedNothing: encryptedNothing)
        let keys = SessionKeys(state, role: .responder, localIndex: index, remoteIndex: senderIndex)
        return (message, keys)
    }
}
