import Testing
import WireGuard

@Suite struct X25519Tests {
    struct X25519Vectors: Decodable {
        struct Group: Decodable { let tests: [Test] }
        struct Test: Decodable {
            let tcId: Int
            let flags: [String]
            let `public`, `private`, shared, result: String
        }
        let numberOfTests: Int
        let testGroups: [Group]

        static func load() throws -> [Test] {
            let vectors = try Vectors.load("x25519", as: X25519Vectors.self)
            let tests = vectors.testGroups.flatMap(\.tests)
            #expect(tests.count == vectors.numberOfTests)
            return tests
        }

        /// Points that give whoever sends them the shared secret: zero.
        static func lowOrderPoints() throws -> [PublicKey] {
            try load().filter { $0.flags.contains("ZeroSharedSecret") }.compactMap {
                PublicKey(hex: $0.public)
            }
        }
    }

    @Test("X25519 agrees with Wycheproof, and rejects each point that gives zero")
    func x25519() throws {
        var rejected = 0
        for test in try X25519Vectors.load() {
            let key = PrivateKey(clamping: SecretBytes([UInt8](hex: test.private)))
            let point = try #require(PublicKey(hex: test.public))
            if test.flags.contains("ZeroSharedSecret") {
                rejected += 1
                #expect(throws: DropReason.lowOrderPoint, "\(test.tcId)") {
                    try key.sharedSecret(with: point)
                }
            } else {
                #expect(
                    try key.sharedSecret(with: point).revealed == [UInt8](hex: test.shared), "\(test.tcId)")
            }
        }
        #expect(rejected == 31)
    }

    @Test("X25519 agrees with RFC 7748, sections 5.2 and 6.1")
    func rfc7748() throws {
        // Section 5.2, the two single multiplications, then the iterated one after 1 and after 1,000 rounds.
        let table = [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"
            ),
        ]
        for (scalar, point, product) in table {
            let key = try #require(PrivateKey(hex: scalar))
            let peer = try #require(PublicKey(hex: point))
            let shared = try key.sharedSecret(with: peer)
            #expect(shared.revealed == [UInt8](hex: product))
        }

        var scalar: [UInt8] = [9] + [UInt8](repeating: 0, count: 31)
        var point = scalar
        for round in 1...1000 {
            let peer = try #require(PublicKey(point))
            let product = try PrivateKey(clamping: SecretBytes(scalar)).sharedSecret(with: peer)
            point = scalar
            scalar = product.revealed
            if round == 1 {
                #expect(
                    scalar == [UInt8](hex: "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")
                )
            }
        }
        #expect(scalar == [UInt8](hex: "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"))

        // Section 6.1.
        let alice = try #require(
            PrivateKey(hex: "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
        let bob = try #require(
            PrivateKey(hex: "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
        #expect(
            alice.publicKey.hex == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        #expect(bob.publicKey.hex == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
        let agreed = [UInt8](hex: "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
        #expect(try alice.sharedSecret(with: bob.publicKey).revealed == agreed)
        #expect(try bob.sharedSecret(with: alice.publicKey).revealed == agreed)
    }
}
