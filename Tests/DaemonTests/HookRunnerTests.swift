import ControlAPI
import FoundationEssentials
import Logging
import Synchronization
import TestSupport
import Testing
import WireGuard

@testable import Daemon

/// Real programs: shell scripts in a folder of their own.
@Suite struct HookRunnerTests {
    /// A runner with one script a hook, and what it found failing.
    private final class Site: Sendable {
        let folder = "/tmp/vgwd-hook-tests-\(UInt64.random(in: .min ... .max))"
        let failures = Mutex<[HookRunner.Failure]>([])
        let lines = Mutex<[String]>([])

        init() throws {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        }

        deinit { try? FileManager.default.removeItem(atPath: folder) }

        /// Each script finds the folder in `$1`.
        func hook(_ script: String, on: [String] = ["*"], timeout: Duration = .seconds(60))
            -> HookConfiguration
        {
            HookConfiguration(on: on, run: ["/bin/sh", "-c", script, "hook", folder], timeout: timeout)
        }

        func runner(_ hooks: [HookConfiguration]) throws -> HookRunner {
            let log = Logger(label: "test") { [self] _ in LineHandler(site: self) }
            let runner = try HookRunner(hooks, gateway: "onprem", log: log) { [self] failure in
                failures.withLock { $0.append(failure) }
            }
            try runner.start()
            return runner
        }

        func runner(
            _ script: String, arguments: [String] = [], timeout: Duration = .seconds(60)
        ) throws -> HookRunner {
            var hook = hook(script, timeout: timeout)
            hook.run += arguments
            return try runner([hook])
        }

        func text(_ name: String) -> String? {
            try? String(
                decoding: Data(contentsOf: URL(filePath: "\(folder)/\(name)")), as: UTF8.self)
        }

        /// Until the script has written the file. It blocks its thread: others' tests would keep a task that
        /// sleeps from being resumed for longer than a hook may run.
        func wait(for name: String) throws -> String {
            guard eventually({ text(name) != nil }), let text = text(name) else {
                throw APIError(code: .failed, message: "\(name) never came")
            }
            return text
        }

        func isAlive(_ process: String) -> Bool {
            let status = text("../../proc/\(process.trimmed)/stat")
            // A zombie that nobody has waited for is no program any more.
            return status.map { !$0.contains(") Z ") } ?? false
        }

        /// True once a program that was killed is dead: a moment later.
        func dies(_ process: String) -> Bool { eventually { !isAlive(process) } }
    }

    private struct LineHandler: LogHandler {
        let site: Site
        var metadata = Logger.Metadata()
        var logLevel = Logger.Level.debug

        init(site: Site) { self.site = site }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let fields = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            site.lines.withLock { $0.append("\(event.message) " + fields.joined(separator: " ")) }
        }
    }

    private let event = EventExamples.event(.tunnelDown, 7)

    private static let longTime: Duration = .seconds(60)

    @Test func aProgramGetsTheEventInItsEnvironmentAndAsJSONAndNothingOfOurs() throws {
        let site = try Site()
        var drilled = event
        drilled.drill = true
        let runner = try site.runner(
            "cat >$1/json; env | sort >$1/env; pwd >$1/pwd; ls /proc/self/fd >$1/fds; cat /proc/self/status >$1/status"
        )
        #expect(runner.environment(for: drilled).contains("VGWD_DRILL=1"))
        runner.post(event)
        runner.stop(limit: Self.longTime)
        #expect(site.failures.withLock { $0 } == [])
        let json = try #require(site.text("json"))
        #expect(json.hasSuffix("}\n"))
        #expect(try JSON.decode(GatewayEvent.self, from: Array(json.utf8)) == event)
        let variables = try #require(site.text("env")).split(separator: "\n").filter {
            // The shell's own.
            !$0.hasPrefix("PWD=") && !$0.hasPrefix("_=") && !$0.hasPrefix("SHLVL=")
                && !$0.hasPrefix("OLDPWD=")
        }
        #expect(
            variables == [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "VGWD_CONNECTION=aws",
                "VGWD_DRILL=", "VGWD_EVENT=tunnel-down", "VGWD_FIREWALL_MARK=0", "VGWD_FROM=up",
                "VGWD_GATEWAY=onprem",
                "VGWD_REASON=probe-timeout",
                "VGWD_TIME=2026-11-25T12:33:48.123456789Z", "VGWD_TO=down", "VGWD_TUNNEL=zone-a",
            ])
        #expect(site.text("pwd") == "/\n")
        // The standard three, and the one that ls reads the folder by.
        #expect(site.text("fds") == "0\n1\n2\n3\n")
        let status = try #require(site.text("status"))
        for name in ["SigBlk:\t", "SigIgn:\t"] {
            let line = status.split(separator: "\n").first { $0.hasPrefix(name) }
            let signals = try #require(line.flatMap { UInt64($0.dropFirst(name.count), radix: 16) })
            // Glibc has 32 and 33 for itself.
            #expect(signals & ~0x1_8000_0000 == 0)
        }
    }

    @Test func aStatusOtherThanZeroIsAFailureWithTheEndOfWhatItSaid() throws {
        let site = try Site()
        let runner = try site.runner(
            "head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; echo 'no\tway' >&2; exit 3")
        runner.post(event)
        runner.stop(limit: Self.longTime)
        let failure = try #require(site.failures.withLock { $0 }.first)
        #expect(failure.reason == "hook-exited")
        #expect(failure.problem == "ended with status 3")
        #expect(failure.event == event)
        #expect(runner.counts == HookStatus(started: 1, failures: 1, queueFull: 0))
        let line = try #require(site.lines.withLock { $0 }.first { $0.hasPrefix("hook failed") })
        #expect(line.contains("event=tunnel-down") && line.contains("problem=ended with status 3"))
        #expect(line.hasSuffix(" no way") && !line.contains("\n"))
        #expect(line.utf8.count < 4600)
    }

    @Test func whatCouldBeAKeyIsNotLogged() {
        let said = HookRunner.printable(
            Array("key \(ConfigurationExamples.privateKey) of\u{1b}[31m x\n".utf8))
        #expect(said == "key … of [31m x")
    }

    @Test func muchOutputAndAClosedInputAreNoTrouble() throws {
        let site = try Site()
        let runner = try site.runner("exec <&-; head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2")
        var long = event
        long.message = String(repeating: "x", count: 1_000_000)
        runner.post(long)
        runner.stop(limit: Self.longTime)
        #expect(site.failures.withLock { $0 } == [])
    }

    @Test func moreThanAPipeHoldsIsReadWhole() throws {
        let site = try Site()
        let runner = try site.runner("wc -c >$1/count")
        var long = event
        long.message = String(repeating: "x", count: 1_000_000)
        runner.post(long)
        runner.stop(limit: Self.longTime)
        let count = try #require(site.text("count").flatMap { Int($0.trimmed) })
        #expect(count > 1_000_000)
    }

    @Test func aProgramPastItsLimitIsEnded() throws {
        let site = try Site()
        let runner = try site.runner(
            "trap 'echo ended >$1/new; mv $1/new $1/term; exit 0' TERM; sleep 1000 & wait",
            timeout: .milliseconds(1500))
        runner.post(event)
        #expect(try site.wait(for: "term") == "ended\n")
        runner.stop(limit: Self.longTime)
        let failure = try #require(site.failures.withLock { $0 }.first)
        #expect(failure.reason == "hook-timed-out")
        #expect(failure.problem == "ran longer than 1500ms")
    }

    @Test func aChildThatIgnoresTheSignalIsKilledWithItsGroup() throws {
        let site = try Site()
        let child =
            "trap 'echo >$1/term' TERM; echo $$ >$1/new; mv $1/new $1/child; while :; do sleep 0.05; done"
        let runner = try site.runner(
            "/bin/sh -c \"$2\" child $1 & exec sleep 1000", arguments: [child], timeout: .seconds(2))
        runner.post(event)
        _ = try site.wait(for: "term")
        let process = try site.wait(for: "child")
        runner.stop(limit: Self.longTime)
        #expect(site.dies(process))
        #expect(site.failures.withLock { $0 }.map(\.reason) == ["hook-timed-out"])
    }

    @Test func whatAProgramLeavesBehindIsKilled() throws {
        let site = try Site()
        let runner = try site.runner("sleep 1000 & echo $! >$1/child; exit 0")
        runner.post(event)
        runner.stop(limit: Self.longTime)
        let child = try #require(site.text("child"))
        #expect(site.dies(child))
        #expect(site.failures.withLock { $0 } == [])
    }

    @Test func aProgramThatIsNotThereIsAFailure() throws {
        let site = try Site()
        let runner = try site.runner([HookConfiguration(on: ["*"], run: ["/nowhere/hook"])])
        runner.post(event)
        runner.post(event)
        runner.stop(limit: Self.longTime)
        let failures = site.failures.withLock { $0 }
        #expect(failures.map(\.reason) == ["hook-not-started", "hook-not-started"])
        #expect(failures.first?.problem.contains("ENOENT") == true)
    }

    @Test func oneThatIsKilledIsAFailure() throws {
        let site = try Site()
        let runner = try site.runner("kill -KILL $$")
        runner.post(event)
        runner.stop(limit: Self.longTime)
        #expect(site.failures.withLock { $0 }.map(\.problem) == ["was ended by signal 9"])
    }

    @Test func eventsOfAHookComeInOrderAndOneAtATime() throws {
        let site = try Site()
        let runner = try site.runner(
            "mkdir $1/busy || exit 1; echo $VGWD_TUNNEL >>$1/order; sleep 0.01; rmdir $1/busy")
        for number in 0..<20 { runner.post(EventExamples.event(.tunnelUp, 1, tunnel: "t\(number)")) }
        runner.stop(limit: Self.longTime)
        #expect(site.failures.withLock { $0 } == [])
        let order = try #require(site.text("order")).split(separator: "\n")
        #expect(order == (0..<20).map { "t\($0)" })
    }

    @Test func hooksRunBesideEachOtherAndGetOnlyWhatTheyAreFor() throws {
        let site = try Site()
        // The first ends only once the second has run.
        let runner = try site.runner([
            site.hook(
                "until [ -e $1/second ]; do sleep 0.01; done; echo $VGWD_EVENT >>$1/first", on: ["tunnel-*"]),
            site.hook("echo $VGWD_EVENT >>$1/second", on: ["started", "connection-down"]),
        ])
        for kind in [GatewayEvent.Kind.tunnelUp, .hookFailed, .started, .routeAdded] {
            runner.post(EventExamples.event(kind))
        }
        runner.stop(limit: Self.longTime)
        #expect(site.text("first") == "tunnel-up\n")
        #expect(site.text("second") == "started\n")
    }

    @Test func whatDoesNotFitIsCountedAndSaidOnce() throws {
        let site = try Site()
        let runner = try site.runner("echo >$1/started; until [ -e $1/go ]; do sleep 0.01; done")
        runner.post(event)
        _ = try site.wait(for: "started")
        for _ in 0..<HookRunner.queueLimit + 10 { runner.post(event) }
        #expect(runner.counts.queueFull == 10)
        try Data().write(to: URL(filePath: "\(site.folder)/go"))
        runner.stop(limit: Self.longTime)
        #expect(runner.counts == HookStatus(started: 65, failures: 0, queueFull: 10))
        #expect(site.lines.withLock { $0 }.count { $0.hasPrefix("hook is behind") } == 1)
    }

    @Test func theEndWaitsNoLongerThanItsLimit() throws {
        let site = try Site()
        let runner = try site.runner(
            "trap '' TERM; echo $$ >$1/new; mv $1/new $1/pid; while :; do sleep 1; done")
        runner.post(event)
        runner.post(event)
        let process = try site.wait(for: "pid")
        runner.stop(limit: .milliseconds(200))
        #expect(site.dies(process))
        #expect(site.failures.withLock { $0 }.map(\.problem) == ["was still running as the gateway ended"])
        // Nothing is taken any more.
        runner.post(event)
        #expect(runner.counts.started == 1)
    }
}

extension String {
    fileprivate var trimmed: String { filter { !$0.isWhitespace } }
}
