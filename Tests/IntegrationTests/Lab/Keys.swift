/// A private key and its public one, in base64, from `wg`: the reference must agree with what is tested.
struct KeyPair: Sendable {
    let privateKey: String
    let publicKey: String

    static func generate() async throws -> KeyPair {
        let privateKey = try await Shell.run("wg genkey")
        return KeyPair(
            privateKey: privateKey, publicKey: try await Shell.run("echo \(privateKey) | wg pubkey"))
    }

    static func presharedKey() async throws -> String { try await Shell.run("wg genpsk") }
}
