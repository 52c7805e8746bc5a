import Testing
import WireGuard

@Suite("Keys as text") struct KeyTextTests {
    /// RFC 4648, section 10.
    @Test(
        "base64 is that of RFC 4648, section 10",
        arguments: [
            ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ])
    func base64(plain: String, encoded: String) {
        let bytes = Array(plain.utf8)
        #expect(Base64.encode(bytes) == encoded)
        #expect(Base64.decode(encoded, count: bytes.count) == bytes)
        #expect(Base64.decode(encoded, count: bytes.count + 3) == nil)
    }

    @Test("every byte value survives base64 and hexadecimal")
    func roundTrips() {
        let all = [UInt8](0...255)
        #expect(Base64.decode(Base64.encode(all), count: 256) == all)
        #expect(Hex.decode(Hex.encode(all), count: 256) == all)
        #expect(Hex.decode(Hex.encode(all).uppercased(), count: 256) == all)
        #expect(Hex.encode([0x00, 0x9a, 0xf0]) == "009af0")
    }

    @Test("each of the 256 characters is a digit of base64 and of hexadecimal only if the standard says so")
    func alphabets() {
        let base64 = Set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".unicodeScalars)
        let hex = Set("0123456789abcdefABCDEF".unicodeScalars)
        for scalar in (UInt8(0)...127).map({ Unicode.Scalar($0) }) {
            #expect(
                (Base64.decode("AAA\(scalar)", count: 3) != nil) == base64.contains(scalar), "\(scalar.value)"
            )
            #expect((Hex.decode("0\(scalar)", count: 1) != nil) == hex.contains(scalar), "\(scalar.value)")
            #expect((Hex.decode("\(scalar)0", count: 1) != nil) == hex.contains(scalar), "\(scalar.value)")
        }
        // Two bytes of UTF-8: as many as two digits.
        #expect(Base64.decode("AAé", count: 3) == nil)
        #expect(Hex.decode("é", count: 1) == nil)
    }

    static let example = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

    @Test(
        "what is not exactly one key in canonical base64 is none",
        arguments: [
            "", "=", "====", "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk",
            "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk==", " yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
            "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n", "yAnz5TF-lXXJte14tji3zlMNq-hd2rYUIgJBgB3fBmk=",
            "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBml=", "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fB===",
            "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmkA", "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fB=k=",
        ])
    func rejectedBase64(text: String) {
        #expect(PublicKey(base64: text) == nil)
        #expect(PrivateKey(base64: text) == nil)
        #expect(PresharedKey(base64: text) == nil)
    }

    @Test("what is not exactly 64 hexadecimal digits is no key")
    func rejectedHex() {
        let good = String(repeating: "5a", count: 32)
        #expect(PublicKey(hex: good) != nil)
        let short = String(good.dropLast())
        for text in ["", "5a", short, good + "5", good + "5a", "0x" + good.dropLast(2), short + "g"] {
            #expect(PublicKey(hex: text) == nil)
            #expect(PrivateKey(hex: text) == nil)
            #expect(PresharedKey(hex: text) == nil)
        }
    }

    @Test("a public key is the same in both forms, and in a dictionary")
    func publicKey() throws {
        let key = try #require(PublicKey(base64: Self.example))
        #expect(key.base64 == Self.example)
        #expect("\(key)" == Self.example)
        #expect(PublicKey(hex: key.hex) == key)
        #expect(PublicKey(key.bytes) == key)
        let numbers = [key: 1]
        let same = try #require(PublicKey(key.bytes))
        #expect(numbers[same] == 1)
        for count in 0..<32 { #expect(PublicKey(key.bytes.prefix(count)) == nil) }
        #expect(PublicKey(key.bytes + [0]) == nil)
        for bit in 0..<256 { #expect(PublicKey(key.bytes.flipping(bit: bit)) != key) }
    }

    @Test("a private key is exported as the scalar it is used as")
    func privateKey() throws {
        let zero = PrivateKey(clamping: SecretBytes(repeatElement(0, count: 32)))
        #expect(zero.hexText == String(repeating: "00", count: 31) + "40")
        let full = PrivateKey(clamping: SecretBytes(repeatElement(0xff, count: 32)))
        #expect(full.hexText == "f8" + String(repeating: "ff", count: 30) + "7f")
        let key = try #require(PrivateKey(base64: Self.example))
        let again = try #require(PrivateKey(base64: key.exportBase64()))
        #expect(again.publicKey == key.publicKey)
        #expect(PrivateKey(hex: key.hexText)?.publicKey == key.publicKey)
    }

    @Test("generated keys come from the entropy given and from nothing else")
    func generated() throws {
        var script = ScriptedEntropy(script: [UInt8](0..<64))
        let key = PrivateKey.generate(from: &script)
        #expect(key.hexText == Hex.encode([UInt8](0..<31) + [0x5f]))
        #expect(PresharedKey.generate(from: &script).hexText == Hex.encode([UInt8](32..<64)))
        #expect(script.script.isEmpty)
    }

    @Test("a pre-shared key of zeros is none")
    func presharedKey() throws {
        #expect(PresharedKey.none.isNone)
        #expect(PresharedKey.none.exportBase64() == "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        let zeros = try #require(PresharedKey(hex: String(repeating: "0", count: 64)))
        #expect(zeros.isNone)
        let key = try #require(PresharedKey(base64: Self.example))
        #expect(!key.isNone)
        #expect(key.exportBase64() == Self.example)
        let same = try #require(PresharedKey(hex: key.hexText))
        #expect(key.isEqual(to: same))
        #expect(!key.isEqual(to: .none))
    }

    @Test("no key says what it is when it is printed")
    func printing() throws {
        let key = try #require(PrivateKey(base64: Self.example))
        let shared = try #require(PresharedKey(base64: Self.example))
        for text in ["\(key)", String(reflecting: key), "\(shared)", "\(SecretBytes(0..<32))"] {
            #expect(!text.contains(key.exportBase64().prefix(8)))
            #expect(!text.contains(Self.example.prefix(8)))
        }
    }
}

extension PrivateKey {
    fileprivate var hexText: String {
        var text: [UInt8] = []
        text.reserveCapacity(64)
        exportHex(to: &text)
        return String(decoding: text, as: UTF8.self)
    }
}

extension PresharedKey {
    fileprivate var hexText: String {
        var text: [UInt8] = []
        text.reserveCapacity(64)
        exportHex(to: &text)
        return String(decoding: text, as: UTF8.self)
    }
}
