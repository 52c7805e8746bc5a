internal import GatewayCore
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What the `wg` socket asks of the control loop.
protocol WgHandler: AnyObject {
    func wgReport() -> WgDeviceReport
    /// 0, or an errno. Nothing has changed when it is not 0. `client` is who asks, where the kernel tells.
    func wgApply(_ set: WgSet, by client: UnixStream.Credentials?) -> Int32
}

/// The clients of `/var/run/wireguard/INTERFACE.sock`, on the control thread's epoll. Each has a parser and a
/// buffer of its own: one that stops in the middle of a request, or does not read its answer, waits alone.
struct WgServer: ~Copyable {
    static let directory = "/var/run/wireguard"

    /// Where `wg` looks for an interface.
    static func socket(of interface: String) -> String { "\(directory)/\(interface).sock" }

    private static let readLimit = 64 * 1024
    /// Past this a client is not read from until it has taken its answers.
    private static let backlogLimit = 64 * 1024

    private final class Client {
        let stream: UnixStream
        var parser: WgRequestParser
        /// Answers not yet taken. Each is wiped where it was made: it may hold the private key.
        private var answers: [[UInt8]] = []
        /// Bytes of the first answer that were taken.
        private var sent = 0
        var isFinished = false
        let since: Instant

        init(_ stream: consuming UnixStream, parser: WgRequestParser, since: Instant) {
            self.stream = stream
            self.parser = parser
            self.since = since
        }

        deinit {
            parser.wipe()
            while !answers.isEmpty { dropFirst() }
        }

        var pending: Int { answers.reduce(-sent) { $0 + $1.count } }

        func queue(_ answer: consuming [UInt8]) { answers.append(answer) }

        /// Gives the client what it takes now; false when the connection is gone.
        func flush() -> Bool {
            // No name for the first one: wiping would then wipe a copy.
            while !answers.isEmpty {
                guard let count = stream.write(answers[0][sent...]) else { return false }
                if count == 0 { return true }
                sent += count
                if sent == answers[0].count { dropFirst() }
            }
            return true
        }

        private func dropFirst() {
            for place in answers[0].indices { answers[0][place] = 0 }
            answers.removeFirst()
            sent = 0
        }
    }

    private var listener: UnixListener
    private var clients: [UInt64: Client] = [:]
    private var nextToken: UInt64
    private let listenerToken: UInt64
    private let interfaceIndex: (String) -> UInt32?
    private let clientLimit: Int
    private let drops: DropCounters
    private let log: Logger
    /// Whoever connects in a loop does not fill the log.
    private var quietUntil = Instant(nanoseconds: 0)
    private static let complaintInterval: Duration = .seconds(60)

    /// Tokens from `listenerToken` up are this server's.
    init(
        listener: consuming UnixListener, listenerToken: UInt64, epoll: borrowing Epoll,
        clientLimit: Int, interfaceIndex: @escaping (String) -> UInt32?, drops: DropCounters, log: Logger
    ) throws(SystemError) {
        self.listenerToken = listenerToken
        nextToken = listenerToken + 1
        self.clientLimit = clientLimit
        self.interfaceIndex = interfaceIndex
        self.drops = drops
        self.log = log
        self.listener = listener
        try epoll.add(fd: self.listener.fd, token: listenerToken)
    }

    /// False once the socket file was removed.
    var isPresent: Bool { listener.isPresent }

    /// At another listener; clients that are connected stay.
    mutating func listen(at next: consuming UnixListener, epoll: borrowing Epoll) throws(SystemError) {
        try epoll.add(fd: next.fd, token: listenerToken)
        epoll.remove(fd: listener.fd)
        listener = next
    }

    mutating func handle(_ event: Epoll.Event, epoll: borrowing Epoll, handler: some WgHandler, now: Instant)
    {
        if event.token == listenerToken {
            accept(epoll, now)
        } else if let client = clients[event.token] {
            serve(client, event.token, epoll, handler)
        }
    }

    private mutating func accept(_ epoll: borrowing Epoll, _ now: Instant) {
        do throws(SystemError) {
            while let stream = try listener.accept() {
                if clients.count >= clientLimit,
                    let oldest = clients.min(by: { $0.value.since < $1.value.since })
                {
                    complain("wg client turned out", "more than \(clientLimit) clients", now)
                    close(oldest.key, epoll)
                }
                let client = Client(
                    stream, parser: WgRequestParser(interfaceIndex: interfaceIndex), since: now)
                let token = nextToken
                nextToken += 1
                try epoll.add(fd: client.stream.fd, token: token)
                clients[token] = client
            }
        } catch {
            complain("wg client refused", "\(error)", now)
        }
    }

    private mutating func complain(_ message: Logger.Message, _ reason: String, _ now: Instant) {
        guard now >= quietUntil else { return }
        quietUntil = now + Self.complaintInterval
        log.notice(message, metadata: ["reason": "\(reason)"])
    }

    private mutating func serve(
        _ client: Client, _ token: UInt64, _ epoll: borrowing Epoll, _ handler: some WgHandler
    ) {
        if !client.isFinished, client.pending < Self.backlogLimit {
            var bytes: [UInt8] = []
            switch client.stream.read(into: &bytes, limit: Self.readLimit) {
            case .bytes:
                let requests = client.parser.feed(bytes)
                // Part of it may be a key.
                for place in bytes.indices { bytes[place] = 0 }
                guard let requests else {
                    drops.add(.wgRequestRefused)
                    return close(token, epoll)
                }
                for request in requests { client.queue(answer(request, of: client, handler)) }
            case .wouldBlock: break
            // `socat` and shells close their half after the question, and wait for the answer.
            case .closed: client.isFinished = true
            }
        }
        guard client.flush() else { return close(token, epoll) }
        if client.pending == 0, client.isFinished { return close(token, epoll) }
        var interest: Epoll.Interest = []
        if client.pending > 0 { interest.insert(.writable) }
        if !client.isFinished, client.pending < Self.backlogLimit { interest.insert(.readable) }
        do throws(SystemError) {
            try epoll.modify(fd: client.stream.fd, token: token, events: interest)
        } catch {
            close(token, epoll)
        }
    }

    private func answer(_ request: WgRequest, of client: Client, _ handler: some WgHandler) -> [UInt8] {
        switch request {
        case .get: return WgReply.get(handler.wgReport())
        case .set(let set):
            let errno = handler.wgApply(set, by: client.stream.credentials)
            if errno != 0 { drops.add(.wgRequestRefused) }
            return WgReply.set(errno: errno)
        case .refused(let isSet, let errno):
            drops.add(.wgRequestRefused)
            return WgReply.failed(isSet: isSet, errno: errno)
        }
    }

    private mutating func close(_ token: UInt64, _ epoll: borrowing Epoll) {
        guard let client = clients.removeValue(forKey: token) else { return }
        epoll.remove(fd: client.stream.fd)
    }
}
