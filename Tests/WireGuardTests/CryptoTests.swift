import Testing
import WireGuard

@Suite struct CryptoTests {
    struct AEADVectors: Decodable {
        struct Group: Decodable {
            let ivSize: Int
            let tests: [Test]
        }
        struct Test: Decodable {
            let tcId: Int
            let key, iv, aad, msg, ct, tag, result: String
        }
        let numberOfTests: Int
        let testGroups: [Group]

        var tests: [Test] { testGroups.flatMap(\.tests) }
    }

    /// With the number of vectors that are valid, so that a file cut short does not pass.
    @Test(
        "each cipher agrees with Wycheproof, and with itself on what a packet may carry",
        arguments: [(Cipher.chacha20Poly1305, "chacha20_poly1305", 256), (.aes256GCM, "aes_256_gcm", 39)])
    func wycheproof(_ cipher: Cipher, file: String, validCount: Int) throws {
        try #require(cipher.isAvailable, "this machine cannot compute \(cipher.rawValue)")
        let vectors = try Vectors.load(file, as: AEADVectors.self)
        #expect(vectors.tests.count == vectors.numberOfTests)
        var valid = 0
        for test in vectors.tests {
            let key = SecretBytes([UInt8](hex: test.key))
            let nonce = [UInt8](hex: test.iv)
            let aad = [UInt8](hex: test.aad)
            let text = [UInt8](hex: test.msg)
            let sealed = [UInt8](hex: test.ct) + [UInt8](hex: test.tag)
            let opened = cipher.open(sealed, key: key, nonce: nonce, associatedData: aad)
            guard test.result == "valid" else {
                #expect(opened == nil, "\(test.tcId)")
                continue
            }
            valid += 1
            #expect(opened == text, "\(test.tcId)")
            #expect(cipher.seal(text, key: key, nonce: nonce, associatedData: aad) == sealed, "\(test.tcId)")
            // A packet has a counter for a nonce and no associated data.
            let digits = cipher == .aes256GCM ? Array(nonce[4...]) : nonce[4...].reversed()
            let counter = digits.reduce(0) { $0 << 8 | UInt64($1) }
            let packet = cipher.seal(text, key: key, nonce: [0, 0, 0, 0] + nonce[4...], associatedData: [])
            let transport = TransportKey(key, cipher: cipher)
            #expect(transport.sealed(text, counter: counter) == packet, "\(test.tcId)")
            #expect(transport.opened(packet, counter: counter) == text, "\(test.tcId)")
            #expect(transport.opened(packet, counter: counter &+ 1) == nil, "\(test.tcId)")
        }
        #expect(valid == validCount)
    }

    @Test(
        "both ciphers seal every length that a packet can have, in place and apart",
        arguments: Cipher.allCases)
    func everyLength(_ cipher: Cipher) throws {
        try #require(cipher.isAvailable, "this machine cannot compute \(cipher.rawValue)")
        let secret = SecretBytes(7..<39)
        let key = TransportKey(secret, cipher: cipher)
        for count in Array(0...300) + [1280, 1420, 1424, 8920, 65_504] {
            let text = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let counter = UInt64(count) << 32 | 5
            let sealed = key.sealed(text, counter: counter)
            let low = (0..<8).map { UInt8(truncatingIfNeeded: counter >> UInt64(8 * $0)) }
            let nonce = [0, 0, 0, 0] + (cipher == .aes256GCM ? low.reversed() : low)
            let expected = cipher.seal(text, key: secret, nonce: nonce, associatedData: [])
            #expect(sealed == expected, "\(count)")
            #expect(key.opened(sealed, counter: counter) == text, "\(count)")
        }
    }

    @Test("one key stream serves packets of all lengths in turn, long after short and wiped or not")
    func streamReuse() {
        let secret = SecretBytes(7..<39)
        let key = TransportKey(secret, cipher: .chacha20Poly1305)
        var chacha = ChaCha20Poly1305()
        // Around each length at which another one is made: whole rounds of 512, and rests of 64 and 256.
        let edges = stride(from: 0, through: 2048, by: 512).flatMap { [$0 - 64, $0, $0 + 192] }
        let lengths = edges.flatMap { edge in (-17...17).map { edge + $0 } }.filter { $0 >= 0 }
        for (number, count) in (lengths + lengths.reversed()).enumerated() {
            let counter = UInt64(number)
            let text = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }
            var packet = text + [UInt8](repeating: 0xee, count: TransportKey.tagSize + 64)
            let isAuthentic = unsafe packet.withUnsafeMutableBytes { packet in
                let base = packet.baseAddress!
                unsafe key.seal(counter: counter, plaintext: base, count: count, into: base, by: &chacha)
                let sealed = unsafe Array(packet[..<(count + TransportKey.tagSize)])
                let nonce = (0..<12).map { $0 < 4 ? 0 : UInt8(truncatingIfNeeded: number >> (8 * ($0 - 4))) }
                let expected = Cipher.chacha20Poly1305.seal(
                    text, key: secret, nonce: nonce, associatedData: [])
                #expect(sealed == expected, "\(count)")
                if number.isMultiple(of: 7) { chacha.wipe() }
                return unsafe key.open(
                    counter: counter, ciphertext: base, count: count + TransportKey.tagSize, into: base,
                    by: &chacha)
            }
            #expect(isAuthentic && Array(packet.prefix(count)) == text, "\(count)")
            #expect(packet.suffix(64).allSatisfy { $0 == 0xee }, "\(count): written past the end")
        }
    }

    @Test("XChaCha20-Poly1305 agrees with Wycheproof")
    func xchacha20Poly1305() throws {
        let vectors = try Vectors.load("xchacha20_poly1305", as: AEADVectors.self)
        #expect(vectors.tests.count == vectors.numberOfTests)
        var valid = 0
        for test in vectors.tests {
            let key = [UInt8](hex: test.key)
            let nonce = [UInt8](hex: test.iv)
            let aad = [UInt8](hex: test.aad)
            let text = [UInt8](hex: test.msg)
            let sealed = [UInt8](hex: test.ct) + [UInt8](hex: test.tag)
            let opened = XChaCha20Poly1305.open(sealed, key: key, nonce: nonce, associatedData: aad)
            guard test.result == "valid" else {
                #expect(opened == nil, "\(test.tcId)")
                continue
            }
            valid += 1
            #expect(opened == text, "\(test.tcId)")
            let again = XChaCha20Poly1305.seal(text, key: key, nonce: nonce, associatedData: aad)
            #expect(again == sealed, "\(test.tcId)")
        }
        #expect(valid == 246)
    }

    @Test("ChaCha20-Poly1305 agrees with RFC 8439, section 2.8.2")
    func rfc8439() {
        let text = Array(
            "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
                .utf8)
        let sealed = Cipher.chacha20Poly1305.seal(
            text, key: SecretBytes(0x80...0x9f), nonce: [UInt8](hex: "07000000 4041424344454647"),
            associatedData: [UInt8](hex: "50515253c0c1c2c3c4c5c6c7"))
        #expect(
            sealed
                == [UInt8](
                    hex: """
                        d31a8d34648e60db7b86afbc53ef7ec2 a4aded51296e08fea9e2b5a736ee62d6
                        3dbea45e8ca9671282fafb69da92728b 1a71de0a9e060b2905d6a5b67ecd3b36
                        92ddbd7f2d778b8c9803aee328091b58 fab324e4fad675945585808b4831d7bc
                        3ff4def08e4b7a9de576d26586cec64b 6116
                        1ae10b594f09e26a7e902ecbd0600691
                        """))
    }

    @Test("a packet with any bit flipped, or cut anywhere, does not open", arguments: Cipher.allCases)
    func transportKeyRejects(_ cipher: Cipher) throws {
        try #require(cipher.isAvailable, "this machine cannot compute \(cipher.rawValue)")
        let key = TransportKey(SecretBytes(0..<32), cipher: cipher)
        let text = [UInt8](0..<48)
        let sealed = key.sealed(text, counter: 7)
        #expect(key.opened(sealed, counter: 7) == text)
        for bit in 0..<sealed.count * 8 { #expect(key.opened(sealed.flipping(bit: bit), counter: 7) == nil) }
        for count in 0..<sealed.count { #expect(key.opened(Array(sealed.prefix(count)), counter: 7) == nil) }
        #expect(TransportKey(SecretBytes(1..<33), cipher: cipher).opened(sealed, counter: 7) == nil)
        #expect(key.opened(key.sealed([], counter: .max), counter: .max) == [])
    }
}
