internal import Glibc
internal import Synchronization
package import WireGuard

/// Host names to addresses, with how long they hold: by c-ares, since getaddrinfo knows no times and cannot be
/// stopped.
///
/// A question's way:
/// 1. `resolve` leaves it for the thread, which starts with the first one and ends with the last;
/// 2. the thread opens a channel for it, which reads /etc/hosts and /etc/resolv.conf as they are now: nothing is
///    kept from one question to the next;
/// 3. it waits for all channels at once, so a name server that is silent for one name delays no other;
/// 4. the answer comes on the thread, in any case and within the time limit.
///
/// /etc/hosts goes first, then DNS for A and AAAA; the addresses are in the order of RFC 6724, so one that this
/// host has no route to is last. Other sources of nsswitch.conf are not asked.
///
/// Every socket of a question has the question's firewall mark: the answer says where a tunnel leads to, so the
/// question must not be led into a tunnel. What a name server on this host asks in turn has no mark
/// (`Problem.isOfLocalStub`).
///
/// Concurrency: any thread may ask; `stop` may be called from any but the resolver's own.
package final class NameResolver: Sendable {
    package struct Address: Hashable, Sendable {
        package let address: IPAddress
        /// Index of the interface that a link-local address is reached by; 0 for every other one.
        package let scope: UInt32
        /// Zero for one from /etc/hosts.
        package let timeToLive: Duration

        package init(_ address: IPAddress, scope: UInt32 = 0, timeToLive: Duration) {
            self.address = address
            self.scope = scope
            self.timeToLive = timeToLive
        }
    }

    /// Why there is no address, in words: `vgw.example.com does not resolve: no name server answers`.
    package struct Problem: Error, Hashable, Sendable, CustomStringConvertible {
        package let description: String
        /// Only name servers on this host were asked, such as systemd-resolved's 127.0.0.53: they ask others in
        /// turn, by sockets that have no mark.
        package let isOfLocalStub: Bool

        init(_ host: String, _ reason: String, isOfLocalStub: Bool = false) {
            description = "\(host) does not resolve: \(reason)"
            self.isOfLocalStub = isOfLocalStub
        }
    }

    /// Never empty.
    package typealias Answer = @Sendable (Result<[Address], Problem>) -> Void

    /// Asked instead of those in /etc/resolv.conf.
    private let servers: [Endpoint]
    private let work: ResolverWork

    /// `servers` are asked instead of those in /etc/resolv.conf.
    package init(servers: [Endpoint] = [], timeLimit: Duration = .seconds(10)) {
        self.servers = servers
        work = ResolverWork(servers: servers, timeLimit: timeLimit)
    }

    deinit { work.stop()?.join() }

    /// `mark` is SO_MARK of what is sent for this question; 0 is none. It decides too which addresses this host
    /// has a route to.
    ///
    /// `fe80::1%eth0` is answered by the index that the interface has now, before this returns.
    package func resolve(_ host: String, mark: UInt32 = 0, answer: @escaping Answer) {
        if let scoped = ScopedAddress(host) { return answer(scoped.resolved()) }
        work.add(ResolverQuestion(host: host, mark: mark, answer: answer))
    }

    /// The name servers that would be asked now.
    package var serverAddresses: [IPAddress] {
        servers.isEmpty ? ResolverQuery.systemServers : servers.map(\.address)
    }

    /// Where they listen: those in /etc/resolv.conf have no other port.
    package var serverPorts: Set<UInt16> { servers.isEmpty ? [53] : Set(servers.map(\.port)) }

    /// Returns true if all name servers of /etc/resolv.conf are on this host.
    package static var systemIsLocalStub: Bool { ResolverQuery.systemServers.allSatisfy(\.isLoopback) }

    /// Ends the thread, and waits for that: it does not wait for name servers. What is still open is answered
    /// as unresolved before this returns, and so is whatever is asked later.
    package func stop() { work.stop()?.join() }
}

struct ResolverQuestion: Sendable {
    let host: String
    let mark: UInt32
    let answer: NameResolver.Answer

    func fail(_ reason: String, isOfLocalStub: Bool = false) {
        answer(.failure(NameResolver.Problem(host, reason, isOfLocalStub: isOfLocalStub)))
    }
}

/// What the resolver and its thread share: the thread holds no reference to the resolver.
private final class ResolverWork: Sendable {
    private struct State: Sendable {
        var waiting: [ResolverQuestion] = []
        var thread: Thread?
        var wake: EventFD?
        var isRunning = false
        var isStopped = false
    }

    /// Questions asked at once; each has a socket a name server, and one for its order of addresses.
    private static let activeLimit = 32
    private static let waitingLimit = 4096
    private static let stopped = "vgwd is ending"

    private let servers: [Endpoint]
    private let timeLimit: Duration
    private let state = Mutex(State())

    init(servers: [Endpoint], timeLimit: Duration) {
        self.servers = servers
        self.timeLimit = timeLimit
    }

    func add(_ question: ResolverQuestion) {
        let refusal = state.withLock { state -> String? in
            guard !state.isStopped else { return Self.stopped }
            guard state.waiting.count < Self.waitingLimit else { return "too many names at once" }
            do throws(SystemError) {
                if !state.isRunning {
                    let wake = if let wake = state.wake { wake } else { try EventFD() }
                    state.thread = try Thread.spawn(name: "vgwd-resolve") { self.run(wake) }
                    state.wake = wake
                    state.isRunning = true
                }
            } catch {
                return "\(error)"
            }
            state.waiting.append(question)
            state.wake?.signal()
            return nil
        }
        if let refusal { question.fail(refusal) }
    }

    func stop() -> Thread? {
        let (waiting, thread) = state.withLock { state in
            defer { state.waiting = [] }
            state.isStopped = true
            state.wake?.signal()
            return (state.waiting, state.thread)
        }
        for question in waiting { question.fail(Self.stopped) }
        return thread
    }

    /// Until nothing is left to ask.
    private func run(_ wake: EventFD) {
        var queries: [ResolverQuery] = []
        while let questions = take(active: queries.count) {
            for question in questions {
                queries.append(ResolverQuery(question, servers: servers, timeLimit: timeLimit))
            }
            queries.removeAll { $0.isAnswered }
            if queries.isEmpty { continue }
            wait(for: queries, wake)
            queries.removeAll { $0.isAnswered }
        }
        for query in queries { query.abandon(Self.stopped) }
    }

    /// Nil when the thread is to end.
    private func take(active: Int) -> [ResolverQuestion]? {
        state.withLock { state in
            guard !state.isStopped else { return nil }
            let count = min(Self.activeLimit - active, state.waiting.count)
            if active == 0, count == 0 {
                state.isRunning = false
                return nil
            }
            defer { state.waiting.removeFirst(count) }
            return Array(state.waiting[..<count])
        }
    }

    /// For a datagram, the next retry, the end of a time limit, or another question.
    private func wait(for queries: [ResolverQuery], _ wake: EventFD) {
        var descriptors = [pollfd(fd: wake.fd, events: Int16(POLLIN), revents: 0)]
        var owners: [Int] = [0]
        var next = Duration.seconds(60)
        for (index, query) in queries.enumerated() {
            for descriptor in query.descriptors {
                descriptors.append(descriptor)
                owners.append(index)
            }
            next = min(next, query.timeout)
        }
        let count = descriptors.count
        _ = unsafe descriptors.withUnsafeMutableBufferPointer { descriptors in
            unsafe System.poll(descriptors.baseAddress, count, milliseconds: System.milliseconds(next))
        }
        if descriptors[0].revents != 0 { wake.drain() }
        for (descriptor, owner) in zip(descriptors, owners).dropFirst() where descriptor.revents != 0 {
            queries[owner].process(descriptor)
        }
        for query in queries { query.processTimeouts() }
    }
}
