internal import Glibc
internal import Subprocess
internal import Synchronization

/// A process that runs beside the test: a daemon, a server, a capture. Both its outputs go to one file, which
/// the lab prints when the test fails.
///
/// Concurrency model: one task waits for the process; `status` is set once, when it has ended.
final class BackgroundProcess: Sendable {
    let name: String
    let logPath: String
    let pid: Int32
    private let status: Ending

    private final class Ending: Sendable {
        let value = Mutex<Int32?>(nil)
    }

    private init(name: String, logPath: String, pid: Int32, status: Ending) {
        self.name = name
        self.logPath = logPath
        self.pid = pid
        self.status = status
    }

    static func start(
        _ command: [String], name: String, logPath: String, in namespace: String?,
        environment: [String: String] = [:]
    ) async throws -> BackgroundProcess {
        // One process id from the shell to the daemon: bash and `ip netns exec` both become what they start.
        let inside = namespace.map { ["ip", "netns", "exec", $0] } ?? []
        let arguments = ["-c", "exec \"$@\" >>\"$0\" 2>&1", logPath] + inside + command
        var additions: [Environment.Key: String?] = [:]
        for (name, value) in environment {
            if let key = Environment.Key(rawValue: name) { additions[key] = value }
        }
        let chosen = Environment.inherit.updating(additions)
        let ending = Ending()
        let (pids, started) = AsyncStream.makeStream(of: Int32.self)
        let task = Task {
            defer { started.finish() }
            let result = try await Subprocess.run(
                .name("bash"), arguments: Arguments(arguments), environment: chosen,
                input: .none, output: .discarded, error: .discarded
            ) { execution in
                started.yield(execution.processIdentifier.value)
                started.finish()
            }
            let code: Int32 =
                switch result.terminationStatus {
                case .exited(let code): code
                case .signaled(let signal): 128 + signal
                }
            ending.value.withLock { $0 = code }
        }
        for await pid in pids {
            return BackgroundProcess(name: name, logPath: logPath, pid: pid, status: ending)
        }
        try await task.value
        throw LabError("\(name) was not started")
    }

    /// What it exited with, 128 and the signal where it was killed; nil while it runs.
    var exitStatus: Int32? { status.value.withLock { $0 } }

    func signal(_ number: Int32) {
        if exitStatus == nil { _ = Glibc.kill(pid, number) }
    }

    @discardableResult
    func waitForExit(within limit: Duration = .seconds(20)) async throws -> Int32 {
        try await eventually("\(name) ends", within: limit) { self.exitStatus != nil }
        return exitStatus ?? -1
    }

    /// `kill -9`, and gone when this returns.
    func kill() async throws {
        signal(SIGKILL)
        try await waitForExit()
    }

    /// `kill -9` for it and all that it started, and none left when this returns. It must lead a group of its
    /// own: start it by `setsid`. A group is signalled at once, so nothing can fork away from it.
    func killGroup() async throws {
        try await Shell.run(
            """
            kill -9 -- -\(pid) 2>/dev/null
            while ps -eo pgid=,stat= | awk '$1 == \(pid) && $2 !~ /^Z/ {found = 1} END {exit !found}'; do
                sleep 0.02
            done
            """)
        try await waitForExit()
    }

    /// What an operator's `systemctl stop` sends.
    @discardableResult
    func terminate() async throws -> Int32 {
        signal(SIGTERM)
        return try await waitForExit()
    }
}
