import TestSupport
import Testing
import WireGuard

/// What a handshake does with messages that are not what they should be.
@Suite struct HandshakeTests {
    /// Two ends that know each other, and what the first has sent.
    struct Pair {
        let initiator, responder: PrivateKey
        let psk: PresharedKey
        let initiation: HandshakeInitiation
        let handshake: InitiatorHandshake
        var entropy: SplitMix

        init(seed: UInt64 = 1, psk: PresharedKey? = nil, cipher: Cipher = .chacha20Poly1305) throws {
            var entropy = SplitMix(seed: seed)
            initiator = PrivateKey.generate(from: &entropy)
            responder = PrivateKey.generate(from: &entropy)
            let generated = PresharedKey.generate(from: &entropy)
            self.psk = psk ?? generated
            let secret = try initiator.sharedSecret(with: responder.publicKey)
            let begun = try InitiatorHandshake.begin(
                static: initiator, peer: responder.publicKey, staticStatic: secret, presharedKey: self.psk,
                cipher: cipher, index: 7, timestamp: TAI64N(unixNanoseconds: 1_700_000_000_000_000_000),
                entropy: &entropy)
            var message = begun.0
            var generator = MacGenerator(peer: responder.publicKey)
            generator.stamp(&message, now: .at(0))
            initiation = message
            handshake = begun.1
            self.entropy = entropy
        }

        func open(_ message: HandshakeInitiation) throws(DropReason) -> ReceivedInitiation {
            try ReceivedInitiation.open(
                message, static: responder, sharedSecret: { try? responder.sharedSecret(with: $0) })
        }

        mutating func respond(psk other: PresharedKey? = nil) throws -> (HandshakeResponse, SessionKeys) {
            try open(initiation).respond(presharedKey: other ?? psk, index: 8, entropy: &entropy)
        }
    }

    private func agree(_ a: SessionKeys, _ b: SessionKeys) -> Bool {
        b.receive.opened(a.send.sealed([1, 2, 3], counter: 0), counter: 0) == [1, 2, 3]
            && a.receive.opened(b.send.sealed([4, 5, 6], counter: 9), counter: 9) == [4, 5, 6]
            && a.receive.opened(a.send.sealed([1, 2, 3], counter: 0), counter: 0) == nil
    }

    @Test(
        "two ends agree on keys, with and without a pre-shared key", arguments: [true, false],
        Cipher.allCases)
    func agreement(hasPresharedKey: Bool, cipher: Cipher) throws {
        try #require(cipher.isAvailable, "this machine cannot compute \(cipher.rawValue)")
        for seed in 1...20 {
            var pair = try Pair(
                seed: UInt64(seed), psk: hasPresharedKey ? nil : PresharedKey.none, cipher: cipher)
            #expect(try pair.open(pair.initiation).cipher == cipher)
            let (response, theirs) = try pair.respond()
            let ours = try pair.handshake.finish(response)
            #expect(agree(ours, theirs))
        }
    }

    @Test("an initiation with any bit flipped has a wrong mac1, and is not opened even with a right one")
    func flippedInitiation() throws {
        let pair = try Pair()
        let checker = CookieChecker(publicKey: pair.responder.publicKey)
        let bytes = pair.initiation.bytes
        #expect(checker.verifyMac1(bytes))
        for bit in 0..<bytes.count * 8 {
            let flipped = bytes.flipping(bit: bit)
            // mac2 is all that mac1 does not cover.
            #expect(checker.verifyMac1(flipped) == (bit >= 132 * 8), "bit \(bit)")
            guard let message = HandshakeInitiation(flipped) else {
                #expect(bit < 32)
                continue
            }
            // Someone who knows our public key can make a right mac1. The index is covered by nothing else.
            if (64..<116 * 8).contains(bit) {
                #expect(throws: DropReason.handshakeDecryptionFailed, "bit \(bit)") { try pair.open(message) }
            } else {
                let received = try pair.open(message)
                #expect(received.peer == pair.initiator.publicKey)
            }
        }
    }

    @Test("a response with any bit flipped is refused, and the true one is taken after all of them")
    func flippedResponse() throws {
        var pair = try Pair()
        let (unstamped, theirs) = try pair.respond()
        var response = unstamped
        var generator = MacGenerator(peer: pair.initiator.publicKey)
        generator.stamp(&response, now: .at(0))
        let checker = CookieChecker(publicKey: pair.initiator.publicKey)
        let bytes = response.bytes
        #expect(checker.verifyMac1(bytes))
        for bit in 0..<bytes.count * 8 {
            let flipped = bytes.flipping(bit: bit)
            #expect(checker.verifyMac1(flipped) == (bit >= 76 * 8), "bit \(bit)")
            guard let message = HandshakeResponse(flipped) else {
                #expect(bit < 32)
                continue
            }
            switch bit / 8 {
            case 8..<12:
                #expect(throws: DropReason.receiverIndexUnknown) { try pair.handshake.finish(message) }
            case 12..<60:
                #expect(throws: DropReason.handshakeDecryptionFailed, "bit \(bit)") {
                    try pair.handshake.finish(message)
                }
            default:
                let ours = try pair.handshake.finish(message)
                #expect(agree(ours, theirs))
            }
        }
        let ours = try pair.handshake.finish(response)
        #expect(agree(ours, theirs))
    }

    @Test("a message with the MACs cut off, or part of them, has no valid one")
    func truncatedMacs() throws {
        let pair = try Pair()
        let checker = CookieChecker(publicKey: pair.responder.publicKey)
        let bytes = pair.initiation.bytes
        let source = try #require(Endpoint("192.0.2.1:1"))
        for count in 0..<bytes.count {
            #expect(!checker.verifyMac1(Array(bytes.prefix(count))))
            #expect(!checker.verifyMac2(Array(bytes.prefix(count)), from: source, now: .at(0)))
        }
    }

    @Test("an initiation to another key, or from a peer that is not ours, is not opened")
    func strangers() throws {
        var pair = try Pair()
        let other = PrivateKey.generate(from: &pair.entropy)
        #expect(!CookieChecker(publicKey: other.publicKey).verifyMac1(pair.initiation.bytes))
        #expect(throws: DropReason.handshakeDecryptionFailed) {
            try ReceivedInitiation.open(
                pair.initiation, static: other, sharedSecret: { try? other.sharedSecret(with: $0) })
        }
        #expect(throws: DropReason.peerUnknown) {
            try ReceivedInitiation.open(pair.initiation, static: pair.responder, sharedSecret: { _ in nil })
        }
        // Who names a peer's public key without having its private one does not know the static-static
        // secret.
        let wrong = try pair.responder.sharedSecret(with: other.publicKey)
        #expect(throws: DropReason.handshakeDecryptionFailed) {
            try ReceivedInitiation.open(pair.initiation, static: pair.responder, sharedSecret: { _ in wrong })
        }
    }

    @Test("a response under another pre-shared key is refused")
    func wrongPresharedKey() throws {
        var pair = try Pair()
        let (response, _) = try pair.respond(psk: PresharedKey.none)
        #expect(throws: DropReason.handshakeDecryptionFailed) { try pair.handshake.finish(response) }
    }

    @Test("a response to an earlier initiation is refused")
    func earlierResponse() throws {
        var pair = try Pair()
        let (response, _) = try pair.respond()
        let secret = try pair.initiator.sharedSecret(with: pair.responder.publicKey)
        let second = try InitiatorHandshake.begin(
            static: pair.initiator, peer: pair.responder.publicKey, staticStatic: secret,
            presharedKey: pair.psk, cipher: .chacha20Poly1305, index: 7,
            timestamp: TAI64N(unixNanoseconds: 2_000_000_000_000_000_000),
            entropy: &pair.entropy
        ).1
        #expect(throws: DropReason.handshakeDecryptionFailed) { try second.finish(response) }
    }

    @Test("each try has a new ephemeral key, also when the same initiation is answered twice")
    func freshEphemerals() throws {
        var pair = try Pair()
        let (first, firstKeys) = try pair.respond()
        let (second, secondKeys) = try pair.respond()
        #expect(first.ephemeral != second.ephemeral)
        let ours = try pair.handshake.finish(first)
        #expect(agree(ours, firstKeys))
        #expect(!agree(ours, secondKeys))
        let again = try pair.handshake.finish(second)
        #expect(agree(again, secondKeys))
    }

    @Test("a low-order point is refused wherever it may stand")
    func lowOrderPoints() throws {
        var pair = try Pair()
        let (response, _) = try pair.respond()
        for point in try X25519Tests.X25519Vectors.lowOrderPoints() {
            var initiation = pair.initiation
            initiation.ephemeral = point.bytes
            #expect(throws: DropReason.lowOrderPoint) { try pair.open(initiation) }

            var forged = response
            forged.ephemeral = point.bytes
            #expect(throws: DropReason.lowOrderPoint) { try pair.handshake.finish(forged) }

            #expect(throws: DropReason.lowOrderPoint) {
                try InitiatorHandshake.begin(
                    static: pair.initiator, peer: point,
                    staticStatic: SecretBytes(repeatElement(0, count: 32)),
                    presharedKey: pair.psk, cipher: .chacha20Poly1305, index: 1,
                    timestamp: TAI64N(unixNanoseconds: 0),
                    entropy: &pair.entropy)
            }
        }
    }

    @Test("an initiator whose static key is a low-order point gets no response")
    func lowOrderStatic() throws {
        let pair = try Pair()
        let zero = SecretBytes(repeatElement(0, count: 32))
        for point in try X25519Tests.X25519Vectors.lowOrderPoints() {
            var entropy = pair.entropy
            let ephemeral = PrivateKey.generate(from: &entropy)
            var state = HandshakeState(responder: pair.responder.publicKey, cipher: .chacha20Poly1305)
            let (encryptedStatic, encryptedTimestamp) = try state.writeInitiation(
                ephemeral: ephemeral, responder: pair.responder.publicKey, static: point, staticStatic: zero,
                payload: TAI64N(unixNanoseconds: 0).bytes)
            var message = pair.initiation
            message.ephemeral = ephemeral.publicKey.bytes
            message.encryptedStatic = encryptedStatic
            message.encryptedTimestamp = encryptedTimestamp
            // As an initiator computes it: there is no secret with such a point.
            #expect(throws: DropReason.peerUnknown) { try pair.open(message) }
            let received = try ReceivedInitiation.open(
                message, static: pair.responder, sharedSecret: { _ in zero })
            #expect(throws: DropReason.lowOrderPoint) {
                try received.respond(presharedKey: pair.psk, index: 1, entropy: &entropy)
            }
        }
    }
}
