import ControlAPI
import FoundationEssentials
import LinuxIO
import Logging
import NIOCore
import Synchronization
import Testing
import WireGuard

@testable import Gateway
@testable import vgwctl

/// The server and the client over a real socket; a task stands in for the control thread.
@Suite struct ControlServerTests {
    private final class Daemon: Sendable {
        let path = "/tmp/vgwd-control-\(UInt64.random(in: .min ... .max)).sock"
        let hub = EventHub(limit: 3)
        let log = Mutex(EventLog())
        let asked = Mutex<[String]>([])
        /// Drills that end only when somebody ends them, and how many there were.
        let endless = Mutex<[(waiter: DrillWaiter, answer: ControlCommand.Answer<DrillReport>)]>([])
        let begun = Atomic(0)
        private let wake: EventCounter
        private let mailbox: Mailbox<ControlCommand>
        private let server: ControlServer
        private let thread = Mutex<Thread?>(nil)
        private let isEnding = Atomic(false)

        init() async throws {
            wake = try EventCounter()
            mailbox = Mailbox(wake: wake)
            let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            server = ControlServer(
                path: path, mailbox: mailbox, connectionLimit: 16, drops: DropCounters(), log: quiet)
            server.start()
            let (isReady, ready) = AsyncStream.makeStream(of: Void.self)
            let thread = try Thread.spawn(name: "test-control") { [self] in work(ready) }
            self.thread.withLock { $0 = thread }
            for await _ in isReady { break }
        }

        private func work(_ ready: AsyncStream<Void>.Continuation) {
            var poll = PollSet(wake.fd)
            while !isEnding.load(ordering: .acquiring) {
                _ = poll.wait(timeout: nil)
                wake.drain()
                for command in mailbox.take() {
                    if case .serverIsReady = command { ready.yield() } else { answer(command) }
                }
            }
        }

        private func answer(_ command: ControlCommand) {
            switch command {
            case .events(let since, let follow, let answer):
                answer(
                    Result { () throws(APIError) in
                        EventPage(
                            lines: log.withLock { $0.lines(after: since) },
                            follower: follow ? try hub.follow() : nil)
                    })
            case .drill("endless", _, let waiter, let answer):
                endless.withLock { $0.append((waiter, answer)) }
                begun.add(1, ordering: .releasing)
            case .drillIsAbandoned:
                endless.withLock { drills in
                    for drill in drills where drill.waiter.hasLeft {
                        drill.answer(.failure(APIError(code: .failed, message: "abandoned")))
                    }
                    drills.removeAll { $0.waiter.hasLeft }
                }
            case .drill(let connection, let request, _, let answer):
                answer(
                    .success(
                        DrillReport(connection: connection, tunnel: "a", duration: request.duration ?? -1)))
            case .tunnel(let order, let name, let answer):
                asked.withLock { $0.append("\(order) \(name)") }
                answer(.failure(APIError(code: .notFound, message: "no \(name)")))
            default: command.refuse()
            }
        }

        func raise(_ kind: GatewayEvent.Kind) {
            hub.publish(log.withLock { $0.append(EventExamples.event(kind)) })
        }

        /// As `ControlLoop.finish` does it.
        func stop() {
            hub.end()
            server.stop()
            isEnding.store(true, ordering: .releasing)
            wake.signal()
            thread.withLock { $0 }?.join()
        }

        /// In no hurry: others' tests may keep ours waiting.
        var client: ControlClient { ControlClient(socket: path, timeout: .minutes(5)) }
    }

    /// What came, one line each.
    private final class Lines: Sendable {
        private let kinds = Mutex<[String]>([])

        func add(_ bytes: [UInt8]) throws {
            let line = try JSON.decode(EventLine.self, from: bytes)
            kinds.withLock { kinds in
                switch line {
                case .event(let event): kinds.append(event.kind.rawValue)
                case .lost(let count): kinds.append("lost \(count)")
                }
            }
        }

        var all: [String] { kinds.withLock { $0 } }

        func wait(for count: Int) async throws {
            for _ in 0..<3000 where all.count < count { try await Task.sleep(for: .milliseconds(10)) }
        }
    }

    private func run(_ body: (Daemon) async throws -> Void) async throws {
        let daemon = try await Daemon()
        do {
            try await body(daemon)
        } catch {
            daemon.stop()
            throw error
        }
        daemon.stop()
    }

    @Test func eventsThatAreKeptComeAtOnceAndThatIsAll() async throws {
        try await run { daemon in
            for _ in 0..<250 { daemon.raise(.tunnelUp) }
            daemon.raise(.stopping)
            let lines = Lines()
            try await daemon.client.lines(APIPath.events, query: []) { try lines.add($0) }
            #expect(lines.all.count == 251 && lines.all.last == "stopping")
            let later = Lines()
            try await daemon.client.lines(APIPath.events, query: [("since", "249")]) { try later.add($0) }
            #expect(later.all == ["tunnel-up", "stopping"])
        }
    }

    @Test func whoFollowsGetsWhatComesUntilTheDaemonEnds() async throws {
        try await run { daemon in
            daemon.raise(.started)
            let lines = Lines()
            let client = daemon.client
            async let following: Void = client.lines(APIPath.events, query: [("follow", "1")]) {
                try lines.add($0)
            }
            try await lines.wait(for: 1)
            daemon.raise(.tunnelUp)
            try await lines.wait(for: 2)
            daemon.raise(.stopping)
            daemon.hub.end()
            try await following
            #expect(lines.all == ["started", "tunnel-up", "stopping"])
        }
    }

    @Test func aReaderWhoStopsLosesTheOldestAndIsTold() async throws {
        try await run { daemon in
            daemon.raise(.started)
            let lines = Lines()
            let client = daemon.client
            let (isFollowing, following) = AsyncStream.makeStream(of: Void.self)
            let (isRaised, raised) = AsyncStream.makeStream(of: Void.self)
            async let end: Void = client.lines(APIPath.events, query: [("follow", "1")]) { bytes in
                if lines.all.isEmpty {
                    following.finish()
                    for await _ in isRaised { break }
                }
                try lines.add(bytes)
            }
            for await _ in isFollowing { break }
            // Past what the sockets and the queue hold, before it reads anything.
            for _ in 0..<20 {
                for _ in 0..<1000 { daemon.raise(.tunnelUp) }
                try await Task.sleep(for: .milliseconds(5))
            }
            daemon.raise(.stopping)
            daemon.hub.end()
            raised.finish()
            try await end
            #expect(lines.all.first == "started" && lines.all.last == "stopping")
            let lost = lines.all.compactMap { $0.hasPrefix("lost ") ? Int($0.dropFirst(5)) : nil }
            #expect(!lost.isEmpty)
            // Each event was given or is counted.
            #expect(lines.all.count - lost.count + lost.reduce(0, +) == 20_002)
        }
    }

    @Test func followersPastTheLimitAreRefusedAndOneThatWentLeavesItsPlace() async throws {
        try await run { daemon in
            daemon.raise(.started)
            let client = daemon.client
            func follow(_ lines: Lines) -> Task<Void, any Error> {
                Task {
                    try await client.lines(APIPath.events, query: [("follow", "1")]) { try lines.add($0) }
                }
            }
            let lines = [Lines(), Lines(), Lines()]
            let tasks = lines.map { follow($0) }
            for lines in lines { try await lines.wait(for: 1) }
            let failure = await #expect(throws: Failure.self) {
                try await client.lines(APIPath.events, query: [("follow", "1")]) { _ in }
            }
            #expect(failure?.message == "3 clients follow the events already")
            tasks[0].cancel()
            _ = await tasks[0].result
            // The server sees the end of the connection a moment later.
            let next = Lines()
            let last = Task {
                for _ in 0..<3000 {
                    do {
                        return try await client.lines(APIPath.events, query: [("follow", "1")]) {
                            try next.add($0)
                        }
                    } catch is Failure {
                        try await Task.sleep(for: .milliseconds(10))
                    }
                }
            }
            try await next.wait(for: 1)
            #expect(next.all == ["started"])
            daemon.hub.end()
            for task in tasks + [last] { _ = await task.result }
        }
    }

    @Test func ordersAndDrillsReachControl() async throws {
        try await run { daemon in
            let client = daemon.client
            for (method, path) in [
                ("POST", "down"), ("POST", "up"), ("POST", "prefer"), ("DELETE", "prefer"),
            ] {
                let failure = await #expect(throws: Failure.self) {
                    let _: TunnelStatus =
                        method == "POST"
                        ? try await client.post("/v1/tunnels/zone-a/\(path)")
                        : try await client.delete("/v1/tunnels/zone-a/\(path)")
                }
                #expect(failure?.message == "no zone-a")
            }
            #expect(
                daemon.asked.withLock { $0 } == [
                    "down zone-a", "up zone-a", "prefer zone-a", "unprefer zone-a",
                ])
            let report: DrillReport = try await client.post(APIPath.drill("aws"), DrillRequest(duration: 2.5))
            #expect(report.duration == 2.5 && report.connection == "aws")
            let short: DrillReport = try await client.post(APIPath.drill("aws"))
            #expect(short.duration == -1)
        }
    }

    @Test func aDrillEndsWithItsClientAndNobodyElses() async throws {
        try await run { daemon in
            func wait(for begun: Int, open: Int) async throws {
                func isSo() -> Bool {
                    daemon.begun.load(ordering: .acquiring) == begun
                        && daemon.endless.withLock { $0.count } == open
                }
                for _ in 0..<3000 where !isSo() { try await Task.sleep(for: .milliseconds(10)) }
                try #require(isSo())
            }
            var hasty = daemon.client
            hasty.timeout = .seconds(3)
            async let other: DrillReport = daemon.client.post(APIPath.drill("endless"))
            try await wait(for: 1, open: 1)
            let ended = Task { [hasty] in
                let _: DrillReport = try await hasty.post(APIPath.drill("endless"))
            }
            await #expect(throws: Failure.self) { try await ended.value }
            try await wait(for: 2, open: 1)
            daemon.endless.withLock { $0.popLast() }?.answer(
                .success(DrillReport(connection: "endless", tunnel: "b", duration: 1)))
            #expect(try await other.tunnel == "b")
        }
    }
}
