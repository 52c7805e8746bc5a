internal import ControlAPI
internal import Daemon
internal import GatewayCore
internal import LinuxIO
internal import WireGuard

/// A configuration about to be written, as TOML beside its key files. `pair` and `import` make one.
struct ConfigurationDraft {
    var comment: [String] = []
    var name: String
    var interface = GatewayConfiguration.defaultInterface
    var listenPort: UInt16?
    var addresses: [String] = []
    var mtu: Int?
    /// As the configuration has it: `"off"`, `51820`.
    var firewallMark: String?
    var table: String?
    var makesRules = true
    var privateKey: PrivateKey
    var connections: [Connection] = []
    var hooks: [Hook] = []

    struct Connection {
        var name: String
        var routes: [IPPrefix]
        var publicKey: PublicKey
        var presharedKey: PresharedKey?
        var cipher = Cipher.chacha20Poly1305
        var endpoint: String?
        /// Ours in this tunnel; nil is the gateway's.
        var listenPort: UInt16?
        var inside: InsideLink?
        /// Seconds; 0 is off.
        var persistentKeepalive: UInt16 = 0

        var presharedKeyFile: String { "\(name).psk" }
    }

    struct Hook {
        var comment: String
        var on: GatewayEvent.Kind
        var run: [String]
    }

    static let folder = "/etc/vgwd"
    static let configurationFile = "vgwd.toml"
    static let privateKeyFile = "private.key"

    /// Every file by its name. Keys are named relative to the folder, so that it can be moved as a whole.
    var files: [DraftFile] {
        [
            DraftFile(name: Self.configurationFile, text: toml),
            DraftFile(name: Self.privateKeyFile, text: privateKey.exportBase64() + "\n"),
        ] + connections.compactMap(\.keyFile)
    }

    var toml: String {
        var lines = comment.map { "# \($0)" }
        lines += ["", "[gateway]", "name = \(TOMLText.quoted(name))"]
        lines.append("interface = \(TOMLText.quoted(interface))")
        if let listenPort { lines.append("listen-port = \(listenPort)") }
        lines.append("private-key-file = \(TOMLText.quoted(Self.privateKeyFile))")
        if !addresses.isEmpty { lines.append("address = \(TOMLText.list(addresses))") }
        lines.append("mtu = \(mtu.map { String($0) } ?? TOMLText.quoted("auto"))")
        if let firewallMark { lines.append("firewall-mark = \(firewallMark)") }
        if let table { lines.append("table = \(table)") }
        if !makesRules { lines.append("rules = false") }
        for connection in connections { lines += [""] + connection.lines }
        for hook in hooks {
            lines += [
                "", "# \(hook.comment)", "[[hook]]", "on = \(TOMLText.list([hook.on.rawValue]))",
                "run = \(TOMLText.list(hook.run))",
            ]
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// What vgwd would say of these files, where its unit looks for them. Ciphers of other processors count too: they may
    /// be taken there.
    var errors: [ConfigurationError] {
        let texts = files.map { ("\(Self.folder)/\($0.name)", $0.text) }
        do {
            _ = try GatewayConfiguration.parse(
                toml, path: "\(Self.folder)/\(Self.configurationFile)",
                files: DraftFiles(texts: Dictionary(uniqueKeysWithValues: texts)),
                availableCiphers: Cipher.allCases)
            return []
        } catch {
            return error.errors
        }
    }
}

/// A file about to be written.
struct DraftFile: Hashable {
    let name: String
    let text: String
}

extension ConfigurationDraft.Connection {
    /// Nil without a pre-shared key.
    var keyFile: DraftFile? {
        presharedKey.map { DraftFile(name: presharedKeyFile, text: $0.exportBase64() + "\n") }
    }

    var lines: [String] {
        var lines = [
            "[[connection]]", "name = \(TOMLText.quoted(name))",
            "routes = \(TOMLText.list(routes.map(\.description)))", "", "[[connection.tunnel]]",
            "public-key = \(TOMLText.quoted(publicKey.base64))",
        ]
        if presharedKey != nil {
            lines.append("preshared-key-file = \(TOMLText.quoted(presharedKeyFile))")
        }
        if cipher != .chacha20Poly1305 { lines.append("cipher = \(TOMLText.quoted(cipher.rawValue))") }
        if let endpoint { lines.append("endpoint = \(TOMLText.list([endpoint]))") }
        if let listenPort { lines.append("listen-port = \(listenPort)") }
        if let inside {
            let (local, remote) = ("\(inside.local)", "\(inside.remote)")
            lines.append(
                "inside = { local = \(TOMLText.quoted(local)), remote = \(TOMLText.quoted(remote)) }")
        }
        if persistentKeepalive > 0 { lines.append("persistent-keepalive = \"\(persistentKeepalive)s\"") }
        return lines
    }
}

/// TOML 1.0.
enum TOMLText {
    static func list(_ items: [String]) -> String { "[" + items.map(quoted).joined(separator: ", ") + "]" }

    /// A basic string.
    static func quoted(_ text: String) -> String {
        let escaped = text.unicodeScalars.reduce(into: "") { result, scalar in
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let hex = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: result.unicodeScalars.append(scalar)
            }
        }
        return "\"\(escaped)\""
    }
}

/// The files of a draft as vgwd would find them, and below them those that are there.
struct DraftFiles: ConfigurationFiles {
    /// By path.
    var texts: [String: String]
    /// Nil: there are no others.
    var below: SystemFiles?

    func key(at path: String) throws(FileProblem) -> SecretBytes? {
        if let text = texts[path] { return SecretBytes(base64: text.trimmed.utf8) }
        guard let below else {
            throw FileProblem(problem: "there is no \(path)", remedy: "this is a fault of vgwctl: report it")
        }
        return try below.key(at: path)
    }

    func tampering(with path: String) -> FileProblem? {
        texts[path] == nil ? below?.tampering(with: path) : nil
    }

    func obstacle(to access: FileAccess, at path: String) -> FileProblem? {
        texts[path] == nil ? below?.obstacle(to: access, at: path) : nil
    }

    func obstacle(to kind: FileStatus.Kind, at path: String) -> FileProblem? {
        below?.obstacle(to: kind, at: path)
    }
}

/// Names of connections and tunnels.
enum DraftName {
    /// `text` as a name: other characters become dashes. Nil when nothing is left.
    static func derived(from text: String) -> String? {
        var name = ""
        for character in text.lowercased() {
            let isTaken =
                character.isASCII && (character.isLetter || character.isNumber || "._-".contains(character))
            if isTaken {
                name.append(character)
            } else if let letter = Self.plain(character) {
                name += letter
            } else if !name.hasSuffix("-") {
                name.append("-")
            }
        }
        let start = name.drop { !($0.isLetter || $0.isNumber) }.prefix(63)
        let trimmed = String(start.reversed().drop { $0 == "-" }.reversed())
        return Names.isValid(trimmed) ? trimmed : nil
    }

    /// A Latin letter without its marks, as whoever has no key for it types it; nil for other characters.
    private static func plain(_ character: Character) -> String? {
        if let written = ["ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "oe", "å": "aa"][
            character]
        {
            return written
        }
        return marked.first { $0.value.contains(character) }?.key
    }

    private static let marked: [String: String] = [
        "a": "àáâãāăą", "c": "çćčĉċ", "d": "ďđ", "e": "èéêëēėęě", "g": "ğĝģ", "h": "ĥħ", "i": "ìíîïīįı",
        "k": "ķ", "l": "łľĺļ", "n": "ñńňņ", "o": "òóôõōő", "r": "řŕ", "s": "śšşșŝ", "t": "ťţțŧ",
        "u": "ùúûūůűų", "w": "ŵ", "y": "ýÿŷ", "z": "źžż",
    ]
}

/// The far end's address as the configuration takes it: `host:port`, `192.0.2.1:51820`, `[2001:db8::1]:51820`.
enum EndpointText {
    static func port(of text: String) -> UInt16? {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        return UInt16(text[text.index(after: colon)...])
    }

    /// With `defaultPort` where the text has none.
    static func parse(_ text: String, defaultPort: UInt16?) throws(Failure) -> String {
        do throws(EndpointName.Problem) {
            return try EndpointName.parse(whole(text, defaultPort)).description
        } catch {
            throw Failure(.data, error.problem, hint: error.remedy)
        }
    }

    private static func whole(_ text: String, _ defaultPort: UInt16?) -> String {
        guard let defaultPort else { return text }
        if let address = IPAddress(text) { return Endpoint(address: address, port: defaultPort).description }
        return text.contains(":") && !text.hasSuffix("]") ? text : "\(text):\(defaultPort)"
    }
}
