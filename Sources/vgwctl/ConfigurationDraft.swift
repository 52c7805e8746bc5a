internal import WireGuard

/// A configuration about to be written, as TOML beside its key files. `pair` and `import` make one.
struct ConfigurationDraft {
    var comment: [String] = []
    var name: String
    var interface = "vgw0"
    var listenPort: UInt16?
    var addresses: [String] = []
    var mtu: Int?
    /// As the configuration has it: `"off"`, `51820`.
    var firewallMark: String?
    var table: String?
    var privateKey: PrivateKey
    var connections: [Connection] = []

    struct Connection {
        var name: String
        var routes: [IPPrefix]
        var publicKey: PublicKey
        var presharedKey: PresharedKey?
        var cipher = Cipher.chacha20Poly1305
        var endpoint: String?
        /// Seconds; 0 is off.
        var persistentKeepalive: UInt16 = 0

        var presharedKeyFile: String { "\(name).psk" }
    }

    static let configurationFile = "vgwd.toml"
    static let privateKeyFile = "private.key"

    /// Every file by its name. Keys are named relative to the folder, so that it can be moved as a whole.
    var files: [(name: String, text: String)] {
        [
            (Self.configurationFile, toml), (Self.privateKeyFile, privateKey.exportBase64() + "\n"),
        ]
            + connections.compactMap { connection in
                connection.presharedKey.map { (connection.presharedKeyFile, $0.exportBase64() + "\n") }
            }
    }

    var toml: String {
        var lines = comment.map { "# \($0)" }
        lines += ["", "[gateway]", "name = \(quoted(name))", "interface = \(quoted(interface))"]
        if let listenPort { lines.append("listen-port = \(listenPort)") }
        lines.append("private-key-file = \(quoted(Self.privateKeyFile))")
        if !addresses.isEmpty { lines.append("address = \(list(addresses))") }
        lines.append("mtu = \(mtu.map { String($0) } ?? quoted("auto"))")
        if let firewallMark { lines.append("firewall-mark = \(firewallMark)") }
        if let table { lines.append("table = \(table)") }
        for connection in connections {
            lines += [
                "", "[[connection]]", "name = \(quoted(connection.name))",
                "routes = \(list(connection.routes.map(\.description)))", "", "[[connection.tunnel]]",
                "public-key = \(quoted(connection.publicKey.base64))",
            ]
            if connection.presharedKey != nil {
                lines.append("preshared-key-file = \(quoted(connection.presharedKeyFile))")
            }
            if connection.cipher != .chacha20Poly1305 {
                lines.append("cipher = \(quoted(connection.cipher.rawValue))")
            }
            if let endpoint = connection.endpoint { lines.append("endpoint = [\(quoted(endpoint))]") }
            if connection.persistentKeepalive > 0 {
                lines.append("persistent-keepalive = \"\(connection.persistentKeepalive)s\"")
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private func list(_ items: [String]) -> String { "[" + items.map(quoted).joined(separator: ", ") + "]" }

    /// A basic string of TOML 1.0.
    private func quoted(_ text: String) -> String {
        let escaped = text.unicodeScalars.reduce(into: "") { result, scalar in
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let hex = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: result.unicodeScalars.append(scalar)
            }
        }
        return "\"\(escaped)\""
    }
}

/// Names that the configuration takes.
enum DraftName {
    static func isValid(_ text: String) -> Bool {
        guard (1...63).contains(text.utf8.count), let first = text.first, first.isASCII,
            first.isLetter || first.isNumber
        else { return false }
        return text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
    }

    /// `text` as a name: other characters become dashes. Nil when nothing is left.
    static func derived(from text: String) -> String? {
        let mapped = text.lowercased().map { character in
            character.isASCII && (character.isLetter || character.isNumber || "._-".contains(character))
                ? character : "-"
        }
        let name = String(mapped.drop { !($0.isLetter || $0.isNumber) }.prefix(63))
        let trimmed = String(name.reversed().drop { $0 == "-" }.reversed())
        return isValid(trimmed) ? trimmed : nil
    }
}

/// The far end's address as the configuration takes it: `host:port`, `192.0.2.1:51820`,
/// `[2001:db8::1]:51820`.
enum EndpointText {
    static func port(of text: String) -> UInt16? {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        return UInt16(text[text.index(after: colon)...])
    }

    /// With `defaultPort` where the text has none.
    static func parse(_ text: String, defaultPort: UInt16?) throws(Failure) -> String {
        let example = "write vgw.example.com:51820, 192.0.2.1:51820 or [2001:db8::1]:51820"
        if let address = IPAddress(text), let defaultPort {
            return Endpoint(address: address, port: defaultPort).description
        }
        let hasPort = text.contains(":") && !text.hasSuffix("]")
        guard hasPort || defaultPort != nil else {
            throw Failure(.data, "'\(text)' has no port", hint: example)
        }
        let whole = hasPort ? text : "\(text):\(defaultPort ?? 0)"
        guard let port = port(of: whole), port > 0 else {
            throw Failure(.data, "'\(text)' has no port from 1 to 65535", hint: example)
        }
        if Endpoint(whole) != nil { return whole }
        let host = whole.dropLast(String(port).count + 1)
        let isName =
            !host.isEmpty && host.utf8.count <= 253 && !host.hasPrefix("-")
            && host.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
            && host.contains { $0.isLetter }
        guard isName, "\(host):\(port)" == whole else {
            throw Failure(.data, "'\(text)' is neither an address nor a host name with a port", hint: example)
        }
        return whole
    }
}
