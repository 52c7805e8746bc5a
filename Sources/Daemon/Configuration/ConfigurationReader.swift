internal import ControlAPI
internal import WireGuard

/// Takes values out of a parsed document by type, and collects what is wrong instead of stopping at it.
struct ConfigurationReader {
    private(set) var errors: [ConfigurationError] = []
    /// What does not keep the configuration from being applied.
    private(set) var warnings: [ConfigurationError] = []

    /// A table while its keys are being read.
    struct Section {
        let node: ConfigurationNode
        fileprivate let entries: [String: ConfigurationNode]

        func key(_ name: String) -> String { node.key.isEmpty ? name : "\(node.key).\(name)" }
        func line(_ name: String) -> SourceLine? { entries[name]?.line ?? node.line }
        func has(_ name: String) -> Bool { entries[name] != nil }
        subscript(name: String) -> ConfigurationNode? { entries[name] }
    }

    mutating func report(_ node: ConfigurationNode, _ problem: String, _ remedy: String) {
        errors.append(ConfigurationError(line: node.line, key: node.key, problem: problem, remedy: remedy))
    }

    mutating func warn(_ node: ConfigurationNode, _ problem: String, _ remedy: String) {
        warnings.append(ConfigurationError(line: node.line, key: node.key, problem: problem, remedy: remedy))
    }

    /// About a key that may be absent: then it is about the line of its table.
    mutating func report(_ section: Section, _ name: String, _ problem: String, _ remedy: String) {
        errors.append(
            ConfigurationError(
                line: section.line(name), key: section.key(name), problem: problem, remedy: remedy))
    }

    mutating func refuse(_ node: ConfigurationNode, _ feature: String, instead: String) {
        report(node, "\(feature): not in this version", instead)
    }

    /// Whether something is wrong with what was read at this very place.
    func hasError(at node: ConfigurationNode?) -> Bool {
        guard let node, !errors.isEmpty else { return false }
        return errors.contains { $0.line == node.line && $0.key == node.key }
    }

    // MARK: Tables

    /// Reports each key that is not in `known`, with the one that was probably meant.
    mutating func section(_ node: ConfigurationNode, known: [String]) -> Section? {
        guard case .table(let entries) = node.value else {
            report(node, "is \(node.kind)", "write it as a table: [\(node.key)]")
            return nil
        }
        for (name, entry) in entries where !known.contains(name) {
            let remedy: String
            if let instead = Self.foreignKeys[name.lowercased().filter { $0 != "-" && $0 != "_" }],
                known.contains(instead.key)
            {
                remedy = instead.advice
            } else if let near = Names.nearest(to: name, in: known) {
                remedy = "did you mean '\(near)'?"
            } else {
                remedy = "known here: \(known.sorted().joined(separator: ", "))"
            }
            // A name may be anything, a key pasted on the wrong side of `=` too.
            let shown = Redaction.hidingKeys(in: String(name.prefix(64)))
            let path = node.key.isEmpty ? shown : "\(node.key).\(shown)"
            errors.append(
                ConfigurationError(line: entry.line, key: path, problem: "unknown key", remedy: remedy))
        }
        return Section(node: node, entries: entries)
    }

    /// What people used to wg-quick write, by what it is called here.
    private static let foreignKeys: [String: (key: String, advice: String)] = [
        "privatekey": (
            "private-key-file",
            "did you mean 'private-key-file'? Keys are in files of their own, with mode 0600"
        ),
        "presharedkey": (
            "preshared-key-file",
            "did you mean 'preshared-key-file'? Keys are in files of their own, with mode 0600"
        ),
        "allowedips": ("routes", "did you mean 'routes' of the [[connection]]?"),
        "dns": ("address", "vgwd leaves this host's name resolution alone: leave it out"),
        "fwmark": ("firewall-mark", "did you mean 'firewall-mark'?"),
    ]

    /// The tables of `[[name]]`; none when it is absent.
    mutating func elements(_ section: Section, _ name: String) -> [ConfigurationNode] {
        guard let node = section[name] else { return [] }
        guard case .list(let items) = node.value else {
            report(node, "is \(node.kind)", "write it as a list of tables: [[\(node.key.withoutIndices)]]")
            return []
        }
        return items
    }

    // MARK: Scalars

    mutating func string(_ section: Section, _ name: String, example: String) -> String? {
        guard let node = section[name] else { return nil }
        guard case .string(let text) = node.value else {
            report(node, "is \(node.kind)", "write text: \(example)")
            return nil
        }
        guard !text.isEmpty else {
            report(node, "is empty", "write \(example), or leave the key out")
            return nil
        }
        return isPlain(node, text) ? text : nil
    }

    /// A control character in a name or a path would be an order to the terminal that shows it, and a NUL its end.
    private mutating func isPlain(
        _ node: ConfigurationNode, _ text: String, mayHaveLines: Bool = false
    ) -> Bool {
        guard !Printable.isPlain(mayHaveLines ? text.filter { $0 != "\n" && $0 != "\t" } : text) else {
            return true
        }
        report(node, "has a control character in it", "write it without, also without \\u and \\n")
        return false
    }

    mutating func boolean(_ section: Section, _ name: String) -> Bool? {
        guard let node = section[name] else { return nil }
        guard case .boolean(let value) = node.value else {
            report(node, "is \(node.kind)", "write true or false")
            return nil
        }
        return value
    }

    mutating func integer(_ section: Section, _ name: String, in range: ClosedRange<Int>, meaning: String)
        -> Int?
    {
        guard let node = section[name] else { return nil }
        guard case .integer(let number) = node.value else {
            report(node, "is \(node.kind)", "write a number from \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        guard range.contains(number) else {
            report(
                node, "\(number) is not \(meaning)",
                "write a number from \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        return number
    }

    /// A single text counts as a list of one. With `mayHaveLines` line ends and tabs are taken, as in a script.
    mutating func strings(
        _ section: Section, _ name: String, example: String, mayHaveLines: Bool = false
    ) -> [(ConfigurationNode, String)]? {
        guard let node = section[name] else { return nil }
        switch node.value {
        case .string(let text):
            return isPlain(node, text, mayHaveLines: mayHaveLines) ? [(node, text)] : nil
        case .list(let items):
            var result: [(ConfigurationNode, String)] = []
            for item in items {
                if case .string(let text) = item.value {
                    if isPlain(item, text, mayHaveLines: mayHaveLines) { result.append((item, text)) }
                } else {
                    report(item, "is \(item.kind)", "write text: \(example)")
                }
            }
            return result
        default:
            report(node, "is \(node.kind)", "write a list: [\(example)]")
            return nil
        }
    }

    /// True leaves the offload to the probe; absent is true.
    mutating func offload(_ section: Section, _ name: String) -> Bool {
        guard let node = section[name] else { return true }
        switch node.value {
        case .boolean(let value): return value
        case .string("auto"): return true
        case .string("off"): return false
        default:
            report(node, "is no switch", "write \"auto\" to use it where the kernel can, or \"off\"")
            return true
        }
    }

    mutating func name(_ section: Section, _ name: String, required: Bool) -> String? {
        guard section.has(name) else {
            if required { report(section, name, "is missing", "write \(name) = \"a-name\"") }
            return nil
        }
        guard let text = string(section, name, example: "\"aws-vpc\""), let node = section[name] else {
            return nil
        }
        guard Names.isValid(text) else {
            report(
                node, "\(quoted(text)) cannot be a name",
                "use 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit")
            return nil
        }
        return text
    }

    /// For an error: what was written, unless it could be a secret.
    func quoted(_ text: String) -> String {
        Redaction.looksLikeKey(text)
            ? "this text" : "\"\(Redaction.hidingKeys(in: String(text.prefix(80))))\""
    }

    // MARK: Prefixes

    /// Routes: a prefix without host bits.
    mutating func prefix(_ node: ConfigurationNode, _ text: String) -> IPPrefix? {
        guard let prefix = IPPrefix(text) else {
            report(
                node, "\(quoted(text)) is no prefix",
                "write an address and a length: \"10.20.0.0/16\", \"2001:db8::/48\"")
            return nil
        }
        guard prefix == prefix.network else {
            report(
                node, "\(text) has bits set past its length",
                "write \"\(prefix.network)\", or \"\(IPPrefix(host: prefix.address))\" for the one address")
            return nil
        }
        return prefix
    }
}

extension String {
    /// `connection[#1].tunnel` → `connection.tunnel`
    fileprivate var withoutIndices: String {
        var depth = 0
        return filter { character in
            if character == "[" { depth += 1 }
            defer { if character == "]" { depth -= 1 } }
            return depth == 0
        }
    }
}
