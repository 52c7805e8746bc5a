import ControlAPI
import FoundationEssentials
internal import GatewayCore
import LinuxIO
import Logging
import NIOCore
import Synchronization
import Testing
import WireGuard

@testable import ControlServer
@testable import Daemon
@testable import vgwctl

/// The server and the client over a real socket; a task stands in for the control thread. One after the other: a server
/// that stops keeps a thread of the runtime, and there may be two.
@Suite(.serialized) struct ControlServerTests {
    private final class Daemon: Sendable {
        let path = "/tmp/vgwd-control-\(UInt64.random(in: .min ... .max)).sock"
        let hub = EventHub(limit: 3)
        let log = Mutex(EventLog())
        let asked = Mutex<[String]>([])
        /// Drills that end only when somebody ends them, and how many there were.
        let endless = Mutex<[(waiter: DrillWaiter, answer: ControlCommand.Answer<DrillReport>)]>([])
        let begun = Atomic(0)
        private let wake: EventFD
        private let mailbox: Mailbox<ControlCommand>
        private let server: ControlServer
        private let thread = Mutex<Thread?>(nil)
        private let isEnding = Atomic(false)

        init() async throws {
            wake = try EventFD()
            mailbox = Mailbox(wake: wake)
            let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            server = ControlServer(
                ControlSocket(
                    path: path, mailbox: mailbox, clientLimit: 16, drops: DropCounters(), log: quiet))
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
            case .drill("endless", _, let waiter, _, let answer):
                endless.withLock { $0.append((waiter, answer)) }
                begun.add(1, ordering: .releasing)
            case .drillIsAbandoned:
                endless.withLock { drills in
                    for drill in drills where drill.waiter.hasLeft {
                        drill.answer(.failure(APIError(code: .failed, message: "abandoned")))
                    }
                    drills.removeAll { $0.waiter.hasLeft }
                }
            case .drill(let connection, let request, _, _, let answer):
                answer(
                    .success(
                        DrillReport(connection: connection, tunnel: "a", duration: request.duration ?? -1)))
            case .tunnel(let order, let name, let caller, let answer):
                asked.withLock { $0.append("\(order) \(name) by \(caller.name ?? "nobody")") }
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
                daemon.asked.withLock { $0 }
                    == ["down", "up", "prefer", "unprefer"].map {
                        "\($0) zone-a by \(Caller(user: Users.current).name ?? "nobody")"
                    })
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

    /// The answer to what is sent in one go, up to its end or for five seconds; `halfCloses` ends the sending there.
    private static func exchange(_ daemon: Daemon, _ request: String) async throws -> String {
        let stream = try UnixStream.connect(path: daemon.path)
        let bytes = Array(request.utf8)
        #expect(stream.write(bytes[...]) == bytes.count)
        stream.finishWriting()
        var answer: [UInt8] = []
        for _ in 0..<500 {
            switch stream.read(into: &answer) {
            case .bytes: continue
            case .closed: return String(decoding: answer, as: UTF8.self)
            case .wouldBlock: try await Task.sleep(for: .milliseconds(10))
            }
        }
        return String(decoding: answer, as: UTF8.self)
    }

    @Test(
        arguments: [
            ("HEAD /v1/events", "200 OK", nil), ("HEAD /v1/nothing", "404 Not Found", nil),
            ("HEAD /v1/tunnels/a/down", "405 Method Not Allowed", "POST"),
            ("PUT /v1/status", "405 Method Not Allowed", "GET, HEAD"),
            ("DELETE /v1/tunnels/a/prefer/x", "404 Not Found", nil),
            ("GET /v1/tunnels/a/prefer", "405 Method Not Allowed", "POST, DELETE"),
            ("GET /v1/tunnels/a%00%1b%5B31m", "400 Bad Request", nil),
            ("GET /v1/tunnels/%zz", "400 Bad Request", nil),
        ] as [(String, String, String?)])
    func `HEAD has no body, and 405 says what is allowed`(line: String, status: String, allow: String?)
        async throws
    {
        try await run { daemon in
            daemon.raise(.started)
            let answer = try await Self.exchange(
                daemon, "\(line) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 \(status)\r\n"), "\(answer)")
            #expect(answer.contains("\r\nAllow: \(allow ?? "")\r\n") == (allow != nil), "\(answer)")
            #expect(answer.hasSuffix("\r\n\r\n") == line.hasPrefix("HEAD"), "\(answer)")
            #expect(!answer.contains("\u{1b}") && !answer.contains("\u{0}"))
        }
    }

    @Test func `a body that is cut off is not called too long, and one that is too long is`() async throws {
        try await run { daemon in
            let head = "POST /v1/routes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            for cut in ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"pre\r\n"] {
                let answer = try await Self.exchange(daemon, head + cut)
                #expect(
                    answer.hasPrefix("HTTP/1.1 400 ") && answer.contains("ended before it was whole"),
                    "\(answer)")
            }
            let long = String(repeating: " ", count: APIPath.requestLimit + 1)
            let answer = try await Self.exchange(
                daemon, head + "Content-Length: \(long.count)\r\n\r\n\(long)")
            #expect(answer.hasPrefix("HTTP/1.1 413 ") && answer.contains("longer than"), "\(answer)")
            let name = #"{"prefix": "10.0.0.0/8", "connection": "\u001b[31m"}"#
            let refused = try await Self.exchange(
                daemon, head + "Content-Length: \(name.utf8.count)\r\n\r\n\(name)")
            #expect(refused.hasPrefix("HTTP/1.1 400 ") && refused.contains("control character"), "\(refused)")
        }
    }

    @Test func `whoever asks is answered among any number of clients that say nothing`() async throws {
        try await run { daemon in
            var silent: [SilentClient] = []
            // The limit is 16, and a silent client is let go by itself after 10 s.
            let start = SystemClock.now()
            for round in 1...10 {
                for _ in 0..<20 {
                    let client = try SilentClient(daemon.path)
                    // Half a request is silence too.
                    if round % 2 == 0 {
                        client.say("POST /v1/routes HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
                    }
                    silent.append(client)
                }
                let answer = try await Self.exchange(
                    daemon, "GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                #expect(answer.hasPrefix("HTTP/1.1 404 "), "round \(round): \(answer)")
            }
            #expect(SystemClock.now() - start < .seconds(9))
            #expect(silent.count == 200)
        }
    }

    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"k", Failure.Status.unavailable),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", .unavailable), ("SSH-2.0-x\r\n", .protocolBroken),
    ])
    func `an answer that is cut off is a gateway that has gone, and no HTTP is none`(
        answer: String, status: Failure.Status
    ) async throws {
        let path = "/tmp/vgwd-control-\(UInt64.random(in: .min ... .max)).sock"
        var listener = try UnixListener(path: path)
        let client = ControlClient(socket: path, timeout: .seconds(60))
        let asking = Task { try await client.lines(APIPath.events, query: [("follow", "1")]) { _ in } }
        // Without keeping a thread that the client may need.
        var isAnswered = false
        while !isAnswered {
            try await Task.sleep(for: .milliseconds(10))
            guard let stream = try listener.accept() else { continue }
            var request: [UInt8] = []
            while request.isEmpty {
                try await Task.sleep(for: .milliseconds(10))
                _ = stream.read(into: &request)
            }
            #expect(stream.write(Array(answer.utf8)[...]) == answer.utf8.count)
            isAnswered = true
        }
        let failure = await #expect(throws: Failure.self) { try await asking.value }
        #expect(failure?.status == status, "\(String(describing: failure))")
    }

    /// Stays connected for as long as it lives.
    private final class SilentClient {
        private let stream: UnixStream

        init(_ path: String) throws { stream = try UnixStream.connect(path: path) }

        func say(_ text: String) { _ = stream.write(Array(text.utf8)[...]) }
    }
}
