import TestSupport
import Testing
import WireGuard

@Suite struct CookieTests {
    /// A device under load, and a peer that wants a handshake with it.
    struct Setting {
        var entropy = SplitMix(seed: 7)
        let device: PrivateKey
        let peer: PrivateKey
        var checker: CookieChecker
        var generator: MacGenerator
        let source = Endpoint(address: IPAddress(v4: 0xc000_0201), port: 51820)

        init() {
            device = PrivateKey.generate(from: &entropy)
            peer = PrivateKey.generate(from: &entropy)
            checker = CookieChecker(publicKey: device.publicKey)
            generator = MacGenerator(peer: device.publicKey)
        }

        /// An initiation as it leaves the peer.
        mutating func initiation(at now: Instant) throws -> HandshakeInitiation {
            let secret = try peer.sharedSecret(with: device.publicKey)
            var message = try InitiatorHandshake.begin(
                static: peer, peer: device.publicKey, staticStatic: secret, presharedKey: .none,
                cipher: .chacha20Poly1305, index: 42, timestamp: TAI64N(unixNanoseconds: 0), entropy: &entropy
            ).0
            generator.stamp(&message, now: now)
            return message
        }

        mutating func reply(to message: HandshakeInitiation, at now: Instant) -> CookieReply {
            checker.makeReply(
                for: message.bytes, from: source, index: message.senderIndex, now: now, entropy: &entropy)
        }

        func accepts(_ message: HandshakeInitiation, from other: Endpoint? = nil, at now: Instant) -> Bool {
            checker.verifyMac1(message.bytes)
                && checker.verifyMac2(message.bytes, from: other ?? source, now: now)
        }

        static let zero = [UInt8](repeating: 0, count: 16)
    }

    @Test("a cookie makes the next message acceptable, from the same address and port only")
    func roundTrip() throws {
        var setting = Setting()
        let first = try setting.initiation(at: .at(0))
        #expect(first.mac2 == Setting.zero)
        #expect(!setting.accepts(first, at: .at(0)))
        let reply = try #require(CookieReply(setting.reply(to: first, at: .at(0)).bytes))
        #expect(reply.receiverIndex == 42)
        try setting.generator.receive(reply, now: .at(0))

        let second = try setting.initiation(at: .at(5))
        #expect(setting.accepts(second, at: .at(5)))
        #expect(!setting.accepts(first, at: .at(5)))
        for other in ["192.0.2.2:51820", "192.0.2.1:51821", "[::ffff:192.0.2.1]:51820"] {
            let elsewhere = try #require(Endpoint(other))
            #expect(!setting.accepts(second, from: elsewhere, at: .at(5)))
        }
        for bit in 0..<second.bytes.count * 8 {
            #expect(
                !setting.checker.verifyMac2(
                    second.bytes.flipping(bit: bit), from: setting.source, now: .at(5)))
        }
    }

    @Test("a response carries a cookie as an initiation does")
    func response() throws {
        var setting = Setting()
        // The device initiates towards the peer, which answers under the cookie.
        let (initiation, _) = try InitiatorHandshake.begin(
            static: setting.device, peer: setting.peer.publicKey,
            staticStatic: try setting.device.sharedSecret(with: setting.peer.publicKey), presharedKey: .none,
            cipher: .chacha20Poly1305, index: 1, timestamp: TAI64N(unixNanoseconds: 0),
            entropy: &setting.entropy)
        let peer = setting.peer
        let received = try ReceivedInitiation.open(
            initiation, static: peer, sharedSecret: { try? peer.sharedSecret(with: $0) })
        var message = try received.respond(presharedKey: .none, index: 2, entropy: &setting.entropy).0
        setting.generator.stamp(&message, now: .at(0))
        #expect(setting.checker.verifyMac1(message.bytes))
        let reply = setting.checker.makeReply(
            for: message.bytes, from: setting.source, index: message.senderIndex, now: .at(0),
            entropy: &setting.entropy)
        try setting.generator.receive(reply, now: .at(0))
        setting.generator.stamp(&message, now: .at(1))
        #expect(setting.checker.verifyMac2(message.bytes, from: setting.source, now: .at(1)))
    }

    @Test("a sender uses a cookie for 115 s, then none")
    func senderLifetime() throws {
        var setting = Setting()
        let first = try setting.initiation(at: .at(0))
        let reply = setting.reply(to: first, at: .at(0))
        try setting.generator.receive(reply, now: .at(0))
        let late = try setting.initiation(at: .at(114.999))
        #expect(setting.accepts(late, at: .at(114.999)))
        let later = try setting.initiation(at: .at(115))
        #expect(later.mac2 == Setting.zero)
        // It is gone for good, whatever the clock says next.
        let earlier = try setting.initiation(at: .at(1))
        #expect(earlier.mac2 == Setting.zero)
    }

    @Test("a device keeps its secret for 120 s, and a cookie from before opens nothing after")
    func deviceLifetime() throws {
        var setting = Setting()
        let first = try setting.initiation(at: .at(0))
        _ = setting.reply(to: first, at: .at(0))
        let reply = setting.reply(to: first, at: .at(119))
        try setting.generator.receive(reply, now: .at(119))
        let second = try setting.initiation(at: .at(119.9))
        #expect(setting.accepts(second, at: .at(119.9)))
        #expect(!setting.accepts(second, at: .at(120)))
        // The next reply is made under a new secret.
        let fresh = setting.reply(to: second, at: .at(120))
        try setting.generator.receive(fresh, now: .at(120))
        #expect(!setting.accepts(second, at: .at(120)))
        let third = try setting.initiation(at: .at(121))
        #expect(setting.accepts(third, at: .at(121)))
    }

    @Test("a cookie reply that nobody waits for is refused, also the second one to a message")
    func unexpected() throws {
        var setting = Setting()
        var idle = MacGenerator(peer: setting.device.publicKey)
        let first = try setting.initiation(at: .at(0))
        let reply = setting.reply(to: first, at: .at(0))
        #expect(throws: DropReason.cookieReplyUnexpected) { try idle.receive(reply, now: .at(0)) }
        try setting.generator.receive(reply, now: .at(0))
        #expect(throws: DropReason.cookieReplyUnexpected) {
            try setting.generator.receive(reply, now: .at(0))
        }
    }

    @Test("a cookie reply to an earlier message, or from someone else, is refused and changes nothing")
    func invalid() throws {
        var setting = Setting()
        let first = try setting.initiation(at: .at(0))
        let stale = setting.reply(to: first, at: .at(0))
        let second = try setting.initiation(at: .at(5))
        #expect(throws: DropReason.cookieReplyInvalid) { try setting.generator.receive(stale, now: .at(5)) }

        var stranger = CookieChecker(publicKey: setting.peer.publicKey)
        let forged = stranger.makeReply(
            for: second.bytes, from: setting.source, index: 42, now: .at(5), entropy: &setting.entropy)
        #expect(throws: DropReason.cookieReplyInvalid) { try setting.generator.receive(forged, now: .at(5)) }

        let reply = setting.reply(to: second, at: .at(5))
        let bytes = reply.bytes
        for bit in 0..<bytes.count * 8 {
            guard let flipped = CookieReply(bytes.flipping(bit: bit)) else {
                #expect(bit < 32)
                continue
            }
            // The index only finds the peer.
            guard bit >= 64 else { continue }
            #expect(throws: DropReason.cookieReplyInvalid) {
                try setting.generator.receive(flipped, now: .at(5))
            }
        }
        try setting.generator.receive(reply, now: .at(5))
        let third = try setting.initiation(at: .at(10))
        #expect(setting.accepts(third, at: .at(10)))
    }

    @Test("no cookie is good before one was given out")
    func noSecret() throws {
        var setting = Setting()
        let message = try setting.initiation(at: .at(0))
        #expect(!setting.checker.verifyMac2(message.bytes, from: setting.source, now: .at(0)))
    }

    @Test("two replies to one message have different nonces")
    func nonces() throws {
        var setting = Setting()
        let message = try setting.initiation(at: .at(0))
        let first = setting.reply(to: message, at: .at(0))
        let second = setting.reply(to: message, at: .at(0))
        #expect(first.nonce != second.nonce)
    }
}
