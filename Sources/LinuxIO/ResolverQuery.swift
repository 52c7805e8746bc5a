internal import CResolver
internal import Glibc
internal import WireGuard

/// One question to c-ares, with a channel of its own.
///
/// Concurrency: a local of the resolver's thread.
@safe final class ResolverQuery {
    /// A name server of somebody else's choice is not let give more.
    private static let addressLimit = 32
    private static let tries: Int32 = 3

    private let question: ResolverQuestion
    private let asksSystemServers: Bool
    private let deadline: Instant
    private var channel: UnsafeMutableRawPointer?
    private(set) var isAnswered = false

    /// May be answered already: from /etc/hosts.
    init(_ question: ResolverQuestion, servers: [Endpoint], timeLimit: Duration) {
        self.question = question
        asksSystemServers = servers.isEmpty
        deadline = SystemClock.now() + timeLimit
        // Each round of tries waits twice as long as the one before: with one server, the whole limit.
        let rounds = Int64(1) << Int64(Self.tries) - 1
        let timeout = Int32(clamping: max(timeLimit.wholeNanoseconds / 1_000_000 / rounds, 1))
        let list = servers.map(\.description).joined(separator: ",")
        let status = unsafe cr_open(
            &channel, list.isEmpty ? nil : list, question.mark, timeout, Self.tries)
        guard status == CR_SUCCESS, let channel = unsafe channel else {
            fail(Self.words(status))
            return
        }
        unsafe cr_ask(
            channel, question.host, Self.addressLimit,
            { context, status, addresses, count in
                guard let context = unsafe context else { return }
                let query = unsafe Unmanaged<ResolverQuery>.fromOpaque(context).takeUnretainedValue()
                unsafe query.receive(status, UnsafeBufferPointer(start: addresses, count: count))
            }, Unmanaged.passUnretained(self).toOpaque())
        closeIfAnswered()
    }

    /// The channel is closed as soon as there is an answer: nothing calls back into what is gone.
    deinit { precondition(unsafe channel == nil) }

    // MARK: Waiting

    /// What to poll, each with the events that are waited for.
    var descriptors: [pollfd] {
        guard let channel = unsafe channel else { return [] }
        let capacity = Int(CR_DESCRIPTORS)
        var sockets = [Int32](repeating: -1, count: capacity)
        let bits = unsafe cr_descriptors(channel, &sockets)
        return sockets.enumerated().compactMap { index, socket in
            let events =
                (bits >> UInt32(index) & 1 != 0 ? POLLIN : 0)
                | (bits >> UInt32(index + capacity) & 1 != 0 ? POLLOUT : 0)
            return events == 0 ? nil : pollfd(fd: socket, events: Int16(events), revents: 0)
        }
    }

    /// Until the next retry, or the end of the time limit.
    var timeout: Duration {
        let left = deadline - SystemClock.now()
        guard let channel = unsafe channel else { return .zero }
        let next = unsafe cr_timeout(channel)
        return next < 0 ? left : min(left, .milliseconds(next))
    }

    func process(_ descriptor: pollfd) {
        guard let channel = unsafe channel else { return }
        let isWritable = descriptor.revents & Int16(POLLOUT) != 0
        // An error is read from the socket.
        let isReadable = descriptor.revents & ~Int16(POLLOUT) != 0
        unsafe cr_process(channel, isReadable ? descriptor.fd : -1, isWritable ? descriptor.fd : -1)
        closeIfAnswered()
    }

    func processTimeouts() {
        guard let channel = unsafe channel else { return }
        unsafe cr_process(channel, -1, -1)
        // What one family has given by then is the answer.
        if !isAnswered, deadline <= SystemClock.now() { unsafe cr_cancel(channel) }
        if !isAnswered, deadline <= SystemClock.now() { fail(Self.words(CR_CANCELLED)) }
        closeIfAnswered()
    }

    /// Without an answer from anybody.
    func abandon(_ reason: String) {
        if !isAnswered { fail(reason) }
        closeIfAnswered()
    }

    /// Not while the library is in a callback.
    private func closeIfAnswered() {
        guard isAnswered, let open = unsafe channel else { return }
        unsafe channel = nil
        unsafe cr_close(open)
    }

    // MARK: Answering

    /// In the library's order.
    private func receive(_ status: Int32, _ found: UnsafeBufferPointer<cr_address>) {
        // The question has been given up: its channel is being closed.
        guard !isAnswered else { return }
        guard status == CR_SUCCESS else { return fail(Self.words(status)) }
        var addresses: [NameResolver.Address] = []
        for index in 0..<found.count {
            let entry = unsafe found[index]
            guard let address = Self.address(entry), !addresses.contains(where: { $0.address == address })
            else { continue }
            addresses.append(NameResolver.Address(address, timeToLive: .seconds(Int64(entry.time_to_live))))
        }
        guard !addresses.isEmpty else { return fail(Self.words(CR_NO_DATA)) }
        isAnswered = true
        question.answer(.success(addresses))
    }

    private static func address(_ entry: cr_address) -> IPAddress? {
        var entry = entry
        return IPAddress(
            bytes: unsafe withUnsafeBytes(of: &entry.bytes) { bytes in
                unsafe Array(bytes.prefix(Int(entry.count)))
            })
    }

    /// The name servers of /etc/resolv.conf as it is now.
    static var systemServers: [IPAddress] {
        var servers = [cr_address](repeating: cr_address(), count: 8)
        let count = unsafe cr_system_servers(&servers, servers.count)
        return servers.prefix(count).compactMap { address($0) }
    }

    private func fail(_ reason: String) {
        isAnswered = true
        question.fail(
            reason, isOfLocalStub: asksSystemServers && Self.systemServers.allSatisfy(\.isLoopback))
    }

    private static func words(_ status: Int32) -> String {
        switch status {
        case CR_NOT_FOUND: "there is no such name"
        case CR_NO_DATA: "the name has no address"
        case CR_TIMEOUT, CR_CANCELLED: "no name server answers"
        case CR_CONNECTION_REFUSED: "no name server can be reached"
        case CR_SERVER_FAILED: "the name server failed"
        case CR_REFUSED: "the name server refused"
        case CR_BAD_NAME: "it is no host name"
        case CR_BAD_FORMAT, CR_BAD_RESPONSE: "the name server's answer is malformed"
        default: unsafe cr_text(status).map { unsafe String(cString: $0) } ?? "c-ares error \(status)"
        }
    }
}
