internal import TOMLKit

/// A parsed document with the line and the readable path of each value.
struct ConfigurationNode {
    enum Value {
        case table([String: ConfigurationNode])
        case list([ConfigurationNode])
        case string(String)
        case integer(Int)
        case boolean(Bool)
        /// Dates and fractions: `SourceLines` has refused them before.
        case other
    }

    let value: Value
    let line: SourceLine?
    /// The key, but for a nameless element of a list its list's: a list may have 100,000, and few are ever named.
    private let stem: String
    private let index: Int?

    /// `connection[aws-vpc].tunnel[#1].endpoint`
    var key: String { Self.key(stem, index) }

    private static func key(_ stem: String, _ index: Int?) -> String {
        index.map { "\(stem)[#\($0 + 1)]" } ?? stem
    }

    /// The file's path where it is one of `conf.d`. Throws what the parser found: one error, as nothing after it can be
    /// told.
    init(parsing text: String, file: String? = nil) throws(ConfigurationError) {
        // The parser takes the text as a string of C, and would not see what is behind a zero.
        guard !text.utf8.contains(0) else {
            throw ConfigurationError(
                line: nil, key: "", problem: "not TOML: a zero byte", remedy: "is this the right file?")
        }
        let places: SourceLines
        do {
            places = try SourceLines(text)
        } catch {
            throw ConfigurationError(
                line: SourceLine(error.line, of: file), key: "", problem: "not TOML: \(error.problem)",
                remedy: error.remedy)
        }
        do {
            let table = try TOMLTable(string: text)
            self.init(table, key: "", place: places.document, file: file, inheritedLine: nil)
        } catch let error as TOMLParseError {
            throw ConfigurationError(
                line: SourceLine(error.source.begin.line, of: file), key: "",
                problem: "not TOML: " + Redaction.hidingKeys(in: error.description, from: 20),
                remedy: "values are \"text\", 123, true, [lists] or { tables = \"inline\" } (https://toml.io)"
            )
        } catch {
            throw ConfigurationError(line: nil, key: "", problem: "not TOML", remedy: "see https://toml.io")
        }
    }

    private init(
        _ source: any TOMLValueConvertible, key: String, index: Int? = nil, place: SourceLines.Place?,
        file: String?, inheritedLine: SourceLine?
    ) {
        let line = place?.line.map { SourceLine($0, of: file) } ?? inheritedLine
        self.line = line
        stem = key
        self.index = index
        if let string = source.string {
            value = .string(string)
        } else if let table = source.table {
            let key = Self.key(key, index)
            var entries: [String: ConfigurationNode] = [:]
            for name in table.keys {
                guard let child = table[name] else { continue }
                entries[name] = ConfigurationNode(
                    child, key: key.isEmpty ? name : "\(key).\(name)", place: place?.keys[name],
                    file: file, inheritedLine: line)
            }
            value = .table(entries)
        } else if let array = source.array {
            let key = Self.key(key, index)
            let places = place?.items ?? []
            value = .list(
                (0..<array.count).map { index in
                    let child = array[index]
                    let name = Self.name(of: child)
                    return ConfigurationNode(
                        child, key: name.map { "\(key)[\($0)]" } ?? key, index: name == nil ? index : nil,
                        place: index < places.count ? places[index] : nil, file: file, inheritedLine: line)
                })
        } else if let integer = source.int {
            value = .integer(integer)
        } else if let boolean = source.bool {
            value = .boolean(boolean)
        } else {
            value = .other
        }
    }

    private init(value: Value, line: SourceLine?, key: String) {
        self.value = value
        self.line = line
        stem = key
        index = nil
    }

    /// The document with the tables and lists of another file behind its own. What is no list can be in one file only.
    func adding(_ other: ConfigurationNode) throws(ConfigurationError) -> ConfigurationNode {
        guard case .table(var entries) = value, case .table(let more) = other.value else { return self }
        for (name, entry) in more.sorted(by: { ($0.value.line ?? 0) < ($1.value.line ?? 0) }) {
            guard let there = entries[name] else {
                entries[name] = entry
                continue
            }
            guard case .list(let items) = there.value, case .list(let rest) = entry.value else {
                throw ConfigurationError(
                    line: entry.line, key: entry.key,
                    problem: "is there already\(there.line.map { " (\($0))" } ?? "")",
                    remedy: "say it in one file; each may add [[connection]] and [[hook]]")
            }
            entries[name] = ConfigurationNode(value: .list(items + rest), line: there.line, key: there.key)
        }
        return ConfigurationNode(value: .table(entries), line: line, key: key)
    }

    /// An element is known by its name where it has a usable one, as an operator does not count.
    private static func name(of element: any TOMLValueConvertible) -> String? {
        guard let name = element.table?["name"]?.string, Names.isValid(name) else { return nil }
        return name
    }

    /// What was written, for an error: `a number`.
    var kind: String {
        switch value {
        case .table: "a table"
        case .list: "a list"
        case .string: "text"
        case .integer: "a number"
        case .boolean: "true or false"
        case .other: "a fraction or a date"
        }
    }
}
