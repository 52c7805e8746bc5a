internal import ArgumentParser
internal import Daemon
internal import WireGuard

struct PairCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pair",
        abstract: "Write both ends' configurations of a new tunnel, with fresh keys.",
        discussion: """
            On a terminal it asks for what the options leave open. The two sides are called left and right; which is \
            which does not matter. A side that cannot be reached from outside has no endpoint and speaks first.

              vgwctl pair

              vgwctl pair --left onprem --left-prefix 192.168.10.0/24 \\
                  --right cloud --right-prefix 10.20.0.0/16 \\
                  --right-endpoint vgw.example.com:51820

            It makes onprem-cloud/onprem and onprem-cloud/cloud, each with vgwd.toml, private.key and the pre-shared \
            key, and says what to do next.

            A gateway that there is gets one site more by --add, with the folder of its configuration. It is the left \
            side then: it keeps its name, key, port and all that it has, and gets a file in conf.d beside its \
            configuration, with an inside link that is free:

              sudo vgwctl pair --add /etc/vgwd --left-prefix 192.168.10.0/24 \\
                  --right branch --right-prefix 10.30.0.0/16 \\
                  --right-endpoint 203.0.113.9
            """)

    @Option(
        help: ArgumentHelp(
            "Folder of a gateway that gets a connection more, as the left side.", valueName: "folder"))
    var add: String?

    @Option(help: ArgumentHelp("Name of the left side.", valueName: "name"))
    var left: String?
    @Option(help: ArgumentHelp("A prefix behind the left side; may be repeated.", valueName: "prefix"))
    var leftPrefix: [String] = []
    @Option(help: ArgumentHelp("Where the right side reaches the left one.", valueName: "host:port"))
    var leftEndpoint: String?
    @Option(
        help: ArgumentHelp(
            "The left end of the inside link. (default: 169.254.100.1/30, with --add the next that is free)",
            valueName: "address/length"))
    var leftAddress: String?

    @Option(help: ArgumentHelp("Name of the right side.", valueName: "name"))
    var right: String?
    @Option(help: ArgumentHelp("A prefix behind the right side; may be repeated.", valueName: "prefix"))
    var rightPrefix: [String] = []
    @Option(help: ArgumentHelp("Where the left side reaches the right one.", valueName: "host:port"))
    var rightEndpoint: String?
    @Option(
        help: ArgumentHelp(
            "The right end of the inside link. (default: 169.254.100.2/30, with --add the next that is free)",
            valueName: "address/length"))
    var rightAddress: String?

    @Option(
        help: ArgumentHelp(
            "chacha20-poly1305, or aes-256-gcm where both ends are vgwd on processors with AES instructions.",
            valueName: "cipher"))
    var cipher = Cipher.chacha20Poly1305

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("The folder to write to. (default: LEFT-RIGHT)", valueName: "folder"))
    var output: String?

    private static let firstLink = (left: "169.254.100.1/30", right: "169.254.100.2/30")

    func validate() throws {
        guard (leftAddress == nil) == (rightAddress == nil) else {
            throw ValidationError(
                "--left-address and --right-address are the two ends of one link: give both or none")
        }
        guard add == nil || left == nil else {
            throw ValidationError(
                "with --add the left side is the gateway in that folder, which has a name: leave --left out")
        }
    }

    func run() throws {
        if let add { return try addPair(to: ExistingGateway(folder: add)) }
        let pair = try readPair(nil)
        let folder = output ?? "\(pair.left.name)-\(pair.right.name)"
        let drafts = pair.drafts()
        for draft in [drafts.left, drafts.right] { try Self.check(draft) }
        try OutputFolder.write([
            OutputFolder(path: "\(folder)/\(pair.left.name)", files: drafts.left.files),
            OutputFolder(path: "\(folder)/\(pair.right.name)", files: drafts.right.files),
        ])
        print("\nWhat to do next:")
        print(pair.nextSteps(folder: folder).joined(separator: "\n"))
    }

    private func addPair(to gateway: ExistingGateway) throws {
        let pair = try readPair(gateway)
        let folder = output ?? "\(pair.left.name)-\(pair.right.name)"
        let configuration = gateway.configuration
        let (connection, draft) = pair.addition(
            to: configuration.privateKey.publicKey, port: configuration.listenPort)
        let files = pair.dropIn(connection)
        try gateway.check(files)
        try Self.check(draft)
        try OutputFolder.write([
            OutputFolder(path: gateway.dropInFolder, files: files),
            OutputFolder(path: "\(folder)/\(pair.right.name)", files: draft.files),
        ])
        print("\nWhat to do next:")
        print(pair.nextSteps(addedTo: gateway.folder, folder: folder).joined(separator: "\n"))
    }

    /// What vgwd does not take is not written.
    private static func check(_ draft: ConfigurationDraft) throws(Failure) {
        guard let error = draft.errors.first else { return }
        throw Failure(.data, "\(draft.name): \(error.key): \(error.problem)", hint: error.remedy)
    }

    private func readPair(_ gateway: ExistingGateway?) throws -> Pair {
        let isComplete = missing(gateway).isEmpty
        guard isComplete || Terminal.isInteractive else {
            throw ValidationError(
                "without a terminal to ask on, these are needed: \(missing(gateway).joined(separator: ", "))")
        }
        let link = try link(gateway)
        var leftSide = try readSide(
            "left", name: gateway?.configuration.name ?? left, prefixes: leftPrefix, endpoint: leftEndpoint,
            address: link.left, defaultPort: gateway?.listenPort ?? Pair.defaultPort,
            asksEndpoint: !isComplete)
        // Without an endpoint nobody sends to another port than the gateway's own.
        if let gateway, leftSide.endpoint == nil { leftSide.listenPort = gateway.configuration.listenPort }
        let rightSide = try readSide(
            "right", name: right, prefixes: rightPrefix, endpoint: rightEndpoint, address: link.right,
            defaultPort: Pair.defaultPort, asksEndpoint: !isComplete)
        return try Pair(left: leftSide, right: rightSide, cipher: cipher)
    }

    private func link(_ gateway: ExistingGateway?) throws(Failure) -> (left: IPPrefix, right: IPPrefix) {
        if leftAddress == nil, let gateway {
            guard let link = gateway.freeLink else {
                throw Failure(
                    .data, "no inside link of 169.254.0.0/16 is free in \(gateway.folder)",
                    hint: "Say which: --left-address fd00:1::1/126 --right-address fd00:1::2/126")
            }
            return link
        }
        var ends: [IPPrefix] = []
        for text in [leftAddress ?? Self.firstLink.left, rightAddress ?? Self.firstLink.right] {
            guard let end = IPPrefix(text) else {
                throw Failure(
                    .data, "'\(text)' is no address with a length",
                    hint: "write 169.254.100.1/30, or 2001:db8::1/126")
            }
            ends.append(end)
        }
        return (ends[0], ends[1])
    }

    private func missing(_ gateway: ExistingGateway?) -> [String] {
        var names: [String] = []
        if left == nil, gateway == nil { names.append("--left") }
        if leftPrefix.isEmpty { names.append("--left-prefix") }
        if right == nil { names.append("--right") }
        if rightPrefix.isEmpty { names.append("--right-prefix") }
        if leftEndpoint == nil && rightEndpoint == nil { names.append("--left-endpoint or --right-endpoint") }
        return names
    }

    private func readSide(
        _ word: String, name: String?, prefixes: [String], endpoint: String?, address: IPPrefix,
        defaultPort: UInt16, asksEndpoint: Bool
    ) throws(Failure) -> Pair.Side {
        let name = try given(name, or: "Name of the \(word) side", accept: Self.acceptName)
        let parsed: [IPPrefix]
        if prefixes.isEmpty {
            parsed = try given(
                nil, or: "Prefixes behind \(name) (10.20.0.0/16, …)", accept: Self.acceptPrefixes)
        } else {
            parsed = try Self.acceptPrefixes(prefixes.joined(separator: ","))
        }
        let reached: String?
        if let endpoint {
            reached = try EndpointText.parse(endpoint, defaultPort: defaultPort)
        } else if asksEndpoint {
            reached = try given(nil, or: "Where \(name) is reached from outside (empty: it is not)") {
                (text: String) throws(Failure) in
                text.isEmpty ? nil : try EndpointText.parse(text, defaultPort: defaultPort)
            }
        } else {
            reached = nil
        }
        return Pair.Side(
            name: name, prefixes: parsed, endpoint: reached, address: address,
            listenPort: reached.flatMap { EndpointText.port(of: $0) } ?? defaultPort)
    }

    /// The option's value, or the answer of the one at the terminal.
    private func given<Value>(
        _ option: String?, or question: String, accept: (String) throws(Failure) -> Value
    ) throws(Failure) -> Value {
        if let option { return try accept(option) }
        guard let value = Terminal.ask(question, accept: accept) else {
            throw Failure(.data, "the input ended before the question was answered")
        }
        return value
    }

    private static func acceptName(_ text: String) throws(Failure) -> String {
        guard Names.isValid(text) else {
            throw Failure(
                .data, "'\(text)' cannot be a name",
                hint: "use 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit")
        }
        return text
    }

    private static func acceptPrefixes(_ text: String) throws(Failure) -> [IPPrefix] {
        var prefixes: [IPPrefix] = []
        for part in text.split(whereSeparator: { $0 == "," || $0.isWhitespace }) {
            let prefix = try Prefixes.parse(String(part))
            if !prefixes.contains(prefix) { prefixes.append(prefix) }
        }
        guard !prefixes.isEmpty else {
            throw Failure(
                .data, "no prefix was named", hint: "write one or more: 10.20.0.0/16, 2001:db8:20::/48")
        }
        return prefixes
    }
}

/// On the command line as in a configuration.
extension Cipher: ExpressibleByArgument {}
