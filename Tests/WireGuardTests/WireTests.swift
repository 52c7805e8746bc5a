import Testing
import WireGuard

@Suite struct WireTests {
    static let initiation = word(1) + (0..<144).map { UInt8($0) }
    static let response = word(2) + (0..<88).map { UInt8($0) }
    static let cookieReply = word(3) + (0..<60).map { UInt8($0) }

    static func word(_ type: UInt8) -> [UInt8] { [type, 0, 0, 0] }

    /// Which of the three views take these bytes.
    static func views(of bytes: [UInt8]) -> [MessageType] {
        var views: [MessageType] = []
        if HandshakeInitiation(bytes) != nil { views.append(.initiation) }
        if HandshakeResponse(bytes) != nil { views.append(.response) }
        if CookieReply(bytes) != nil { views.append(.cookieReply) }
        return views
    }

    @Test("the constants are those of the whitepaper, sections 5.4 and 6.1")
    func constants() {
        #expect(Protocol.construction == "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        #expect(Protocol.identifier == "WireGuard v1 zx2c4 Jason@zx2c4.com")
        #expect(Protocol.mac1Label == "mac1----" && Protocol.cookieLabel == "cookie--")
        #expect(Protocol.rekeyAfterMessages == 1_152_921_504_606_846_976)
        #expect(Protocol.rejectAfterMessages == 18_446_744_073_709_543_423)
        #expect(Protocol.rekeyAfterTime == .seconds(120) && Protocol.rejectAfterTime == .seconds(180))
        #expect(
            Protocol.rekeyTimeout == .seconds(5) && Protocol.rekeyTimeoutJitter == .milliseconds(333))
        #expect(Protocol.rekeyAttemptTime == .seconds(90) && Protocol.keepaliveTimeout == .seconds(10))
        #expect(Protocol.cookieSecretLifetime == .seconds(120) && Protocol.cookieLatency == .seconds(5))
        #expect(Protocol.initiationInterval == .milliseconds(20))
        #expect(
            [Protocol.initiationSize, Protocol.responseSize, Protocol.cookieReplySize] == [148, 92, 64])
        #expect(Protocol.transportOverhead == 32)
    }

    @Test("a message is read as what it says it is, and written as it was read")
    func roundTrips() throws {
        let initiation = try #require(HandshakeInitiation(Self.initiation))
        #expect(initiation.bytes == Self.initiation)
        #expect(initiation.senderIndex == 0x0302_0100)
        #expect(initiation.ephemeral == [UInt8](4..<36))
        #expect(initiation.encryptedStatic == [UInt8](36..<84))
        #expect(initiation.encryptedTimestamp == [UInt8](84..<112))
        #expect(initiation.mac1 == [UInt8](112..<128))
        #expect(initiation.mac2 == [UInt8](128..<144))

        let response = try #require(HandshakeResponse(Self.response))
        #expect(response.bytes == Self.response)
        #expect(response.senderIndex == 0x0302_0100)
        #expect(response.receiverIndex == 0x0706_0504)
        #expect(response.ephemeral == [UInt8](8..<40))
        #expect(response.encryptedNothing == [UInt8](40..<56))
        #expect(response.mac1 == [UInt8](56..<72))
        #expect(response.mac2 == [UInt8](72..<88))

        let reply = try #require(CookieReply(Self.cookieReply))
        #expect(reply.bytes == Self.cookieReply)
        #expect(reply.receiverIndex == 0x0302_0100)
        #expect(reply.nonce == [UInt8](4..<28))
        #expect(reply.encryptedCookie == [UInt8](28..<60))
    }

    @Test(
        "a message of any other length is none",
        arguments: [WireTests.initiation, WireTests.response, WireTests.cookieReply])
    func lengths(message: [UInt8]) throws {
        let type = try #require(MessageType(of: message))
        #expect(Self.views(of: message) == [type])
        #expect(type.exactSize == message.count)
        for count in 0..<message.count { #expect(Self.views(of: Array(message.prefix(count))) == []) }
        for extra in [1, 4, 16, 65_535] {
            #expect(Self.views(of: message + [UInt8](repeating: 0, count: extra)) == [])
        }
    }

    @Test(
        "a message with any bit of its type flipped is none",
        arguments: [WireTests.initiation, WireTests.response, WireTests.cookieReply])
    func types(message: [UInt8]) {
        for bit in 0..<32 { #expect(Self.views(of: message.flipping(bit: bit)) == []) }
    }

    @Test("only 1 to 4 are types, and only with three zero bytes after them")
    func messageType() {
        for value in UInt8.min...UInt8.max {
            let type = MessageType(of: [value, 0, 0, 0])
            #expect((type != nil) == (1...4).contains(value))
            for place in 1...3 {
                var bytes: [UInt8] = [value, 0, 0, 0]
                bytes[place] = 1
                #expect(MessageType(of: bytes) == nil)
            }
        }
        for count in 0..<4 { #expect(MessageType(of: [UInt8](repeating: 1, count: count)) == nil) }
        #expect(MessageType(of: [4, 0, 0, 0])?.exactSize == nil)
    }

    // MARK: TAI64N

    @Test(
        "a time is written as TAI64N, rounded down to 2^24 nanoseconds",
        arguments: [
            (0, "400000000000000a 00000000"),
            (1, "400000000000000a 00000000"),
            (16_777_215, "400000000000000a 00000000"),
            (16_777_216, "400000000000000a 01000000"),
            (999_999_999, "400000000000000a 3b000000"),
            (1_000_000_000, "400000000000000b 00000000"),
            (1_700_000_000_250_000_000, "400000006553f10a 0e000000"),
            (-1, "4000000000000009 3b000000"),
            (Int64.max, "4000000225c17d0e 32000000"),
            (Int64.min, "3ffffffdda3e8305 08000000"),
        ])
    func timestamps(nanoseconds: Int64, expected: String) throws {
        let stamp = TAI64N(unixNanoseconds: nanoseconds)
        #expect(Hex.encode(stamp.bytes) == Hex.encode([UInt8](hex: expected)))
        #expect(TAI64N(bytes: stamp.bytes) == stamp)
    }

    @Test("stamps are ordered as their bytes are, and only 12 bytes are one")
    func order() throws {
        let stamps = try ["00ff", "01", "ff"].map { text -> TAI64N in
            let bytes = [UInt8](hex: text)
            return try #require(TAI64N(bytes: bytes + [UInt8](repeating: 0, count: 12 - bytes.count)))
        }
        #expect(stamps == stamps.shuffled().sorted())
        for bit in 0..<96 {
            let zero = [UInt8](repeating: 0, count: 12)
            let low = try #require(TAI64N(bytes: zero))
            let high = try #require(TAI64N(bytes: zero.flipping(bit: bit)))
            #expect(low < high && !(high < low) && low != high)
        }
        for count in [0, 11, 13] { #expect(TAI64N(bytes: [UInt8](repeating: 0, count: count)) == nil) }
    }

    @Test("the next stamp is later, and nothing rounded lies between")
    func next() throws {
        var stamp = TAI64N(unixNanoseconds: 1_700_000_000_000_000_000)
        for step in 1...200 {
            let next = stamp.next()
            #expect(stamp < next)
            let nanoseconds = Int64(step % 60) * 16_777_216 + Int64(step / 60) * 1_000_000_000
            #expect(next == TAI64N(unixNanoseconds: 1_700_000_000_000_000_000 + nanoseconds))
            stamp = next
        }
        let unrounded = try #require(TAI64N(bytes: [UInt8](hex: "400000006553f10a 0ee6b280")))
        #expect(unrounded.next().bytes == [UInt8](hex: "400000006553f10a 0f000000"))
        let nonsense = try #require(TAI64N(bytes: [UInt8](hex: "400000006553f10a ffffffff")))
        #expect(nonsense.next().bytes == [UInt8](hex: "400000006553f10b 00000000"))
        let last = try #require(TAI64N(bytes: [UInt8](repeating: 0xff, count: 12)))
        #expect(last.next() == last)
    }

    // MARK: Instant, DropReason

    @Test("instants saturate where they would overflow")
    func instants() {
        let zero = Instant(nanoseconds: 0)
        let end = Instant(nanoseconds: .max)
        #expect(zero + .seconds(-1) == zero)
        #expect(zero - .seconds(1) == zero)
        #expect(end + .nanoseconds(1) == end)
        #expect(end + .seconds(Int64.max) == end)
        #expect(zero + .seconds(Int64.max) == Instant(nanoseconds: UInt64(Int64.max)))
        #expect(zero + .seconds(Int64.min) == zero)
        #expect(.at(2) - .at(1) == .seconds(1))
        #expect(.at(1) - .at(2) == .seconds(-1))
        #expect(.at(1) + .milliseconds(250) == .at(1.25))
    }

    @Test("each drop reason has a name of its own, as operators read it")
    func dropReasons() {
        let names = DropReason.allCases.map(\.name)
        #expect(Set(names).count == names.count)
        #expect(DropReason.mac1Invalid.name == "mac1-invalid")
        #expect(DropReason.tunWriteFailed.name == "tun-write-failed")
        for name in names {
            #expect(
                name.utf8.allSatisfy {
                    (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2d
                })
        }
        #expect(DropReason.allCases.map(\.index) == Array(0..<DropReason.allCases.count))
    }
}
