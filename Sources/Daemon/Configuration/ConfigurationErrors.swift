/// Where something stands in a configuration.
package struct SourceLine: Hashable, Sendable, Comparable, ExpressibleByIntegerLiteral,
    CustomStringConvertible
{
    /// Path of a file of the folder `conf.d`; nil is the configuration file itself.
    package var file: String?
    /// From 1.
    package var number: Int

    package init(_ number: Int, of file: String? = nil) {
        self.file = file
        self.number = number
    }

    package init(integerLiteral number: Int) { self.init(number) }

    package static func < (a: SourceLine, b: SourceLine) -> Bool {
        (a.file ?? "", a.number) < (b.file ?? "", b.number)
    }

    package var description: String { file.map { "\($0):\(number)" } ?? "line \(number)" }
}

/// One thing that is wrong with a configuration. Never holds a value that could be a secret.
package struct ConfigurationError: Error, Hashable, Sendable {
    /// Nil where it is about the file as a whole.
    package var line: SourceLine?
    /// `connection[aws-vpc].routes`: a list's element by its name where it has one, and by `#` and its place
    /// else.
    package var key: String
    package var problem: String
    /// What would be right.
    package var remedy: String

    package init(line: SourceLine?, key: String, problem: String, remedy: String) {
        self.line = line
        self.key = key
        self.problem = problem
        self.remedy = remedy
    }
}

extension ConfigurationError {
    package func text(path: String) -> String {
        let place = line.map { "\($0.file ?? path):\($0.number)" } ?? path
        return "\(place): \(key.isEmpty ? "" : "\(key): ")\(problem); \(remedy)"
    }
}

/// All that is wrong with a configuration. `description` is what vgwd prints before it exits with status 78.
package struct ConfigurationErrors: Error, Hashable, Sendable, CustomStringConvertible {
    /// EX_CONFIG of sysexits.
    package static let exitStatus: Int32 = 78

    package let path: String
    /// In the order of lines. Never empty.
    package let errors: [ConfigurationError]

    package init(path: String, errors: [ConfigurationError]) {
        self.path = path
        self.errors = errors.sorted { ($0.line ?? 0, $0.key) < ($1.line ?? 0, $1.key) }
    }

    /// A line each, in the form that editors jump to: `PATH:LINE: KEY: PROBLEM; REMEDY`.
    package var description: String {
        var lines = errors.map { $0.text(path: path) }
        lines.append(
            "\(errors.count == 1 ? "1 error" : "\(errors.count) errors"): nothing of this configuration was applied"
        )
        return lines.joined(separator: "\n")
    }
}
