internal import ControlAPI
internal import HTTPTypes
internal import HummingbirdCore
internal import LinuxIO
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import ServiceLifecycle
internal import Synchronization
internal import WireGuard

/// HTTP/1.1 with JSON on a Unix socket, for `vgwctl` and `curl --unix-socket`. The process's umask keeps the
/// socket root's alone: there are no roles yet.
///
/// Concurrency: runs on hummingbird's own threads and touches no state: a request becomes a command in the
/// control thread's mailbox and an awaited answer.
final class ControlServer: Sendable {
    /// Idle or slow clients are let go after this.
    private static let idleTimeout = TimeAmount.seconds(10)
    /// Half of the descriptors that a process usually has: clients that say nothing do not keep others out,
    /// or the daemon short.
    private static let stopTimeout: Duration = .seconds(1)
    private static let eventsInChunk = 100

    /// One thread, whatever the machine: NIO's own group has one for each processor, with three descriptors each.
    private static let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    private let path: String
    private let mailbox: Mailbox<ControlCommand>
    private let drops: DropCounters
    private let log: Logger
    private let connectionLimit: Int
    private let running = Mutex(Running())

    private struct Running: Sendable {
        enum Stage: Sendable {
            case starting
            /// The socket's file, as it was when the server began to listen.
            case listening(FileIdentity)
            case failed
        }

        var stage = Stage.starting
        var group: ServiceGroup?
        var ended: EventCounter?
        /// How often the server was started.
        var generation = 0
    }

    init(
        path: String, mailbox: Mailbox<ControlCommand>, connectionLimit: Int, drops: DropCounters, log: Logger
    ) {
        self.path = path
        self.connectionLimit = connectionLimit
        self.mailbox = mailbox
        self.drops = drops
        self.log = log
    }

    /// Returns at once; the mailbox hears of success and failure.
    func start() {
        let generation = running.withLock {
            $0 = Running(generation: $0.generation + 1)
            return $0.generation
        }
        do {
            if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
                try AtomicFile.makeDirectory(String(path[..<slash]), mode: 0o755)
            }
            let newborn = UnixListener.hidden(path, generation: generation)
            try UnixListener.removeStale(path)
            try UnixListener.removeStale(newborn)
            let ended = try EventCounter()
            let group = ServiceGroup(
                configuration: ServiceGroupConfiguration(
                    services: [try makeServer(listeningAt: newborn)], logger: quietLog))
            running.withLock {
                $0.group = group
                $0.ended = ended
            }
            Task.detached { [self] in
                do {
                    try await group.run()
                } catch {
                    // One whose socket was lost may end as it likes.
                    if running.withLock({ $0.group === group }) { fail(error) }
                }
                ended.signal()
            }
        } catch {
            fail(error)
        }
    }

    private func fail(_ error: any Error) {
        running.withLock { $0.stage = .failed }
        let code = (error as? SystemError)?.code ?? (error as? IOError)?.errnoCode
        let isForbidden = [SystemError.notPermitted, SystemError.accessDenied, SystemError.readOnly].contains(
            code)
        mailbox.post(
            .serverHasFailed(
                "\(error)", exitStatus: isForbidden ? DaemonError.notPermitted : DaemonError.failure))
    }

    /// Gives the socket its name. NIO removes whatever is at the path that it was bound to, when it ends: the name of
    /// a server that came after it would go.
    private func noteListening(at newborn: String) {
        do throws(SystemError) {
            let file = try UnixListener.publish(newborn, as: path)
            running.withLock { $0.stage = .listening(file) }
            mailbox.post(.serverIsReady)
        } catch {
            if let group = running.withLock({ $0.group }) {
                Task.detached { await group.triggerGracefulShutdown() }
            }
            fail(error)
        }
    }

    /// Listens anew when the socket's file was removed or replaced, or when the server has failed. Requests that are
    /// being answered are finished. Returns true if the file was gone.
    func restoreIfLost() -> Bool {
        let (stage, group) = running.withLock { ($0.stage, $0.group) }
        switch stage {
        case .starting: return false
        case .listening(let file):
            guard FileIdentity(path: path) != file else { return false }
            if let group { Task.detached { await group.triggerGracefulShutdown() } }
            start()
            return true
        case .failed:
            start()
            return false
        }
    }

    /// Lets requests that are being answered finish, for a second at most.
    func stop() {
        let (stage, group, ended) = running.withLock { ($0.stage, $0.group, $0.ended) }
        guard let group, let ended else { return }
        Task.detached { await group.triggerGracefulShutdown() }
        if let epoll = try? Epoll(), (try? epoll.add(fd: ended.fd, token: 0)) != nil {
            _ = try? epoll.wait(timeout: Self.stopTimeout)
        }
        if case .listening(let file) = stage, FileIdentity(path: path) == file {
            try? AtomicFile.remove(path)
        }
    }

    /// Hummingbird logs each request; that is not for an operator.
    private var quietLog: Logger {
        var quiet = log
        quiet.logLevel = .critical
        return quiet
    }

    /// HummingbirdCore's server without Hummingbird's application around it: that keeps a clock for a header
    /// that nobody reads here, and wakes an idle gateway six times a second for it.
    private func makeServer(listeningAt newborn: String) throws -> any Service {
        let mailbox = mailbox
        let drops = drops
        let decoder = HTTP1Channel.Configuration.DecoderConfiguration(
            maxHeaderFieldSize: 8 * 1024, maxHeaderListSize: 16 * 1024, maxHeaderFieldCount: 64)
        let http = HTTPServerBuilder.http1(
            configuration: HTTP1Channel.Configuration(
                additionalChannelHandlers: [JunkCounter(drops)], idleTimeout: Self.idleTimeout,
                httpDecoderConfiguration: decoder))
        let configuration = ServerConfiguration(
            address: .unixDomainSocket(path: newborn), backlog: 256,
            availableConnectionsDelegate: MaximumAvailableConnections(connectionLimit, logger: quietLog))
        return try http.buildServer(
            configuration: configuration, eventLoopGroup: Self.eventLoop,
            logger: quietLog
        ) { request, writer, _ in
            let response = await Self.respond(to: request, mailbox, drops)
            try await writer.write(response: response.head, body: response.body)
        } onServerRunning: { [self] _ in
            noteListening(at: newborn)
        }
    }

    private static func respond(
        to request: Request, _ mailbox: Mailbox<ControlCommand>, _ drops: DropCounters
    ) async -> Response {
        var isUnderstood = false
        do throws(APIError) {
            var query: [String: String] = [:]
            for parameter in request.uri.queryParameters {
                query[String(parameter.key)] = String(parameter.value)
            }
            let asked = try ControlRequest(
                method: request.method.rawValue, path: request.uri.path, query: query)
            isUnderstood = true
            return try await answer(asked, request, mailbox)
        } catch {
            if !isUnderstood || error.code == .badRequest || error.code == .tooLarge {
                drops.add(.controlRequestMalformed)
            }
            return encode(error, status: HTTPResponse.Status(code: error.code.httpStatus))
        }
    }

    /// Counts what is no HTTP, or past the limits of a header. Its sender is turned away by what comes next.
    private final class JunkCounter: ChannelInboundHandler, RemovableChannelHandler {
        /// What is HTTP passes unseen.
        typealias InboundIn = Never

        private let drops: DropCounters

        init(_ drops: DropCounters) { self.drops = drops }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            // A connection that broke is no request.
            if !(error is IOError), !(error is ChannelError) { drops.add(.controlRequestMalformed) }
            context.fireErrorCaught(error)
        }
    }

    private static func answer(
        _ asked: ControlRequest, _ request: Request, _ mailbox: Mailbox<ControlCommand>
    ) async throws(APIError) -> Response {
        func status() async throws(APIError) -> GatewayStatus { try await ask(mailbox) { .status($0) } }
        switch asked {
        case .status: return encode(try await status())
        case .connections: return encode(ConnectionList(connections: try await status().connections))
        case .connection(let name):
            guard let found = try await status().connections.first(where: { $0.name == name }) else {
                throw APIError(
                    code: .notFound, message: "there is no connection \(name)",
                    hint: "see \(APIPath.connections)")
            }
            return encode(found)
        case .tunnels: return encode(TunnelList(tunnels: try await status().connections.flatMap(\.tunnels)))
        case .tunnel(let name):
            guard
                let found = try await status().connections.flatMap(\.tunnels).first(where: { $0.name == name }
                )
            else {
                throw APIError(
                    code: .notFound, message: "there is no tunnel \(name)", hint: "see \(APIPath.tunnels)")
            }
            return encode(found)
        case .routes:
            let routes: RouteList = try await ask(mailbox) { .routes($0) }
            return encode(routes)
        case .addRoute:
            let wanted: RouteRequest = try await decodeBody(
                request.body, like: #"{"prefix": "10.20.0.0/16", "connection": "NAME"}"#)
            let entry: RouteEntry = try await ask(mailbox) { .addRoute(wanted, $0) }
            return encode(entry, status: .created)
        case .removeRoute(let prefix, let save):
            let entry: RouteEntry = try await ask(mailbox) { .removeRoute(prefix: prefix, save: save, $0) }
            return encode(entry)
        case .explainRoute(let question):
            let way: RouteExplanation = try await ask(mailbox) {
                .explainRoute(question, $0)
            }
            return encode(way)
        case .order(let order, let name):
            let tunnel: TunnelStatus = try await ask(mailbox) { .tunnel(order, name: name, $0) }
            return encode(tunnel)
        case .drill(let name):
            var response = encode(try await drill(name, request, mailbox))
            // The server closes it, as it has listened for the client's closing.
            response.headers[.connection] = "close"
            return response
        case .events(let since, let follow):
            let page: EventPage = try await ask(mailbox) { .events(since: since, follow: follow, $0) }
            return stream(page, to: request)
        }
    }

    /// As long as the drill takes, and no longer than its client waits: nobody cuts a site's tunnel and goes away,
    /// or loses his own session to it, for longer than he must.
    private static func drill(
        _ connection: String, _ request: Request, _ mailbox: Mailbox<ControlCommand>
    ) async throws(APIError) -> DrillReport {
        let waiter = DrillWaiter()
        do {
            return try await request.body.consumeWithInboundCloseHandler { body in
                let wanted: DrillRequest = try await decodeBody(
                    body, like: #"{"duration": 10}"#, whenEmpty: DrillRequest())
                return try await ask(mailbox) { .drill(connection: connection, wanted, waiter, $0) }
            } onInboundClosed: {
                waiter.leave()
                mailbox.post(.drillIsAbandoned)
            }
        } catch {
            throw error as? APIError ?? APIError(code: .failed, message: "\(error)")
        }
    }

    /// A line an event, in chunks. The next is not taken from the follower before the last one is on its way,
    /// so that a reader who is slow makes its own queue overflow, and nothing else grow.
    private static func stream(_ page: EventPage, to request: Request) -> Response {
        Response(
            status: .ok, headers: [.contentType: "application/jsonl"],
            body: ResponseBody { writer in
                for lines in page.lines.chunks(of: eventsInChunk) { try await writer.write(encode(lines)) }
                if let follower = page.follower {
                    // Idle as a gateway is, only its closing tells that the client is gone.
                    try await request.body.consumeWithInboundCloseHandler { _ in
                        while let lines = await follower.next() { try await writer.write(encode(lines)) }
                    } onInboundClosed: {
                        follower.end()
                    }
                }
                try await writer.finish(nil)
            })
    }

    private static func encode(_ lines: some Sequence<EventLine>) -> ByteBuffer {
        var buffer = ByteBuffer()
        for line in lines {
            guard let bytes = try? JSON.encode(line) else { continue }
            buffer.writeBytes(bytes)
            buffer.writeInteger(UInt8(ascii: "\n"))
        }
        return buffer
    }

    private static func ask<Value: Sendable>(
        _ mailbox: Mailbox<ControlCommand>,
        _ command: (@escaping ControlCommand.Answer<Value>) -> ControlCommand
    ) async throws(APIError) -> Value {
        let answer: Result<Value, APIError> = await withCheckedContinuation { continuation in
            mailbox.post(command { continuation.resume(returning: $0) })
        }
        return try answer.get()
    }

    /// `example` is what would be right.
    private static func decodeBody<Value: Decodable>(
        _ body: RequestBody, like example: String, whenEmpty fallback: Value? = nil
    ) async throws(APIError) -> Value {
        let bytes: ByteBuffer
        do {
            bytes = try await body.collect(upTo: APIPath.requestLimit)
        } catch {
            throw APIError(code: .tooLarge, message: "the body is longer than \(APIPath.requestLimit) bytes")
        }
        if bytes.readableBytes == 0, let fallback { return fallback }
        do {
            return try JSON.decode(from: Array(bytes.readableBytesView))
        } catch {
            throw APIError(
                code: .badRequest, message: "the body is not what is expected here", hint: "send \(example)")
        }
    }

    private static func encode(_ value: some Encodable, status: HTTPResponse.Status = .ok) -> Response {
        guard let bytes = try? JSON.encode(value) else { return Response(status: .internalServerError) }
        return Response(
            status: status, headers: [.contentType: "application/json"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
    }
}

extension Array {
    fileprivate func chunks(of size: Int) -> [ArraySlice<Element>] {
        stride(from: 0, to: count, by: size).map { self[$0..<Swift.min($0 + size, count)] }
    }
}
