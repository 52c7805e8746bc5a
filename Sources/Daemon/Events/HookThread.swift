internal import ControlAPI
internal import LinuxIO
internal import WireGuard

/// The thread of a `HookRunner`: every program that runs, and what each waits for.
///
/// Concurrency: a local of that thread.
struct HookThread {
    static let wakeToken: UInt64 = 0

    /// What a token of epoll is for: each hook has three tokens, from 1.
    private enum Source: UInt64 {
        case end = 0
        case input = 1
        case errors = 2
    }

    /// One program that runs, or that is being got rid of.
    private struct Run {
        enum Stage {
            /// Until then.
            case running(until: Instant)
            /// Its group was told to end, for the reason given; what is left of it then is killed. The number of
            /// the group is ours until we have waited for its first process.
            case ending(killAt: Instant, problem: String)
            /// Killed: its end is a moment away.
            case killed(problem: String)
        }

        let event: GatewayEvent
        let child: ChildProcess
        var stage: Stage
        /// What it has not read yet.
        var input: ArraySlice<UInt8>
        var output = Tail()
        /// The program itself has ended; others of its group may not have.
        var hasEnded = false

        var deadline: Instant? {
            switch stage {
            case .running(let until): until
            case .ending(let killAt, _): killAt
            case .killed: nil
            }
        }
    }

    private static let grace: Duration = .seconds(2)
    /// Of `HookRunner.stopLimit`, before its end.
    private static let stopGrace: Duration = .seconds(1)

    private let runner: HookRunner
    private var runs: [Run?]

    init(_ runner: HookRunner) {
        self.runner = runner
        runs = [Run?](repeating: nil, count: runner.hooks.count)
    }

    mutating func run() {
        while true {
            let now = SystemClock.now()
            let stopAt = runner.stopAt
            if let stopAt, stopAt <= now { return end() }
            for place in runs.indices {
                keepTime(place, now, stopAt)
                if runs[place] == nil { startNext(place, now) }
            }
            if stopAt != nil, runs.allSatisfy({ $0 == nil }) { return }
            var deadlines = runs.compactMap { $0?.deadline }
            if let stopAt { deadlines += [stopAt, stopAt - Self.stopGrace].filter { $0 > now } }
            let timeout = deadlines.min().map { $0 > now ? $0 - now : .zero }
            let events = (try? runner.epoll.wait(timeout: timeout)) ?? []
            for event in events { handle(event) }
        }
    }

    /// Time is up for all.
    private mutating func end() {
        for place in runs.indices {
            guard let run = runs[place] else { continue }
            run.child.signal(.kill)
            runs[place]?.stage = .killed(problem: "was still running as the gateway ended")
            finish(place)
        }
        runner.dropQueues()
    }

    // MARK: Programs

    private mutating func startNext(_ place: Int, _ now: Instant) {
        let hook = runner.hooks[place]
        while let event = runner.next(of: place) {
            do throws(SystemError) {
                try start(hook, place, event, now)
                return
            } catch {
                runner.failed(
                    hook, event, reason: "hook-not-started", problem: "cannot be started: \(error)",
                    output: [])
            }
        }
    }

    private mutating func start(
        _ hook: HookConfiguration, _ place: Int, _ event: GatewayEvent, _ now: Instant
    ) throws(SystemError) {
        let json = ((try? JSON.encode(event)) ?? []) + [UInt8(ascii: "\n")]
        let child = try ChildProcess(hook.run, environment: runner.environment(for: event))
        try runner.epoll.add(fd: child.endFD, token: token(place, .end))
        if let fd = child.inputFD {
            try runner.epoll.add(fd: fd, token: token(place, .input), events: .writable)
        }
        if let fd = child.errorsFD { try runner.epoll.add(fd: fd, token: token(place, .errors)) }
        runs[place] = Run(
            event: event, child: child, stage: .running(until: now + hook.timeout), input: json[...])
    }

    private func token(_ place: Int, _ source: Source) -> UInt64 { UInt64(place) * 3 + source.rawValue + 1 }

    private mutating func handle(_ event: Epoll.Event) {
        guard event.token != Self.wakeToken else { return runner.drainWake() }
        let (place, source) = (event.token - 1).quotientAndRemainder(dividingBy: 3)
        let hook = Int(place)
        guard hook < runs.count, runs[hook] != nil else { return }
        switch Source(rawValue: source) {
        case .input: feed(hook)
        case .errors: listen(hook)
        case .end: programEnded(hook)
        case nil: break
        }
    }

    private mutating func feed(_ place: Int) {
        guard let run = runs[place] else { return }
        let count = run.child.write(run.input)
        if let count { runs[place]?.input.removeFirst(count) }
        // It closed its standard input, or has all of it: either way there is nothing more to say.
        if count == nil || runs[place]?.input.isEmpty == true { closeInput(place) }
    }

    private mutating func closeInput(_ place: Int) {
        guard let child = runs[place]?.child, let fd = child.inputFD else { return }
        runner.epoll.remove(fd: fd)
        child.closeInput()
    }

    private mutating func listen(_ place: Int) {
        guard let child = runs[place]?.child, let fd = child.errorsFD else { return }
        var bytes: [UInt8] = []
        let isOpen = child.readErrors(into: &bytes)
        runs[place]?.output.append(bytes)
        guard !isOpen else { return }
        runner.epoll.remove(fd: fd)
        child.closeErrors()
    }

    private mutating func programEnded(_ place: Int) {
        guard let run = runs[place] else { return }
        switch run.stage {
        case .running, .killed:
            run.child.signal(.kill)
            finish(place)
        case .ending:
            // The rest of its group has until `killAt`.
            runner.epoll.remove(fd: run.child.endFD)
            runs[place]?.hasEnded = true
        }
    }

    private mutating func keepTime(_ place: Int, _ now: Instant, _ stopAt: Instant?) {
        guard let run = runs[place] else { return }
        switch run.stage {
        case .running(let until):
            let last = stopAt.map { $0 - Self.stopGrace } ?? until
            guard min(until, last) <= now else { return }
            let problem =
                until <= now
                ? "ran longer than \(Durations.text(runner.hooks[place].timeout))"
                : "was still running as the gateway ended"
            run.child.signal(.terminate)
            runs[place]?.stage = .ending(killAt: now + Self.grace, problem: problem)
        case .ending(let killAt, let problem):
            guard killAt <= now else { return }
            run.child.signal(.kill)
            runs[place]?.stage = .killed(problem: problem)
            if run.hasEnded { finish(place) }
        case .killed: break
        }
    }

    /// The program has ended, or was killed and does so at once; its group is no more.
    private mutating func finish(_ place: Int) {
        // What is still in the pipe.
        listen(place)
        guard let run = runs[place] else { return }
        runs[place] = nil
        runner.epoll.remove(fd: run.child.endFD)
        if let fd = run.child.inputFD { runner.epoll.remove(fd: fd) }
        if let fd = run.child.errorsFD { runner.epoll.remove(fd: fd) }
        let hook = runner.hooks[place]
        let ending = run.child.wait()
        func fail(_ reason: String, _ problem: String) {
            runner.failed(hook, run.event, reason: reason, problem: problem, output: run.output.bytes)
        }
        switch (run.stage, ending) {
        case (.killed(let problem), _), (.ending(_, let problem), _): fail("hook-timed-out", problem)
        case (.running, .exited(0)): runner.ended(hook, run.event)
        case (.running, .exited(let status)): fail("hook-exited", "ended with status \(status)")
        case (.running, .signalled(let signal)): fail("hook-killed", "was ended by signal \(signal)")
        }
    }
}

/// The last of what a program said.
private struct Tail {
    private static let limit = 4096

    private(set) var bytes: [UInt8] = []

    mutating func append(_ more: [UInt8]) {
        bytes += more
        if bytes.count > Self.limit { bytes.removeFirst(bytes.count - Self.limit) }
    }
}
