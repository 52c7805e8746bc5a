/// A handshake of ours that awaits its response (section 5.4.2). Letting go of it wipes its ephemeral key.
package struct InitiatorHandshake: Sendable {
    /// Ours, as the response must name it.
    package let index: UInt32
    /// When the initiation says it was made; the next one must say a later time.
    package let timestamp: TAI64N

    private let state: HandshakeState
    private let ephemeral: PrivateKey
    private let ownStatic: PrivateKey
    private let presharedKey: PresharedKey

    /// Throws `.lowOrderPoint` for a peer whose public key is no key. `staticStatic` is the secret that both
    /// static keys give, computed once a peer. The message has no MACs yet.
    package static func begin(
        static ownStatic: PrivateKey, peer: PublicKey, staticStatic: SecretBytes, presharedKey: PresharedKey,
        cipher: Cipher, index: UInt32, timestamp: TAI64N, entropy: inout some Entropy
    ) throws(DropReason) -> (HandshakeInitiation, InitiatorHandshake) {
        let ephemeral = PrivateKey.generate(from: &entropy)
        var state = HandshakeState(responder: peer, cipher: cipher)
        let (encryptedStatic, encryptedTimestamp) = try state.writeInitiation(
            ephemeral: ephemeral, responder: peer, static: ownStatic.publicKey, staticStatic: staticStatic,
            payload: timestamp.bytes)
        let message = HandshakeInitiation(
            senderIndex: index, ephemeral: ephemeral.publicKey.bytes, encryptedStatic: encryptedStatic,
            encryptedTimestamp: encryptedTimestamp)
        let handshake = InitiatorHandshake(
            index: index, timestamp: timestamp, state: state, ephemeral: ephemeral, ownStatic: ownStatic,
            presharedKey: presharedKey)
        return (message, handshake)
    }

    /// Changes nothing here, so that a forged response does not end the wait for the true one.
    package func finish(_ response: HandshakeResponse) throws(DropReason) -> SessionKeys {
        guard response.receiverIndex == index else { throw .receiverIndexUnknown }
        guard let theirs = PublicKey(response.ephemeral) else { throw .messageLengthWrong }
        var state = state
        let nothing = try state.readResponse(
            ephemeral: theirs, encryptedPayload: response.encryptedNothing, ownEphemeral: ephemeral,
            static: ownStatic, presharedKey: presharedKey)
        guard nothing.isEmpty else { throw .handshakeDecryptionFailed }
        return SessionKeys(state, role: .initiator, localIndex: index, remoteIndex: response.senderIndex)
    }
}
