internal import ArgumentParser
internal import Gateway
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
                          --right cloud --right-prefix 10.20.0.0/16 --right-endpoint vgw.example.com:51820

            It makes onprem-cloud/onprem and onprem-cloud/cloud, each with vgwd.toml, private.key and the pre-shared \
            key, and says what to do next.
            """)

    @Option(help: ArgumentHelp("Name of the left side.", valueName: "name"))
    var left: String?
    @Option(help: ArgumentHelp("A prefix behind the left side; may be repeated.", valueName: "prefix"))
    var leftPrefix: [String] = []
    @Option(help: ArgumentHelp("Where the right side reaches the left one.", valueName: "host:port"))
    var leftEndpoint: String?
    @Option(help: ArgumentHelp("The left end of the inside link.", valueName: "address/length"))
    var leftAddress = "169.254.100.1/30"

    @Option(help: ArgumentHelp("Name of the right side.", valueName: "name"))
    var right: String?
    @Option(help: ArgumentHelp("A prefix behind the right side; may be repeated.", valueName: "prefix"))
    var rightPrefix: [String] = []
    @Option(help: ArgumentHelp("Where the left side reaches the right one.", valueName: "host:port"))
    var rightEndpoint: String?
    @Option(help: ArgumentHelp("The right end of the inside link.", valueName: "address/length"))
    var rightAddress = "169.254.100.2/30"

    @Option(
        help: ArgumentHelp(
            "chacha20-poly1305, or aes-256-gcm where both ends are vgwd on processors with AES instructions.",
            valueName: "cipher"))
    var cipher = Cipher.chacha20Poly1305

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("The folder to write to. (default: LEFT-RIGHT)", valueName: "folder"))
    var output: String?

    func run() throws {
        let pair = try readPair()
        let folder = output ?? "\(pair.left.name)-\(pair.right.name)"
        let drafts = pair.drafts()
        try OutputFolder.write([
            OutputFolder(path: "\(folder)/\(pair.left.name)", files: drafts.left.files),
            OutputFolder(path: "\(folder)/\(pair.right.name)", files: drafts.right.files),
        ])
        print("\nWhat to do next:")
        print(pair.nextSteps(folder: folder).joined(separator: "\n"))
    }

    private func readPair() throws -> Pair {
        let isComplete =
            left != nil && right != nil && !leftPrefix.isEmpty && !rightPrefix.isEmpty
            && (leftEndpoint != nil || rightEndpoint != nil)
        guard isComplete || Terminal.isInteractive else {
            throw ValidationError(
                "without a terminal to ask on, these are needed: \(missing.joined(separator: ", "))")
        }
        let leftSide = try readSide(
            "left", name: left, prefixes: leftPrefix, endpoint: leftEndpoint, address: leftAddress,
            asksEndpoint: !isComplete)
        let rightSide = try readSide(
            "right", name: right, prefixes: rightPrefix, endpoint: rightEndpoint, address: rightAddress,
            asksEndpoint: !isComplete)
        return try Pair(left: leftSide, right: rightSide, cipher: cipher)
    }

    private var missing: [String] {
        var names: [String] = []
        if left == nil { names.append("--left") }
        if leftPrefix.isEmpty { names.append("--left-prefix") }
        if right == nil { names.append("--right") }
        if rightPrefix.isEmpty { names.append("--right-prefix") }
        if leftEndpoint == nil && rightEndpoint == nil { names.append("--left-endpoint or --right-endpoint") }
        return names
    }

    private func readSide(
        _ word: String, name: String?, prefixes: [String], endpoint: String?, address: String,
        asksEndpoint: Bool
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
            reached = try EndpointText.parse(endpoint, defaultPort: Pair.defaultPort)
        } else if asksEndpoint {
            reached = try given(nil, or: "Where \(name) is reached from outside (empty: it is not)") {
                (text: String) throws(Failure) in
                text.isEmpty ? nil : try EndpointText.parse(text, defaultPort: Pair.defaultPort)
            }
        } else {
            reached = nil
        }
        guard let inside = IPPrefix(address) else {
            throw Failure(
                .data, "'\(address)' is no address with a length",
                hint: "write 169.254.100.1/30, or 2001:db8::1/126")
        }
        return Pair.Side(
            name: name, prefixes: parsed, endpoint: reached, address: inside,
            listenPort: reached.flatMap { EndpointText.port(of: $0) } ?? Pair.defaultPort)
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
