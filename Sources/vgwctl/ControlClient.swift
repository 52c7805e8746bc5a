internal import ControlAPI
internal import Glibc
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix

/// One request a connection over the daemon's Unix socket.
struct ControlClient {
    let socket: String
    /// For the whole exchange.
    var timeout: TimeAmount = .seconds(10)

    func get<Answer: Decodable>(_ path: String, query: [(String, String)] = []) async throws -> Answer {
        try await send(.GET, Self.uri(path, query), body: [])
    }

    func post<Answer: Decodable>(_ path: String) async throws -> Answer {
        try await send(.POST, path, body: [])
    }

    func post<Answer: Decodable>(_ path: String, _ request: some Encodable) async throws -> Answer {
        try await send(.POST, path, body: try JSON.encode(request))
    }

    func delete<Answer: Decodable>(_ path: String, query: [(String, String)] = []) async throws -> Answer {
        try await send(.DELETE, Self.uri(path, query), body: [])
    }

    /// Each line of an answer as it comes, without its end. Returns when the answer has ended, and waits for
    /// that without limit; `timeout` is for its beginning.
    func lines(
        _ path: String, query: [(String, String)], _ body: @Sendable ([UInt8]) async throws -> Void
    ) async throws {
        var refusal: [UInt8] = []
        var line: [UInt8] = []
        let status = try await exchange(.GET, Self.uri(path, query), body: [], limitsBody: false) {
            status, buffer in
            guard status == 200 else {
                refusal += buffer.readableBytesView.prefix(APIPath.requestLimit - refusal.count)
                return
            }
            for byte in buffer.readableBytesView {
                if byte != UInt8(ascii: "\n") {
                    line.append(byte)
                } else {
                    try await body(line)
                    line.removeAll(keepingCapacity: true)
                }
            }
            guard line.count <= APIPath.requestLimit else {
                throw Failure(.protocolBroken, "\(socket) sent a line without an end")
            }
        }
        if status != 200 { throw self.refusal(status, refusal) }
    }

    private static func uri(_ path: String, _ query: [(String, String)]) -> String {
        guard !query.isEmpty else { return path }
        return path + "?" + query.map { "\($0.0)=\(percentEncoded($0.1))" }.joined(separator: "&")
    }

    /// A name as a part of a path. `=` ends the names of peers that `wg` added, and stays as it is.
    static func pathEncoded(_ name: String) -> String { percentEncoded(name).replacing("%3D", with: "=") }

    /// RFC 3986, section 2.3: all but the unreserved characters.
    static func percentEncoded(_ text: String) -> String {
        text.utf8.reduce(into: "") { result, byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f, 0x7e:
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                let hex = String(byte, radix: 16, uppercase: true)
                result += "%" + (hex.utf8.count == 1 ? "0" : "") + hex
            }
        }
    }

    private func send<Answer: Decodable>(_ method: HTTPMethod, _ uri: String, body: [UInt8]) async throws
        -> Answer
    {
        var bytes: [UInt8] = []
        let status = try await exchange(method, uri, body: body) { _, buffer in
            bytes += buffer.readableBytesView
        }
        guard (200..<300).contains(status) else { throw refusal(status, bytes) }
        do {
            return try JSON.decode(Answer.self, from: bytes)
        } catch {
            throw Failure(
                .protocolBroken, "\(socket) answered with something this vgwctl cannot read",
                hint: "Are vgwd and vgwctl of the same version?")
        }
    }

    private func refusal(_ status: Int, _ bytes: [UInt8]) -> Failure {
        if let error = try? JSON.decode(APIError.self, from: bytes) { return Failure(error) }
        return Failure(
            .protocolBroken, "\(socket) answered with HTTP status \(status) and no reason",
            hint: "Is it the control socket of a vgwd?")
    }

    private typealias Channel = NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>

    /// The status, once the answer is whole. Parts of its body go to `take` as they come; with `limitsBody` they
    /// are not more than `APIPath.answerLimit`, and the whole exchange takes no longer than `timeout`.
    private func exchange(
        _ method: HTTPMethod, _ uri: String, body: [UInt8], limitsBody: Bool = true,
        _ take: (_ status: Int, ByteBuffer) async throws -> Void
    ) async throws -> Int {
        let channel = try await connect()
        let deadline = NIODeadline.now() + timeout
        let expiry = channel.channel.eventLoop.scheduleTask(deadline: deadline) {
            channel.channel.close(promise: nil)
        }
        defer { expiry.cancel() }
        var status: Int?
        var count = 0
        do {
            let isComplete = try await channel.executeThenClose { inbound, outbound in
                var head = HTTPRequestHead(version: .http1_1, method: method, uri: uri)
                head.headers.add(name: "host", value: "vgwd")
                head.headers.add(name: "connection", value: "close")
                if !body.isEmpty {
                    head.headers.add(name: "content-type", value: "application/json")
                    head.headers.add(name: "content-length", value: String(body.count))
                }
                // In one go: the answer to a head alone may come, and the connection close, before the end is
                // written; that would then fail, and the answer be lost.
                var request: [HTTPClientRequestPart] = [.head(head)]
                if !body.isEmpty { request.append(.body(.byteBuffer(ByteBuffer(bytes: body)))) }
                request.append(.end(nil))
                try await outbound.write(contentsOf: request)
                for try await part in inbound {
                    switch part {
                    case .head(let head):
                        status = Int(head.status.code)
                        if !limitsBody { expiry.cancel() }
                    case .body(let buffer):
                        count += buffer.readableBytes
                        guard !limitsBody || count <= APIPath.answerLimit else { return false }
                        try await take(status ?? 0, buffer)
                    case .end: return true
                    }
                }
                return false
            }
            if isComplete, let status { return status }
        } catch is ChannelError {
            // Closed by the expiry or by the daemon.
        } catch is HTTPParserError {
            // An answer that had begun was cut off: the daemon was killed.
            if status == nil {
                throw Failure(
                    .protocolBroken, "\(socket) does not speak HTTP",
                    hint: "Is it the control socket of a vgwd?"
                )
            }
        } catch let error as IOError {
            throw Failure(.unavailable, "the connection to \(socket) broke (errno \(error.errnoCode))")
        }
        let how =
            NIODeadline.now() < deadline
            ? "closed the connection before its answer was whole"
            : "gave no whole answer within \(timeout.nanoseconds / 1_000_000_000) s"
        throw Failure(
            .unavailable, "\(socket) \(how)", hint: "Look at the daemon's log: journalctl -u vgwd")
    }

    private func connect() async throws -> Channel {
        let deadline = NIODeadline.now() + timeout
        while true {
            do {
                return try await connectOnce()
            } catch let error as IOError where error.errnoCode == EAGAIN && NIODeadline.now() < deadline {
                // Too many others wait to be let in.
                try await Task.sleep(for: .milliseconds(20))
            } catch let error as IOError {
                throw Self.failure(error.errnoCode, socket: socket)
            } catch is SocketAddressError {
                throw Failure(.unavailable, "\(socket) is too long for the path of a socket")
            }
        }
    }

    private func connectOnce() async throws -> Channel {
        try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(timeout)
            .connect(unixDomainSocketPath: socket) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    return try Channel(wrappingChannelSynchronously: channel)
                }
            }
    }

    private static func failure(_ code: CInt, socket: String) -> Failure {
        switch code {
        case ENOENT:
            Failure(
                .unavailable, "no gateway at \(socket): there is no such socket",
                hint: "Start it (systemctl start vgwd), or name its socket with --socket or VGWD_SOCKET.")
        case ECONNREFUSED:
            Failure(
                .unavailable, "no gateway at \(socket): nobody listens there",
                hint: "vgwd was ended without taking its socket along. Start it: systemctl start vgwd")
        case EPERM, EACCES:
            Failure(.notPermitted, "not allowed to talk to \(socket)", hint: "Try again with sudo.")
        case EAGAIN:
            Failure(.unavailable, "\(socket) lets nobody in: too many clients wait", hint: "Try again later.")
        default:
            Failure(.unavailable, "cannot connect to \(socket) (errno \(code))", hint: "Is vgwd running?")
        }
    }
}
