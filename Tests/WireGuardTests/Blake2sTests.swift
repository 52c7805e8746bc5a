import Testing
import WireGuard

@Suite struct Blake2sTests {
    @Test("the digest of abc is that of RFC 7693, appendix B")
    func appendixB() {
        #expect(
            Hex.encode(Blake2s.hash(Array("abc".utf8)))
                == "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982")
        #expect(Blake2s.hash([0x61], [], [0x62, 0x63]) == Blake2s.hash(Array("abc".utf8)))
    }

    @Test("all sizes, keyed and not, give the digest of digests of RFC 7693, appendix E")
    func appendixE() {
        var digests: [UInt8] = []
        for size in [16, 20, 28, 32] {
            for length in [0, 3, 64, 65, 255, 1024] {
                let message = Self.sequence(length)
                digests += Blake2s.digest(message, size: size)
                digests += Blake2s.digest(message, size: size, key: Self.sequence(size))
            }
        }
        #expect(
            Hex.encode(Blake2s.hash(digests))
                == "6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe")
    }

    @Test("HMAC and the three key derivations agree with Python's hmac and hashlib")
    func keyDerivation() {
        let key = SecretBytes(0..<32)
        let input = SecretBytes(100..<150)
        #expect(
            Hex.encode(Blake2s.hmac(key: key, input).revealed)
                == "9c5832c1a2a8c26e4aea5d9c3f5f74b60ecb066bc895ee9955181d4daae3c88b")
        #expect(
            Hex.encode(Blake2s.hmac(key: SecretBytes(repeatElement(0, count: 64)), SecretBytes([])).revealed)
                == "eaf4bb25938f4d20e72656bbbc7a9bf63c0c18537333c35bdb67db1402661acd")
        let derived = [
            "37f059bb1da97ac4fb74043c3d7befe83a688ccf1ebf27573464a15d6e92992b",
            "7dd7d13ee0d023e5756c27b2a1aee871341654294d978e59395b001bd4ec7f02",
            "eb43cedd3f5c1328e539dbb39c46fef7cec02d6bce7389862d2af76dae53b463",
        ].map { [UInt8](hex: $0) }
        #expect(Blake2s.kdf1(chainingKey: key, input: input).revealed == derived[0])
        #expect(Blake2s.kdf1(chainingKey: key, publicInput: [UInt8](100..<150)).revealed == derived[0])
        let two = Blake2s.kdf2(chainingKey: key, input: input)
        #expect([two.0.revealed, two.1.revealed] == [derived[0], derived[1]])
        let three = Blake2s.kdf3(chainingKey: key, input: input)
        #expect([three.0.revealed, three.1.revealed, three.2.revealed] == derived)
        let last = Blake2s.kdf2(chainingKey: key, input: nil)
        #expect(
            Hex.encode(last.0.revealed + last.1.revealed)
                == "7a38c34bf2b8738d7374ca77c44ecb309a11d2b2528304fa86052c365e722624"
                + "1a17621f346abdc520746a9fb64d8eb03231d674fc15687537b0780fd9c060fd")
    }

    @Test("a MAC is the keyed digest of 16 bytes, whether its key is secret or not")
    func mac() {
        let key = [UInt8](1...32)
        let message = Self.sequence(148)
        let expected = Blake2s.digest(message, size: 16, key: key)
        #expect(Blake2s.mac(key: key, message) == expected)
        #expect(Blake2s.mac(key: SecretBytes(key), message) == expected)
        #expect(isEqualInConstantTime(expected, Blake2s.mac(key: key, message[...])))
        #expect(!isEqualInConstantTime(expected, expected.flipping(bit: 127)))
        #expect(!isEqualInConstantTime(expected, Array(expected.dropLast())))
    }

    /// `selftest_seq` of appendix E, seeded by its own length.
    private static func sequence(_ length: Int) -> [UInt8] {
        var a = 0xdead_4bad &* UInt32(length)
        var b: UInt32 = 1
        return (0..<length).map { _ in
            (a, b) = (b, a &+ b)
            return UInt8(truncatingIfNeeded: b >> 24)
        }
    }
}
