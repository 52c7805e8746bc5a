internal import FoundationEssentials
internal import GatewayCore
internal import Glibc
internal import LinuxIO
package import WireGuard

// 1. TOMLKit parses the text; a text that is not TOML is one error, and the end. So is done with each drop-in, whose lists
//    go behind those of the files before it.
// 2. Every section is read into its value, wrong ones left out and reported
//    (ConfigurationParser+*.swift).
// 3. What contradicts something elsewhere is looked for across the sections
//    (ConfigurationParser+Conflicts.swift).
// 4. What is right and may not work on this host now makes warnings (Surroundings.swift).
// 5. Without an error there is a configuration. With one there is none: nothing is ever half applied.
extension GatewayConfiguration {
    /// Bytes: some 400,000 prefixes.
    private static let sizeLimit = 16 << 20

    /// A file of the folder `conf.d` beside the configuration file.
    package struct DropIn: Hashable, Sendable {
        package let path: String
        package let text: String

        package init(path: String, text: String) {
            self.path = path
            self.text = text
        }
    }

    /// Name of the folder of drop-ins.
    package static let dropInFolder = "conf.d"

    /// Reads the file, the drop-ins beside it, and the keys that they name. Relative paths in a file start at its folder.
    /// `user` is the one who is going to run vgwd, nil the one who runs this process; files are opened as whoever the calling
    /// thread opens them as. `surroundings` make warnings. `dropIn` is read too, as if it were there, and `files` stand for those of the system.
    package static func load(
        path: String = defaultPath, environment: [String: String] = ProcessInfo.processInfo.environment,
        user: String? = nil, surroundings: Surroundings = Surroundings(),
        adding dropIn: DropIn? = nil,
        files: (any ConfigurationFiles)? = nil
    ) throws(ConfigurationErrors) -> GatewayConfiguration {
        let system = SystemFiles(credentialsDirectory: environment["CREDENTIALS_DIRECTORY"], user: user)
        let text = try read(path, system)
        var dropIns = try dropIns(beside: path, system)
        if let dropIn { dropIns = (dropIns + [dropIn]).sorted { $0.path < $1.path } }
        return try parse(
            text, path: path, dropIns: dropIns, environment: environment,
            files: files ?? system, surroundings: surroundings)
    }

    /// As `load`, with the texts at hand. `path` is for the errors and for relative paths.
    package static func parse(
        _ text: String, path: String = defaultPath, dropIns: [DropIn] = [],
        environment: [String: String] = [:],
        files: any ConfigurationFiles, availableCiphers: [Cipher] = Cipher.available,
        surroundings: Surroundings = Surroundings()
    ) throws(ConfigurationErrors) -> GatewayConfiguration {
        var root = try document(path: path) { () throws(ConfigurationError) in
            try ConfigurationNode(parsing: text)
        }
        for dropIn in dropIns {
            root = try document(path: dropIn.path) { () throws(ConfigurationError) in
                try root.adding(ConfigurationNode(parsing: dropIn.text, file: dropIn.path))
            }
        }
        var parser = ConfigurationParser(
            path: path, environment: environment, files: files, availableCiphers: availableCiphers,
            surroundings: surroundings)
        guard var configuration = parser.readDocument(root) else {
            throw ConfigurationErrors(path: path, errors: parser.reader.errors)
        }
        configuration.dropIns = dropIns.map(\.path)
        return configuration
    }

    private static func document(
        path: String, _ read: () throws(ConfigurationError) -> ConfigurationNode
    ) throws(ConfigurationErrors) -> ConfigurationNode {
        do throws(ConfigurationError) { return try read() } catch {
            throw ConfigurationErrors(path: path, errors: [error])
        }
    }

    // MARK: Files

    private static func fail(_ path: String, _ problem: String, _ remedy: String) -> ConfigurationErrors {
        ConfigurationErrors(
            path: path, errors: [ConfigurationError(line: nil, key: "", problem: problem, remedy: remedy)])
    }

    private static func read(
        _ path: String, _ files: SystemFiles
    ) throws(ConfigurationErrors) -> String {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try AtomicFile.read(path, limit: sizeLimit).bytes
        } catch {
            // errno of Linux, as `AtomicFile.read` throws it.
            switch error.code {
            case ENOENT:
                throw fail(
                    path, "there is no such file",
                    "write one ('vgwctl pair' does), or name another with --config")
            case EACCES:
                let refusal = files.refusal(of: .read, at: path)
                throw fail(path, refusal.problem, refusal.remedy)
            case 22: throw fail(path, "is not a file", "name the TOML file itself")  // EINVAL
            case EFBIG:
                throw fail(path, "is longer than \(sizeLimit) bytes", "is this the right file?")
            default:
                throw fail(
                    path, "cannot be read: \(SystemError.text(error.code))", "is this the right file?")
            }
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw fail(path, "is not UTF-8 text", "is this the right file?")
        }
        return text
    }

    /// `conf.d/*.toml` in the order of their names, as `ls` under LC_ALL=C has them; hidden ones are not read.
    private static func dropIns(
        beside path: String, _ files: SystemFiles
    ) throws(ConfigurationErrors) -> [DropIn] {
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) + dropInFolder } ?? dropInFolder
        guard FileStatus(folder)?.kind == .directory else { return [] }
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: folder)
        } catch {
            let refusal = files.refusal(of: .read, at: folder)
            throw fail(folder, refusal.problem, "let vgwd's user own it, with mode 0700")
        }
        var dropIns: [DropIn] = []
        for name in names.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) })
        where name.hasSuffix(".toml") && !name.hasPrefix(".") {
            dropIns.append(DropIn(path: "\(folder)/\(name)", text: try read("\(folder)/\(name)", files)))
        }
        return dropIns
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

        if let gateway { refuseObstacles(document, gateway, control) }
        findConflicts(document, nodes: nodes, connections: connections, gateway: gateway)
        guard reader.errors.isEmpty, var gateway else { return nil }
        gateway.connections = connections.compactMap { $0 }
        gateway.control = control
        gateway.hooks = hooks
        guessSources(&gateway)
        findObstacles(document, nodes: nodes, connections: connections, gateway: gateway)
        gateway.warnings = reader.warnings.sorted { ($0.line ?? 0, $0.key) < ($1.line ?? 0, $1.key) }
        return gateway
    }

    /// A tunnel whose key file holds the gateway's own key has none of its own: one key is one identity, and what
    /// comes for it must find all of its peers.
    private func sharingKey(
        of gateway: GatewayConfiguration?, _ connection: ConnectionSpec
    ) -> ConnectionSpec {
        var connection = connection
        for place in connection.tunnels.indices
        where connection.tunnels[place].privateKey?.publicKey == gateway?.privateKey.publicKey {
            connection.tunnels[place].privateKey = nil
        }
        return connection
    }

    /// A path of the configuration: relative ones start at the folder of the file that names them.
    func resolve(_ file: String, in node: ConfigurationNode) -> String {
        let path = node.line?.file ?? path
        guard !file.hasPrefix("/"), let slash = path.lastIndex(of: "/") else { return file }
        return String(path[...slash]) + file
    }
}
