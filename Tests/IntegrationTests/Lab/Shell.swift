internal import Subprocess

/// Short commands of the lab, run by bash and waited for. What runs on is a `BackgroundProcess`.
enum Shell {
    /// Runs a script and returns what it wrote to standard output, without the last line break.
    /// - Parameter limit: seconds, after which the script is killed: nothing in the lab may hang a test run.
    @discardableResult
    static func run(
        _ script: String, in namespace: String? = nil, limit: Int = 60, environment: [String: String] = [:]
    ) async throws -> String {
        let result = try await attempt(script, in: namespace, limit: limit, environment: environment)
        guard result.status == 0 else { throw result }
        return result.output
    }

    /// The same, for scripts whose failure is an answer.
    static func attempt(
        _ script: String, in namespace: String? = nil, limit: Int = 60, environment: [String: String] = [:]
    ) async throws -> CommandResult {
        var arguments = ["-k", "5", "\(limit)"]
        if let namespace { arguments += ["ip", "netns", "exec", namespace] }
        arguments += ["bash", "-c", "set -o pipefail; " + script]
        var additions: [Environment.Key: String?] = [:]
        for (name, value) in environment {
            if let key = Environment.Key(rawValue: name) { additions[key] = value }
        }
        let result = try await Subprocess.run(
            .name("timeout"), arguments: Arguments(arguments),
            environment: .inherit.updating(additions),
            output: .string(limit: 8 << 20), error: .string(limit: 1 << 20))
        let status: Int32 =
            switch result.terminationStatus {
            case .exited(let code): code
            case .signaled(let signal): 128 + signal
            }
        return CommandResult(
            script: script, namespace: namespace, status: status,
            output: trimmed(result.standardOutput), errors: trimmed(result.standardError))
    }

    private static func trimmed(_ text: String) -> String {
        var text = Substring(text)
        while text.last?.isNewline == true { text.removeLast() }
        return String(text)
    }
}

struct CommandResult: Error, CustomStringConvertible {
    var script: String
    var namespace: String?
    var status: Int32
    var output: String
    var errors: String

    var succeeded: Bool { status == 0 }

    var description: String {
        let place = namespace.map { " in \($0)" } ?? ""
        return "status \(status) from\(place): \(script)\n\(errors)\n\(output)"
    }
}

extension [UInt8] {
    /// Bytes as escapes for bash's `printf`.
    var printfEscapes: String {
        let digits = Array<Character>("0123456789abcdef")
        return reduce(into: "") { text, byte in
            text += "\\x"
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
    }
}
