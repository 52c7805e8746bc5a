internal import FoundationEssentials
internal import LinuxIO
package import WireGuard

// 1. TOMLKit parses the text; a text that is not TOML is one error, and the end.
// 2. Every section is read into its value, wrong ones left out and reported
//    (ConfigurationParser+*.swift).
// 3. What contradicts something elsewhere is looked for across the sections
//    (ConfigurationParser+Conflicts.swift).
// 4. What is right and may not work on this host now makes warnings (Surroundings.swift).
// 5. Without an error there is a configuration. With one there is none: nothing is ever half applied.
extension GatewayConfiguration {
    /// Bytes: some 400,000 prefixes.
    private static let sizeLimit = 16 << 20

    /// Reads the file and the keys that it names. Relative paths in it start at its folder. `surroundings` make
    /// warnings.
    package static func load(
        path: String = defaultPath, environment: [String: String] = ProcessInfo.processInfo.environment,
        owners: SystemFiles.Owners = .own, surroundings: Surroundings = Surroundings()
    ) throws(ConfigurationErrors) -> GatewayConfiguration {
        func fail(_ problem: String, _ remedy: String) -> ConfigurationErrors {
            ConfigurationErrors(
                path: path, errors: [ConfigurationError(line: nil, key: "", problem: problem, remedy: remedy)]
            )
        }
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try AtomicFile.read(path, limit: sizeLimit).bytes
        } catch {
            // errno of Linux, as `AtomicFile.read` throws it.
            switch error.code {
            case 2:  // ENOENT
                throw fail(
                    "there is no such file", "write one ('vgwctl pair' does), or name another with --config")
            case 13:  // EACCES
                throw fail("this user may not read it", "let vgwd's user own it and the folder that it is in")
            case 22: throw fail("is not a file", "name the TOML file itself")  // EINVAL
            case 27: throw fail("is longer than \(sizeLimit) bytes", "is this the right file?")  // EFBIG
            default: throw fail("cannot be read: \(SystemError.text(error.code))", "is this the right file?")
            }
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw fail("is not UTF-8 text", "is this the right file?")
        }
        return try parse(
            text, path: path, environment: environment,
            files: SystemFiles(
                credentialsDirectory: environment["CREDENTIALS_DIRECTORY"], owners: owners),
            surroundings: surroundings)
    }

    /// As `load`, with the text at hand. `path` is for the errors and for relative paths.
    package static func parse(
        _ text: String, path: String = defaultPath, environment: [String: String] = [:],
        files: some ConfigurationFiles, availableCiphers: [Cipher] = Cipher.available,
        surroundings: Surroundings = Surroundings()
    ) throws(ConfigurationErrors) -> GatewayConfiguration {
        let root: ConfigurationNode
        do {
            root = try ConfigurationNode(parsing: text)
        } catch {
            throw ConfigurationErrors(path: path, errors: [error])
        }
        var parser = ConfigurationParser(
            path: path, environment: environment, files: files, availableCiphers: availableCiphers,
            surroundings: surroundings)
        guard let configuration = parser.readDocument(root) else {
            throw ConfigurationErrors(path: path, errors: parser.reader.errors)
        }
        return configuration
    }
}

/// One pass over one document.
struct ConfigurationParser {
    var reader = ConfigurationReader()
    let path: String
    let environment: [String: String]
    let files: any ConfigurationFiles
    let availableCiphers: [Cipher]
    let surroundings: Surroundings

    init(
        path: String, environment: [String: String], files: any ConfigurationFiles,
        availableCiphers: [Cipher] = Cipher.available, surroundings: Surroundings = Surroundings()
    ) {
        self.path = path
        self.environment = environment
        self.files = files
        self.availableCiphers = availableCiphers
        self.surroundings = surroundings
    }

    mutating func readDocument(_ root: ConfigurationNode) -> GatewayConfiguration? {
        guard
            let document = reader.section(
                root, known: ["gateway", "connection", "control", "metrics", "hook"])
        else { return nil }
        var gateway: GatewayConfiguration?
        if let node = document["gateway"] {
            gateway = readGateway(node)
        } else {
            reader.report(
                document, "gateway", "is missing",
                "write [gateway] with private-key-file = \"/etc/vgwd/private.key\"")
        }
        let nodes = reader.elements(document, "connection")
        let connections = nodes.map { readConnection($0).map { sharingKey(of: gateway, $0) } }
        let control = readControl(document["control"])
        if let node = document["metrics"] { readMetrics(node) }
        let hooks = readHooks(document)

        findConflicts(document, nodes: nodes, connections: connections, gateway: gateway)
        guard reader.errors.isEmpty, var gateway else { return nil }
        gateway.connections = connections.compactMap { $0 }
        gateway.control = control
        gateway.hooks = hooks
        findObstacles(document, nodes: nodes, connections: connections, gateway: gateway)
        gateway.warnings = reader.warnings.sorted { ($0.line ?? 0, $0.key) < ($1.line ?? 0, $1.key) }
        return gateway
    }

    /// A tunnel whose key file holds the gateway's own key has none of its own: one key is one identity, and what
    /// comes for it must find all of its peers.
    private func sharingKey(
        of gateway: GatewayConfiguration?, _ connection: ConnectionConfiguration
    ) -> ConnectionConfiguration {
        var connection = connection
        for place in connection.tunnels.indices
        where connection.tunnels[place].privateKey?.publicKey == gateway?.privateKey.publicKey {
            connection.tunnels[place].privateKey = nil
        }
        return connection
    }

    /// A path of the configuration: relative ones start at its folder.
    func resolve(_ file: String) -> String {
        guard !file.hasPrefix("/"), let slash = path.lastIndex(of: "/") else { return file }
        return String(path[...slash]) + file
    }
}
