internal import ControlAPI
package import Daemon
internal import GatewayCore
internal import Glibc
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
package final class ControlServer: ControlListener {
    /// Idle or slow clients are let go after this.
    private static let idleTimeout = TimeAmount.seconds(10)
    /// Clients that wait to be let in: past this the kernel refuses them. As many as net.core.somaxconn allows.
    private static let backlog = 4096
    private static let stopTimeout: Duration = .seconds(1)
    private static let complaintInterval: Duration = .seconds(60)
    private static let eventsInChunk = 100

    /// One thread, whatever the machine: NIO's own group has one for each processor, with three descriptors each.
    private static let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// How often this process has started a server. It is part of the hidden name: a server that ends slowly removes the
    /// name that it was bound to, which must not be another's by then.
    private static let starts = Atomic(0)

    private let socket: ControlSocket
    private var path: String { socket.path }
    private var mailbox: Mailbox<ControlCommand> { socket.mailbox }
    private var drops: DropCounters { socket.drops }
    private var log: Logger { socket.log }
    private let running = Mutex(Running())
    private let clients: Mutex<ControlClients<ObjectIdentifier>>
    private let channels = Mutex<[ObjectIdentifier: any Channel]>([:])
    private let quietUntil = Mutex(Instant(nanoseconds: 0))

    private struct Running: Sendable {
        enum Stage: Sendable {
            case starting
            /// The socket's file, as it was when the server began to listen.
            case listening(FileIdentity)
            case failed
        }

        var stage = Stage.starting
        var group: ServiceGroup?
        var ended: EventFD?
    }

    package init(_ socket: ControlSocket) {
        self.socket = socket
        clients = Mutex(ControlClients(limit: socket.clientLimit))
    }

    package func start() {
        running.withLock { $0 = Running() }
        let generation = Self.starts.wrappingAdd(1, ordering: .relaxed).newValue
        do {
            if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
                try AtomicFile.makeDirectory(String(path[..<slash]), mode: 0o755)
            }
            let newborn = UnixListener.hidden(path, generation: generation)
            try UnixListener.removeStale(path)
            try UnixListener.removeStale(newborn)
            let ended = try EventFD()
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
        let isForbidden = [EPERM, EACCES, EROFS].contains(
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

    package func restoreIfLost() -> Bool {
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

    package func stop() {
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
        let decoder = HTTP1Channel.Configuration.DecoderConfiguration(
            maxHeaderFieldSize: 8 * 1024, maxHeaderListSize: 16 * 1024, maxHeaderFieldCount: 64)
        let http = HTTPServerBuilder.http1(
            configuration: HTTP1Channel.Configuration(
                additionalChannelHandlers: [ConnectionWatch(self)], idleTimeout: Self.idleTimeout,
                httpDecoderConfiguration: decoder))
        let configuration = ServerConfiguration(
            address: .unixDomainSocket(path: newborn), backlog: Self.backlog,
            availableConnectionsDelegate: MaximumAvailableConnections(
                socket.clientLimit, logger: quietLog))
        return try http.buildServer(
            configuration: configuration, eventLoopGroup: Self.eventLoop,
            logger: quietLog
        ) { [self] request, writer, channel in
            let client = ObjectIdentifier(channel)
            // Also when the answer cannot be written.
            defer { clients.withLock { $0.wasAnswered(client) } }
            let response = await respond(to: request, by: channel)
            try await writer.write(response: response.head, body: response.body)
        } onServerRunning: { [self] _ in
            noteListening(at: newborn)
        }
    }

    private func respond(to request: Request, by channel: any Channel) async -> Response {
        // As RFC 9110, section 9.3.2, has it: what GET would say, without the body.
        let isHead = request.method == .head
        var path = request.uri.path
        var isUnderstood = false
        do throws(APIError) {
            var query: [String: String] = [:]
            for parameter in request.uri.queryParameters {
                query[String(parameter.key)] = String(parameter.value)
            }
            guard let decoded = APIPath.percentDecoded(path) else { throw ControlRequest.undecodable }
            path = decoded
            var asked = try ControlRequest(
                method: isHead ? "GET" : request.method.rawValue, path: path, query: query)
            if isHead, case .events(let since, _) = asked { asked = .events(since: since, follow: false) }
            isUnderstood = true
            let response = try await answer(asked, Exchange(request: request, channel: channel))
            return isHead ? response.createHeadResponse() : response
        } catch {
            if !isUnderstood || error.code == .badRequest || error.code == .tooLarge {
                drops.add(.controlRequestMalformed)
            }
            var response = Self.encode(error, status: HTTPResponse.Status(code: error.code.httpStatus))
            if error.code == .methodNotAllowed {
                // RFC 9110, section 15.5.6.
                let methods = ControlRequest.methods(at: path)
                response.headers[.allow] =
                    (methods + (methods.contains("GET") ? ["HEAD"] : [])).joined(separator: ", ")
            }
            return isHead ? response.createHeadResponse() : response
        }
    }

    /// One request, and the connection that it came by.
    private struct Exchange: Sendable {
        let request: Request
        let channel: any Channel

        var client: ObjectIdentifier { ObjectIdentifier(channel) }
    }

    /// Tells `clients` of a connection, and counts what is no HTTP, or past the limits of a header: its sender is turned
    /// away by what comes next.
    private final class ConnectionWatch: ChannelInboundHandler, RemovableChannelHandler {
        /// What is HTTP passes unseen.
        typealias InboundIn = Never

        private let server: ControlServer
        private var drops: DropCounters { server.drops }

        init(_ server: ControlServer) { self.server = server }

        func channelActive(context: ChannelHandlerContext) {
            server.hasOpened(context.channel)
            context.fireChannelActive()
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            // A connection that broke is no request.
            if !(error is IOError), !(error is ChannelError) { drops.add(.controlRequestMalformed) }
            context.fireErrorCaught(error)
        }
    }

    /// Makes room where it is crowded.
    private func hasOpened(_ channel: any Channel) {
        let id = ObjectIdentifier(channel)
        channel.closeFuture.whenComplete { [self] _ in
            clients.withLock { $0.closed(id) }
            channels.withLock { _ = $0.removeValue(forKey: id) }
        }
        channels.withLock { $0[id] = channel }
        Self.user(of: channel)?.map { $0 == 0 }.recover { _ in false }.whenSuccess { [self] isRoot in
            guard channel.isActive, let victim = clients.withLock({ $0.opened(id, isRoot: isRoot) }) else {
                return
            }
            channels.withLock { $0[victim] }?.close(promise: nil)
            tellOfTurningOut()
        }
    }

    /// The one who has connected. Nil where the channel is no socket.
    private static func user(of channel: any Channel) -> EventLoopFuture<UInt32>? {
        guard let socket = channel as? any SocketOptionProvider else { return nil }
        let credentials: EventLoopFuture<PeerCredentials> = socket.unsafeGetSocketOption(
            level: .socket, name: NIOBSDSocket.Option(rawValue: PeerCredentials.option))
        return credentials.map(\.user)
    }

    private func caller(_ exchange: Exchange) async -> Caller {
        Caller(user: try? await Self.user(of: exchange.channel)?.get())
    }

    /// Once a minute at most: whoever connects in a loop does not fill the log.
    private func tellOfTurningOut() {
        let now = SystemClock.now()
        let isDue = quietUntil.withLock { quietUntil in
            guard now >= quietUntil else { return false }
            quietUntil = now + Self.complaintInterval
            return true
        }
        guard isDue else { return }
        log.notice(
            "clients of the control socket that say nothing are turned out",
            metadata: ["reason": "more than \(clients.withLock { $0.share }) are connected"])
    }

    /// struct ucred of Linux.
    private struct PeerCredentials: Sendable {
        /// SO_PEERCRED.
        static let option: CInt = 17

        var process: Int32
        var user: UInt32
        var group: UInt32
    }

    private func answer(_ asked: ControlRequest, _ exchange: Exchange) async throws(APIError) -> Response {
        let request = exchange.request
        func status() async throws(APIError) -> GatewayStatus { try await ask(exchange) { .status($0) } }
        switch asked {
        case .status: return Self.encode(try await status())
        case .connections: return Self.encode(ConnectionList(connections: try await status().connections))
        case .connection(let name):
            guard let found = try await status().connections.first(where: { $0.name == name }) else {
                throw APIError(
                    code: .notFound, message: "there is no connection \(name)",
                    hint: "see \(APIPath.connections)")
            }
            return Self.encode(found)
        case .tunnels:
            return Self.encode(TunnelList(tunnels: try await status().connections.flatMap(\.tunnels)))
        case .tunnel(let name):
            guard
                let found = try await status().connections.flatMap(\.tunnels).first(where: { $0.name == name }
                )
            else {
                throw APIError(
                    code: .notFound, message: "there is no tunnel \(name)", hint: "see \(APIPath.tunnels)")
            }
            return Self.encode(found)
        case .routes:
            let routes: RouteList = try await ask(exchange) { .routes($0) }
            return Self.encode(routes)
        case .addRoute:
            let wanted: RouteRequest = try await Self.decodeBody(
                request.body, like: #"{"prefix": "10.20.0.0/16", "connection": "NAME"}"#)
            guard Printable.isPlain(wanted.prefix), Printable.isPlain(wanted.connection) else {
                throw ControlRequest.unprintable
            }
            let caller = await caller(exchange)
            let entry: RouteEntry = try await ask(exchange) { .addRoute(wanted, by: caller, $0) }
            return Self.encode(entry, status: .created)
        case .removeRoute(let prefix, let save):
            let caller = await caller(exchange)
            let entry: RouteEntry = try await ask(exchange) {
                .removeRoute(prefix: prefix, save: save, by: caller, $0)
            }
            return Self.encode(entry)
        case .explainRoute(let question):
            let way: RouteExplanation = try await ask(exchange) {
                .explainRoute(question, $0)
            }
            return Self.encode(way)
        case .order(let order, let name):
            let caller = await caller(exchange)
            let tunnel: TunnelStatus = try await ask(exchange) {
                .tunnel(order, name: name, by: caller, $0)
            }
            return Self.encode(tunnel)
        case .drill(let name):
            var response = Self.encode(try await drill(name, exchange))
            // The server closes it, as it has listened for the client's closing.
            response.headers[.connection] = "close"
            return response
        case .events(let since, let follow):
            let page: EventPage = try await ask(exchange) { .events(since: since, follow: follow, $0) }
            return Self.stream(page, to: request)
        }
    }

    /// As long as the drill takes, and no longer than its client waits: nobody cuts a site's tunnel and goes away,
    /// or loses his own session to it, for longer than he must.
    private func drill(_ connection: String, _ exchange: Exchange) async throws(APIError) -> DrillReport {
        let waiter = DrillWaiter()
        let caller = await caller(exchange)
        do {
            return try await exchange.request.body.consumeWithInboundCloseHandler { [self] body in
                let wanted: DrillRequest = try await Self.decodeBody(
                    body, like: #"{"duration": 10}"#, whenEmpty: DrillRequest())
                return try await ask(exchange) {
                    .drill(connection: connection, wanted, waiter, by: caller, $0)
                }
            } onInboundClosed: { [self] in
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

    /// Its request is whole by now.
    private func ask<Value: Sendable>(
        _ exchange: Exchange, _ command: (@escaping ControlCommand.Answer<Value>) -> ControlCommand
    ) async throws(APIError) -> Value {
        clients.withLock { $0.asks(exchange.client) }
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
        } catch is NIOTooManyBytesError {
            throw APIError(code: .tooLarge, message: "the body is longer than \(APIPath.requestLimit) bytes")
        } catch {
            throw APIError(
                code: .badRequest, message: "the body ended before it was whole",
                hint: "its length is in Content-Length, or its last chunk is empty")
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
