internal import ArgumentParser
internal import WireGuard

/// New keys from the system's random generator. The bytes go into locked memory one by one.
enum FreshKey {
    static func privateKey() -> PrivateKey { PrivateKey(clamping: bytes()) }
    static func presharedKey() -> PresharedKey { PresharedKey(bytes()) }

    private static func bytes() -> SecretBytes {
        SecretBytes((0..<PublicKey.count).lazy.map { _ in UInt8.random(in: .min ... .max) })
    }
}

struct GenkeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "genkey",
        abstract: "Print a new private key.",
        discussion: """
            It goes into a file that only its owner can read; the far end needs the public key that belongs to it:

              (umask 077; vgwctl genkey > /etc/vgwd/private.key)
              vgwctl pubkey < /etc/vgwd/private.key
            """)

    func run() { print(FreshKey.privateKey().exportBase64()) }
}

struct PubkeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pubkey",
        abstract: "Read a private key from standard input and print its public key.",
        discussion: """
              vgwctl pubkey < /etc/vgwd/private.key

            The public key is no secret: the far end writes it into its configuration as public-key.
            """)

    func run() throws {
        guard let key = PrivateKey(base64: readLine()?.trimmed ?? "") else {
            throw Failure(
                .data, "standard input holds no private key",
                hint: "It must be 32 bytes in base64 on one line, as 'vgwctl genkey' prints them.")
        }
        print(key.publicKey.base64)
    }
}

struct GenpskCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "genpsk",
        abstract: "Print a new pre-shared key.",
        discussion: """
            Both ends of a tunnel hold the same one, in a file that only its owner can read. It keeps what is recorded \
            today closed to who breaks Curve25519 tomorrow.

              (umask 077; vgwctl genpsk > /etc/vgwd/cloud.psk)
            """)

    func run() { print(FreshKey.presharedKey().exportBase64()) }
}
