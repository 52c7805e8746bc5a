/// A [[connection]] of vgwd's file, where a test needs more than `Gateway.Settings` has words for.
struct ConnectionText: Sendable {
    struct TunnelText: Sendable {
        var name: String
        var publicKey: String
        /// Its own; nil is the gateway's.
        var privateKey: String?
        /// Further lines, in TOML.
        var lines: [String]
    }

    var name: String
    var routes: [String]
    /// Further lines, in TOML.
    var lines: [String]
    var tunnels: [TunnelText]

    /// - Parameter keyFile: writes a private key of the tunnel of that name, and returns the file's path.
    func toml(keyFile: (_ tunnel: String, _ key: String) throws -> String) rethrows -> String {
        let prefixes = routes.map { "\"\($0)\"" }.joined(separator: ", ")
        var text = """

            [[connection]]
            name = "\(name)"
            routes = [\(prefixes)]
            \(lines.joined(separator: "\n"))

            """
        for tunnel in tunnels {
            text += """

                [[connection.tunnel]]
                name = "\(tunnel.name)"
                public-key = "\(tunnel.publicKey)"
                \(tunnel.lines.joined(separator: "\n"))

                """
            if let key = tunnel.privateKey {
                text += "private-key-file = \"\(try keyFile(tunnel.name, key))\"\n"
            }
        }
        return text
    }
}
