internal import FoundationEssentials

/// A daemon under measurement, and what /proc says of it.
struct DaemonProcess: Sendable {
    let pid: Int

    /// Starts `command` on a host, detached from this process's terminal and group, with its output in the
    /// host's log. Arguments are quoted here.
    static func start(
        _ command: [String], environment: [String: String] = [:], on host: Lab.Host, in lab: Lab
    ) async throws -> DaemonProcess {
        let settings = environment.map { "\($0.key)=\($0.value)" }.sorted()
        let words = (["env"] + settings + command).map(Shell.quote).joined(separator: " ")
        // No shell between: `setsid`, `ip netns exec` and `env` each become what they start, so $! is the
        // daemon's.
        let pid = try await Shell.run(
            "setsid \(lab.inside(host)) \(words) </dev/null >\(lab.log(host)) 2>&1 & echo $!")
        guard let pid = Int(pid) else { throw Failure("\(command[0]) was not started") }
        return DaemonProcess(pid: pid)
    }

    var isRunning: Bool { FileManager.default.fileExists(atPath: "/proc/\(pid)/exe") }

    /// Time of all threads that live, to the nanosecond, where /proc/PID/stat counts ticks.
    var cpuSeconds: Double {
        threads.map { thread in
            let fields = read("task/\(thread)/schedstat").split(separator: " ")
            return fields.first.flatMap { Double($0) } ?? 0
        }.reduce(0, +) / 1e9
    }

    /// Times that a thread gave up the core or lost it.
    var contextSwitches: Double {
        threads.map { thread in
            let status = read("task/\(thread)/status")
            return Self.number(after: "voluntary_ctxt_switches:", in: status)
                + Self.number(after: "nonvoluntary_ctxt_switches:", in: status)
        }.reduce(0, +)
    }

    var residentMegabytes: Double { Self.number(after: "VmRSS:", in: read("status")) / 1024 }
    var residentPeakMegabytes: Double { Self.number(after: "VmHWM:", in: read("status")) / 1024 }

    private var threads: [String] {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
    }

    /// Empty when the process, or the thread, is gone.
    private func read(_ name: String) -> String {
        (try? String(contentsOfFile: "/proc/\(pid)/\(name)", encoding: .utf8)) ?? ""
    }

    private static func number(after key: String, in text: String) -> Double {
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix(key) }) else { return 0 }
        let words = line.dropFirst(key.count).split(whereSeparator: \.isWhitespace)
        return words.first.flatMap { Double($0) } ?? 0
    }
}
