internal import Subprocess

/// Runs bash for set-up and for measuring programs.
enum Shell {
    struct Failure: Error, CustomStringConvertible {
        var script: String
        var status: String
        var errors: String

        /// One line: how it ended, and what it said last, or else what it did last.
        var description: String {
            let last = errors.split(separator: "\n").last ?? script.split(separator: "\n").last ?? ""
            return "\(status): \(last)"
        }
    }

    /// Standard output without its last line break. Killed after `limit` seconds, and when the task is
    /// cancelled: `timeout` leads a process group of its own and passes the signal on to all of it.
    @discardableResult
    static func run(_ script: String, limit: Int = 60) async throws -> String {
        var options = PlatformOptions()
        options.teardownSequence = [.send(signal: .terminate, allowedDurationToNextStep: .seconds(2))]
        let result = try await Subprocess.run(
            .name("timeout"),
            arguments: ["-k", "1", "\(limit)", "bash", "-c", "set -eo pipefail; " + script],
            platformOptions: options,
            output: .string(limit: 8 << 20), error: .string(limit: 1 << 20))
        try Task.checkCancellation()
        switch result.terminationStatus {
        case .exited(0): break
        case .exited(124), .exited(137):
            throw Failure(script: script, status: "no end within \(limit) s", errors: result.standardError)
        case .exited(let code):
            throw Failure(script: script, status: "status \(code)", errors: result.standardError)
        case .signaled(let signal):
            throw Failure(script: script, status: "signal \(signal)", errors: result.standardError)
        }
        var output = Substring(result.standardOutput)
        while output.last?.isNewline == true { output.removeLast() }
        return String(output)
    }

    /// As one word for bash, whatever is in it.
    static func quote(_ text: String) -> String { "'" + text.replacing("'", with: #"'\''"#) + "'" }

    /// The path of an installed program, also where root's sbin folders are not in the path.
    static func find(_ program: String) async -> String? {
        try? await run("PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v \(quote(program))")
    }
}
