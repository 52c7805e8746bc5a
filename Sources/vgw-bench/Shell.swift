internal import Subprocess

/// Runs bash for set-up and for measuring programs.
enum Shell {
    struct Failure: Error, CustomStringConvertible {
        var script: String
        var errors: String

        var description: String { "failed: \(script)\n\(errors)" }
    }

    /// Standard output without its last line break. Killed after `limit` seconds.
    @discardableResult
    static func run(_ script: String, limit: Int = 60) async throws -> String {
        let result = try await Subprocess.run(
            .name("timeout"),
            arguments: ["-k", "5", "\(limit)", "bash", "-c", "set -eo pipefail; " + script],
            output: .string(limit: 8 << 20), error: .string(limit: 1 << 20))
        guard case .exited(0) = result.terminationStatus else {
            throw Failure(script: script, errors: result.standardError)
        }
        var output = Substring(result.standardOutput)
        while output.last?.isNewline == true { output.removeLast() }
        return String(output)
    }
}
