package import ControlAPI
package import LinuxIO
package import Logging
internal import Synchronization
internal import WireGuard

/// Starts the programs of `[[hook]]` for events.
///
/// 1. Control posts an event; each hook that wants it gets it into a queue of its own, of 64 places. What does
///    not fit is counted, and logged once until that queue was empty again.
/// 2. A thread starts the program, one at a time a hook, so that a hook sees events in order; different hooks
///    run beside each other.
/// 3. The program gets the event in its environment and as JSON on its standard input. Past its time limit its
///    process group gets SIGTERM, and SIGKILL two seconds later. What it leaves in its group when it ends by
///    itself is killed then.
/// 4. A failure is counted, logged with the end of what the program said, and given to `onFailure`.
///
/// Concurrency: control starts, posts and stops, and waits for the thread only in `stop`. `onFailure` is called
/// on the thread.
package final class HookRunner: Sendable {
    package static let queueLimit = 64
    /// All that hooks get once the gateway ends: time enough for one on `stopping`, and systemd's patience is
    /// 10 s.
    package static let stopLimit: Duration = .seconds(5)

    /// What there is to say of a hook that failed. Its output is for the log alone.
    package struct Failure: Hashable, Sendable {
        package var program: String
        package var event: GatewayEvent
        /// `hook-exited`, `hook-killed`, `hook-timed-out`, `hook-not-started`.
        package var reason: String
        /// As a clause: `ended with status 1`.
        package var problem: String
    }

    private struct Inbox: Sendable {
        var queues: [[GatewayEvent]]
        /// By hook: an event did not fit, and the queue was not empty since.
        var isOverflowing: [Bool]
        var counts = HookStatus(started: 0, failures: 0, queueFull: 0)
        /// Nil while the gateway runs.
        var stopAt: Instant?
    }

    package let hooks: [HookConfiguration]
    private let gateway: String
    /// Mark of outer packets; 0 is none. `wg` may change it.
    private let firewallMark: Atomic<UInt32>
    private let log: Logger
    private let onFailure: @Sendable (Failure) -> Void
    private let inbox: Mutex<Inbox>
    private let wake: EventFD
    /// The thread's.
    let epoll: Epoll
    private let thread = Mutex<Thread?>(nil)

    package init(
        _ hooks: [HookConfiguration], gateway: String, firewallMark: UInt32 = 0, log: Logger,
        onFailure: @escaping @Sendable (Failure) -> Void
    ) throws(SystemError) {
        self.hooks = hooks
        self.gateway = gateway
        self.firewallMark = Atomic(firewallMark)
        self.log = log
        self.onFailure = onFailure
        inbox = Mutex(
            Inbox(
                queues: [[GatewayEvent]](repeating: [], count: hooks.count),
                isOverflowing: [Bool](repeating: false, count: hooks.count)))
        wake = try EventFD()
        epoll = try Epoll()
        try epoll.add(fd: wake.fd, token: HookThread.wakeToken)
    }

    package var counts: HookStatus { inbox.withLock { $0.counts } }

    package func start() throws(SystemError) {
        ChildProcess.expectChildren()
        let started = try Thread.spawn(name: "vgwd-hooks") {
            var thread = HookThread(self)
            thread.run()
        }
        thread.withLock { $0 = started }
    }

    /// Hooks that start from now on are told this mark.
    package func setFirewallMark(_ mark: UInt32) { firewallMark.store(mark, ordering: .relaxed) }

    package func post(_ event: GatewayEvent) {
        let wanting = hooks.enumerated().filter { $0.element.wants(event.kind) }
        guard !wanting.isEmpty else { return }
        var full: [HookConfiguration] = []
        inbox.withLock { inbox in
            guard inbox.stopAt == nil else { return }
            for (place, hook) in wanting {
                if inbox.queues[place].count < Self.queueLimit {
                    inbox.queues[place].append(event)
                } else {
                    inbox.counts.queueFull += 1
                    if !inbox.isOverflowing[place] { full.append(hook) }
                    inbox.isOverflowing[place] = true
                }
            }
        }
        for hook in full {
            log.warning(
                "hook is behind: events are not given to it",
                metadata: ["program": "\(hook.program)", "waiting": "\(Self.queueLimit)"])
        }
        wake.signal()
    }

    /// Lets hooks finish what was posted, for at most `limit`. Returns when no program runs any more.
    package func stop(limit: Duration = HookRunner.stopLimit) {
        inbox.withLock { inbox in
            if inbox.stopAt == nil { inbox.stopAt = SystemClock.now() + limit }
        }
        wake.signal()
        let running = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        running?.join()
    }
}

extension HookRunner {
    // MARK: For the thread

    func drainWake() { wake.drain() }

    var stopAt: Instant? { inbox.withLock { $0.stopAt } }

    /// What hook `place` is to be started for.
    func next(of place: Int) -> GatewayEvent? {
        inbox.withLock { inbox in
            guard !inbox.queues[place].isEmpty else {
                inbox.isOverflowing[place] = false
                return nil
            }
            inbox.counts.started += 1
            return inbox.queues[place].removeFirst()
        }
    }

    /// At the end of time.
    func dropQueues() {
        let left = inbox.withLock { inbox in
            let left = inbox.queues.reduce(0) { $0 + $1.count }
            for place in inbox.queues.indices { inbox.queues[place] = [] }
            inbox.counts.queueFull += UInt64(left)
            return left
        }
        if left > 0 { log.warning("ended before every hook was started", metadata: ["left": "\(left)"]) }
    }

    func ended(_ hook: HookConfiguration, _ event: GatewayEvent) {
        log.debug("hook done", metadata: ["program": "\(hook.program)", "event": "\(event.kind.rawValue)"])
    }

    func failed(
        _ hook: HookConfiguration, _ event: GatewayEvent, reason: String, problem: String, output: [UInt8]
    ) {
        inbox.withLock { $0.counts.failures += 1 }
        var metadata: Logger.Metadata = [
            "program": "\(hook.program)", "event": "\(event.kind.rawValue)", "problem": "\(problem)",
        ]
        let said = Self.printable(output)
        if !said.isEmpty { metadata["stderr"] = "\(said)" }
        log.warning("hook failed", metadata: metadata)
        onFailure(Failure(program: hook.program, event: event, reason: reason, problem: problem))
    }

    /// On one line, and without what could be a key: a hook has none of ours, but may have read a file.
    static func printable(_ output: [UInt8]) -> String {
        let text = String(decoding: output, as: UTF8.self).unicodeScalars.map { scalar in
            scalar.properties.generalCategory == .control ? " " : Character(scalar)
        }
        return Redaction.hidingKeys(in: String(text).split(separator: " ").joined(separator: " "))
    }

    /// Not ours but what is named here: a program needs a PATH, and nothing of the daemon's.
    func environment(for event: GatewayEvent) -> [String] {
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "VGWD_EVENT=\(event.kind.rawValue)",
            "VGWD_CONNECTION=\(event.connection ?? "")",
            "VGWD_TUNNEL=\(event.tunnel ?? "")",
            "VGWD_FROM=\(event.from ?? "")",
            "VGWD_TO=\(event.to ?? "")",
            "VGWD_REASON=\(event.reason ?? "")",
            "VGWD_DRILL=\(event.drill == true ? "1" : "")",
            "VGWD_TIME=\(event.time)",
            "VGWD_GATEWAY=\(gateway)",
            "VGWD_FIREWALL_MARK=\(firewallMark.load(ordering: .relaxed))",
        ]
    }
}
