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

    func get<Answer: Decodable>(_ path: String) async throws -> Answer {
        try await send(.GET, path, body: [])
    }

    func post<Answer: Decodable>(_ path: String, _ request: some Encodable) async throws -> Answer {
        try await send(.POST, path, body: try JSON.encode(request))
    }

    func delete<Answer: Decodable>(_ path: String, query: [(String, String)]) async throws -> Answer {
        let pairs = query.map { "\($0.0)=\(Self.percentEncoded($0.1))" }
        return try await send(.DELETE, path + "?" + pairs.joined(separator: "&"), body: [])
    }

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
        let (status, bytes) = try await exchange(method, uri, body: body)
        guard (200..<300).contains(status) else {
            if let error = try? JSON.decode(APIError.self, from: bytes) { throw Failure(error) }
            throw Failure(
                .protocolBroken, "\(socket) answered with HTTP status \(status) and no reason",
                hint: "Is it the control socket of a vgwd?")
        }
        do {
            return try JSON.decode(Answer.self, from: bytes)
        } catch {
            throw Failure(
                .protocolBroken, "\(socket) answered with something this vgwctl cannot read",
                hint: "Are vgwd and vgwctl of the same version?")
        }
    }

    private typealias Channel = NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>

    private func exchange(_ method: HTTPMethod, _ uri: String, body: [UInt8]) async throws -> (Int, [UInt8]) {
        let channel = try await connect()
        let deadline = NIODeadline.now() + timeout
        let expiry = channel.channel.eventLoop.scheduleTask(deadline: deadline) {
            channel.channel.close(promise: nil)
        }
        defer { expiry.cancel() }
        var status: Int?
        var bytes: [UInt8] = []
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
                    case .head(let head): status = Int(head.status.code)
                    case .body(let buffer):
                        guard bytes.count + buffer.readableBytes <= APIPath.answerLimit else { return false }
                        bytes += buffer.readableBytesView
                    case .end: return true
                    }
                }
                return false
            }
            if isComplete, let status { return (status, bytes) }
        } catch is ChannelError {
            // Closed by the expiry or by the daemon.
        } catch is HTTPParserError {
            throw Failure(
                .protocolBroken, "\(socket) does not speak HTTP", hint: "Is it the control socket of a vgwd?")
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
        do {
            return try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(timeout)
                .connect(unixDomainSocketPath: socket) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        return try Channel(wrappingChannelSynchronously: channel)
                    }
                }
        } catch let error as IOError {
            throw Self.failure(error.errnoCode, socket: socket)
        } catch is SocketAddressError {
            throw Failure(.unavailable, "\(socket) is too long for the path of a socket")
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
        default:
            Failure(.unavailable, "cannot connect to \(socket) (errno \(code))", hint: "Is vgwd running?")
        }
    }
}
