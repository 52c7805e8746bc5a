internal import FoundationEssentials
internal import WireGuard

/// The implementations that this machine can run, and why it cannot run the others.
struct Catalogue {
    private(set) var found: [Implementation] = []
    /// Name and reason.
    private(set) var absent: [(name: String, reason: String)] = []

    /// `peers` are NAME=PATH, of programs that are there.
    init(vgwd: String, nullCipher: String, peers: [String]) async throws {
        found.append(Implementation(name: "veth", kind: .wire))
        await addOwn(vgwd, nullCipher)
        if let program = await program("wireguard-go", for: ["wireguard-go"]) {
            found.append(daemon("wireguard-go", [program, "-f"]))
        }
        for peer in peers {
            let parts = peer.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2, !found.contains(where: { $0.name == parts[0] }) else {
                throw Failure("--peer \(peer): there is a \(parts[0]) already; give it another name")
            }
            // boringtun gives root away unless it is told that it may keep it.
            found.append(daemon(parts[0], [parts[1], "-f"], ["WG_SUDO": "1"]))
        }
        if let program = await program("openvpn", for: ["openvpn-chacha", "openvpn-aes"]) {
            found.append(
                Implementation(
                    name: "openvpn-chacha", kind: .openVPN(program: program, cipher: "CHACHA20-POLY1305")))
            found.append(
                Implementation(name: "openvpn-aes", kind: .openVPN(program: program, cipher: "AES-256-GCM")))
        }
        if let program = await program("fastd", for: ["fastd"]) {
            found.append(Implementation(name: "fastd", kind: .fastd(program: program)))
        }
    }

    /// Those named, in the catalogue's order; all when nothing is named.
    func chosen(_ names: [String]) throws -> [Implementation] {
        for name in names where !found.contains(where: { $0.name == name }) {
            if let reason = absent.first(where: { $0.name == name })?.reason {
                throw Failure("--only \(name): \(reason)")
            }
            throw Failure("--only \(name): there are \(found.map(\.name).joined(separator: ", "))")
        }
        return found.filter { names.isEmpty || names.contains($0.name) }
    }

    private mutating func addOwn(_ vgwd: String, _ nullCipher: String) async {
        let command = [vgwd, "-f", "--state-dir", Lab().directory]
        if FileManager.default.fileExists(atPath: nullCipher) {
            var null = daemon("vgwd-null", command, ["LD_PRELOAD": nullCipher])
            null.provenBy = "null cipher"
            null.handshakeCipher = nil
            found.append(null)
        } else {
            absent.append(("vgwd-null", "no \(nullCipher): swift build -c release --product NullCipher"))
        }
        found.append(daemon("vgwd-chacha", command))
        let help = (try? await Shell.run("\(Shell.quote(vgwd)) --help")) ?? ""
        if !help.contains("--cipher") {
            absent.append(("vgwd-aes", "this vgwd has no --cipher"))
        } else if !Cipher.aes256GCM.isAvailable {
            absent.append(("vgwd-aes", "this machine has no AES that libsodium can use"))
        } else {
            let cipher = Cipher.aes256GCM.rawValue
            var aes = daemon("vgwd-aes", command + ["--cipher", cipher])
            aes.handshakeCipher = cipher
            found.append(aes)
        }
    }

    private func daemon(
        _ name: String, _ command: [String], _ environment: [String: String] = [:]
    ) -> Implementation {
        Implementation(
            name: name, kind: .wireGuard(command: command, environment: environment),
            handshakeCipher: Cipher.chacha20Poly1305.rawValue)
    }

    private mutating func program(_ program: String, for names: [String]) async -> String? {
        if let path = await Shell.find(program) { return path }
        for name in names { absent.append((name, "not installed (apt-get install \(program))")) }
        return nil
    }
}
