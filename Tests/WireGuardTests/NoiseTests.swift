import Testing
import WireGuard

/// Whole handshakes against public vectors, and what a handshake does with messages that are not what they
/// should be.
@Suite struct NoiseTests {
    // MARK: Vectors

    struct NoiseVectors: Decodable {
        struct Vector: Decodable {
            struct Message: Decodable { let payload, ciphertext: String }
            let protocolName, initPrologue, initStatic, initEphemeral, respStatic, respEphemeral: String
            let handshakeHash: String
            let initPsks: [String]?
            let messages: [Message]
        }
        let vectors: [Vector]

        static func load(_ name: String) throws -> Vector {
            let all = try Vectors.load("noise_ikpsk2", as: NoiseVectors.self).vectors
            return try #require(all.first { $0.protocolName == name })
        }
    }

    @Test(
        "IKpsk2 agrees with the cacophony vector, both ends, to the last transport message",
        arguments: [(Cipher.chacha20Poly1305, "ChaChaPoly"), (.aes256GCM, "AESGCM")])
    func ikpsk2(_ cipher: Cipher, name: String) throws {
        let vector = try NoiseVectors.load("Noise_IKpsk2_25519_\(name)_BLAKE2s")
        let pskText = try #require(vector.initPsks?.first)
        let psk = try #require(PresharedKey(hex: pskText))
        let initiator = try #require(PrivateKey(hex: vector.initStatic))
        let responder = try #require(PrivateKey(hex: vector.respStatic))
        let initiatorEphemeral = try #require(PrivateKey(hex: vector.initEphemeral))
        let responderEphemeral = try #require(PrivateKey(hex: vector.respEphemeral))
        let payloads = vector.messages.map { [UInt8](hex: $0.payload) }
        let messages = vector.messages.map { [UInt8](hex: $0.ciphertext) }
        let start = HandshakeState(
            protocolName: vector.protocolName, cipher: cipher, prologue: [UInt8](hex: vector.initPrologue),
            responder: responder.publicKey)
        let secret = try initiator.sharedSecret(with: responder.publicKey)

        var ours = start
        let first = try ours.writeInitiation(
            ephemeral: initiatorEphemeral, responder: responder.publicKey, static: initiator.publicKey,
            staticStatic: secret, payload: payloads[0])
        #expect(
            initiatorEphemeral.publicKey.bytes + first.encryptedStatic + first.encryptedPayload == messages[0]
        )

        var theirs = start
        let read = try theirs.readInitiation(
            ephemeral: initiatorEphemeral.publicKey,
            ephemeralStatic: try responder.sharedSecret(with: initiatorEphemeral.publicKey),
            encryptedStatic: Array(messages[0][32..<80]), encryptedPayload: Array(messages[0][80...]),
            staticStatic: { try? responder.sharedSecret(with: $0) })
        #expect(read.initiator == initiator.publicKey && read.payload == payloads[0])

        let second = try theirs.writeResponse(
            ephemeral: responderEphemeral, initiatorEphemeral: initiatorEphemeral.publicKey,
            initiator: read.initiator, presharedKey: psk, payload: payloads[1])
        #expect(responderEphemeral.publicKey.bytes + second == messages[1])
        let answer = try ours.readResponse(
            ephemeral: responderEphemeral.publicKey, encryptedPayload: second,
            ownEphemeral: initiatorEphemeral, static: initiator, presharedKey: psk)
        #expect(answer == payloads[1])

        #expect(ours.hash == [UInt8](hex: vector.handshakeHash))
        #expect(theirs.hash == ours.hash)
        try Self.expectTransport(ours.split(), theirs.split(), payloads, messages)
    }

    /// The same without a pre-shared key, which WireGuard has no pattern for: the state below it, token by
    /// token.
    @Test(
        "the symmetric state agrees with the cacophony vector of IK",
        arguments: [(Cipher.chacha20Poly1305, "ChaChaPoly"), (.aes256GCM, "AESGCM")])
    func ik(_ cipher: Cipher, name: String) throws {
        let vector = try NoiseVectors.load("Noise_IK_25519_\(name)_BLAKE2s")
        let initiator = try #require(PrivateKey(hex: vector.initStatic))
        let responder = try #require(PrivateKey(hex: vector.respStatic))
        let e = try #require(PrivateKey(hex: vector.initEphemeral))
        let re = try #require(PrivateKey(hex: vector.respEphemeral))
        let payloads = vector.messages.map { [UInt8](hex: $0.payload) }
        let messages = vector.messages.map { [UInt8](hex: $0.ciphertext) }

        var state = SymmetricState(protocolName: vector.protocolName, cipher: cipher)
        state.mixHash([UInt8](hex: vector.initPrologue))
        state.mixHash(responder.publicKey.bytes)
        state.mixHash(e.publicKey.bytes)
        state.mixKey(try e.sharedSecret(with: responder.publicKey))
        var first = e.publicKey.bytes + state.encryptAndHash(initiator.publicKey.bytes)
        state.mixKey(try initiator.sharedSecret(with: responder.publicKey))
        first += state.encryptAndHash(payloads[0])
        #expect(first == messages[0])
        state.mixHash(re.publicKey.bytes)
        state.mixKey(try re.sharedSecret(with: e.publicKey))
        state.mixKey(try re.sharedSecret(with: initiator.publicKey))
        #expect(re.publicKey.bytes + state.encryptAndHash(payloads[1]) == messages[1])
        #expect(state.hash == [UInt8](hex: vector.handshakeHash))
        try Self.expectTransport(state.split(), state.split(), payloads, messages)
    }

    /// From the third message on the two ends alternate, the initiator first, each with its own counter.
    private static func expectTransport(
        _ initiator: (TransportKey, TransportKey), _ responder: (TransportKey, TransportKey),
        _ payloads: [[UInt8]], _ messages: [[UInt8]]
    ) throws {
        for index in 2..<messages.count {
            let counter = UInt64(index / 2 - 1)
            let isFromInitiator = index % 2 == 0
            let sender = isFromInitiator ? initiator.0 : responder.1
            let receiver = isFromInitiator ? responder.0 : initiator.1
            #expect(sender.sealed(payloads[index], counter: counter) == messages[index], "\(index)")
            #expect(receiver.opened(messages[index], counter: counter) == payloads[index], "\(index)")
        }
    }

    struct Transcript: Decodable {
        let initiatorStatic, responderStatic, psk, initiatorEphemeral, responderEphemeral, tai64n: String
        let initiation, response, initiatorSendKey, initiatorRecvKey: String
        let cookie, cookieReply, initiationWithMac2: String
        let payloads, dataInitiatorToResponder, dataResponderToInitiator: [String]

        static func load() throws -> [Transcript] {
            struct File: Decodable {
                let count: Int
                let vectors: [Transcript]
            }
            let file = try Vectors.load("wg_transcripts", as: File.self)
            #expect(file.vectors.count == file.count)
            return file.vectors
        }
    }

    @Test(
        "whole handshakes agree with the transcripts of another implementation, byte for byte",
        arguments: 0..<8)
    func transcript(number: Int) throws {
        let vector = try Transcript.load()[number]
        let initiator = try #require(PrivateKey(hex: vector.initiatorStatic))
        let responder = try #require(PrivateKey(hex: vector.responderStatic))
        let psk = try #require(PresharedKey(hex: vector.psk))
        let expectedInitiation = [UInt8](hex: vector.initiation)
        let expectedResponse = [UInt8](hex: vector.response)
        let given = try #require(HandshakeResponse(expectedResponse))

        var script = ScriptedEntropy(script: [UInt8](hex: vector.initiatorEphemeral))
        let secret = try initiator.sharedSecret(with: responder.publicKey)
        let timestamp = try #require(TAI64N(bytes: [UInt8](hex: vector.tai64n)))
        let (unstampedInitiation, handshake) = try InitiatorHandshake.begin(
            static: initiator, peer: responder.publicKey, staticStatic: secret, presharedKey: psk,
            cipher: .chacha20Poly1305, index: given.receiverIndex, timestamp: timestamp, entropy: &script)
        var initiation = unstampedInitiation
        var toResponder = MacGenerator(peer: responder.publicKey)
        toResponder.stamp(&initiation, now: .at(0))
        #expect(initiation.bytes == expectedInitiation)
        #expect(CookieChecker(publicKey: responder.publicKey).verifyMac1(expectedInitiation))

        let arrived = try #require(HandshakeInitiation(expectedInitiation))
        let received = try ReceivedInitiation.open(
            arrived, static: responder,
            sharedSecret: { try? responder.sharedSecret(with: $0) })
        #expect(received.peer == initiator.publicKey)
        #expect(received.timestamp.bytes == [UInt8](hex: vector.tai64n))
        #expect(received.senderIndex == handshake.index)

        script = ScriptedEntropy(script: [UInt8](hex: vector.responderEphemeral))
        let (unstampedResponse, theirKeys) = try received.respond(
            presharedKey: psk, index: given.senderIndex, entropy: &script)
        var response = unstampedResponse
        var toInitiator = MacGenerator(peer: initiator.publicKey)
        toInitiator.stamp(&response, now: .at(0))
        #expect(response.bytes == expectedResponse)
        #expect(CookieChecker(publicKey: initiator.publicKey).verifyMac1(expectedResponse))

        let ourKeys = try handshake.finish(given)
        #expect(ourKeys.role == .initiator && theirKeys.role == .responder)
        #expect(ourKeys.localIndex == given.receiverIndex && ourKeys.remoteIndex == given.senderIndex)
        #expect(theirKeys.localIndex == given.senderIndex && theirKeys.remoteIndex == given.receiverIndex)
        try Self.expectData(vector.dataInitiatorToResponder, from: ourKeys, to: theirKeys, vector.payloads)
        try Self.expectData(vector.dataResponderToInitiator, from: theirKeys, to: ourKeys, vector.payloads)
        #expect(
            ourKeys.send.sealed([], counter: 0)
                == TransportKey(
                    SecretBytes([UInt8](hex: vector.initiatorSendKey)), cipher: .chacha20Poly1305
                ).sealed([], counter: 0))
        #expect(
            ourKeys.receive.sealed([], counter: 0)
                == TransportKey(
                    SecretBytes([UInt8](hex: vector.initiatorRecvKey)), cipher: .chacha20Poly1305
                ).sealed([], counter: 0))

        let cookieReply = try #require(CookieReply([UInt8](hex: vector.cookieReply)))
        try toResponder.receive(cookieReply, now: .at(1))
        toResponder.stamp(&initiation, now: .at(1))
        #expect(initiation.bytes == [UInt8](hex: vector.initiationWithMac2))
    }

    private static func expectData(
        _ messages: [String], from sender: SessionKeys, to receiver: SessionKeys, _ payloads: [String]
    ) throws {
        for (counter, (text, payload)) in zip(messages, payloads).enumerated() {
            let message = [UInt8](hex: text)
            let plain = [UInt8](hex: payload)
            let padded = plain + [UInt8](repeating: 0, count: (16 - plain.count % 16) % 16)
            #expect(MessageType(of: message) == .transport)
            let index = message[4..<8].reversed().reduce(0) { $0 << 8 | UInt32($1) }
            #expect(index == receiver.localIndex && index == sender.remoteIndex)
            #expect(sender.send.sealed(padded, counter: UInt64(counter)) == Array(message[16...]))
            #expect(receiver.receive.opened(Array(message[16...]), counter: UInt64(counter)) == padded)
        }
    }
}
