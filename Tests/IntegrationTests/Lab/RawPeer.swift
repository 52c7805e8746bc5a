internal import FoundationEssentials
internal import Glibc
internal import LinuxIO
internal import Testing

@testable import WireGuard

@_silgen_name("setns") private func systemSetns(_ fd: Int32, _ type: Int32) -> Int32

/// A far end that the test plays itself, datagram by datagram: a site of the lab without a daemon. It sends nothing that
/// the test did not ask for, and shows each message that comes back. Inner packets are pings of the gateway.
struct RawPeer {
    struct Session {
        /// What the gateway writes into the messages that it sends us.
        var index: UInt32 { keypair.localIndex }

        fileprivate let keypair: Keypair
        fileprivate let echo: [UInt8]

        /// A message around a ping. It is not padded, and as long as an initiation: so the kernel may join the two.
        func ping() throws -> [UInt8] {
            var chacha = ChaCha20Poly1305()
            return try #require(keypair.seal(echo, mtu: echo.count, by: &chacha))
        }
    }

    struct Reply: Hashable {
        var type: MessageType?
        /// Receiver index.
        var index: UInt32
    }

    /// Bytes of a message around a ping.
    static let pingSize = Protocol.initiationSize

    private let keys: PrivateKey
    private let echo: [UInt8]
    private let gateway: PublicKey
    private let target: UnderlayPath
    private let namespace: String
    private(set) var socket: UDPSocket
    private var receiver = Receiver()
    private var macs: MacGenerator
    private var entropy = SystemEntropy()
    private var timestamp: TAI64N
    private var lastInitiation: ContinuousClock.Instant?

    private final class Receiver {
        var datagrams = DatagramReceiver()
    }

    /// - Parameters:
    ///   - keys: its own, in base64 as all keys of the lab.
    ///   - inside: the source of its pings; nil is the site's.
    ///   - companion: a raw peer whose port it shares.
    init(
        at site: Site, keys: KeyPair, toward gateway: Gateway, inside: String? = nil,
        beside companion: RawPeer? = nil
    ) throws {
        self.keys = try #require(PrivateKey(base64: keys.privateKey))
        self.gateway = try #require(PublicKey(base64: gateway.settings.keys.publicKey))
        echo = echoRequest(
            from: inside ?? site.inside(.v4), to: gateway.site.inside(.v4),
            count: Self.pingSize - Protocol.transportOverhead)
        let address = try #require(IPAddress(gateway.site.underlay(.v4)))
        target = UnderlayPath(
            endpoint: Endpoint(address: address, port: UInt16(gateway.settings.listenPort)))
        namespace = gateway.lab.namespace(site)
        socket = try companion?.socket ?? Self.socket(in: namespace)
        macs = MacGenerator(peer: self.gateway)
        timestamp = TAI64N(unixNanoseconds: SystemClock.unixNanoseconds())
    }

    /// From here on it is behind another port.
    mutating func rebind() throws { socket = try Self.socket(in: namespace) }

    private static func socket(in namespace: String) throws -> UDPSocket {
        try inNamespace(namespace) { try UDPSocket.bind(family: .v4, port: 0) }
    }

    /// Calls what makes a socket, in a network namespace.
    static func inNamespace<Socket>(_ namespace: String, _ body: () throws -> Socket) throws -> Socket {
        func handle(_ path: String) throws -> Int32 {
            let fd = unsafe open(path, O_RDONLY | O_CLOEXEC)
            guard fd >= 0 else { throw LabError("\(path): errno \(errno)") }
            return fd
        }
        let here = try handle("/proc/thread-self/ns/net")
        defer { close(here) }
        let there = try handle("/run/netns/\(namespace)")
        defer { close(there) }
        guard systemSetns(there, 0x4000_0000) == 0 else { throw LabError("setns: errno \(errno)") }
        defer { precondition(systemSetns(here, 0x4000_0000) == 0, "cannot return to the first namespace") }
        return try body()
    }

    // MARK: Sending

    /// One datagram, or as many as there are of that size, joined as UDP_SEGMENT joins them.
    func send(_ bytes: [UInt8], segmentSize: Int = 0) throws {
        var waitsLeft = UDPSocket.queueWaits
        let result = unsafe bytes.withUnsafeBytes {
            unsafe socket.send(
                $0.baseAddress!, count: $0.count, segmentSize: segmentSize, to: target, tos: 0,
                waitsLeft: &waitsLeft)
        }
        guard result == .sent else { throw LabError("the raw peer cannot send: \(result)") }
    }

    /// An initiation of ours, and what finishes it.
    mutating func initiation() throws -> (message: [UInt8], handshake: InitiatorHandshake) {
        timestamp = timestamp.next()
        var (message, handshake) = try InitiatorHandshake.begin(
            static: keys, peer: gateway, staticStatic: try keys.sharedSecret(with: gateway),
            presharedKey: .none, cipher: .chacha20Poly1305, index: entropy.next(UInt32.self),
            timestamp: timestamp, entropy: &entropy)
        macs.stamp(&message, now: SystemClock.now())
        return (message.bytes, handshake)
    }

    /// A new session, not yet used. Again where the gateway, which answers one in 20 ms, was asked too soon.
    mutating func begin() throws -> Session {
        for _ in 0..<20 {
            if let lastInitiation {
                let rest = Duration.milliseconds(21) - (ContinuousClock.now - lastInitiation)
                if rest > .zero { usleep(UInt32(rest / .microseconds(1))) }
            }
            let (message, handshake) = try initiation()
            try send(message)
            lastInitiation = .now
            for reply in receive(1) {
                if let session = try? session(from: reply, of: handshake) { return session }
            }
        }
        throw LabError("the gateway answers no initiation of the raw peer")
    }

    /// The session that a response to an initiation of ours begins.
    func session(from response: [UInt8], of handshake: InitiatorHandshake) throws -> Session {
        guard let response = HandshakeResponse(response) else { throw LabError("no response came back") }
        let keys = try handshake.finish(response)
        return Session(keypair: Keypair(keys), echo: echo)
    }

    // MARK: Receiving

    /// Messages that come to the socket, until there are `count` or nothing has come for a while.
    func receive(_ count: Int) -> [[UInt8]] {
        var messages: [[UInt8]] = []
        var poll = PollSet(socket.fd)
        while messages.count < count, poll.wait(timeout: .seconds(1)) > 0 {
            for datagram in 0..<receiver.datagrams.receive(from: socket) {
                messages += receiver.datagrams.segments(datagram)
            }
        }
        return messages
    }

    /// The same in short.
    func replies(_ count: Int) -> [Reply] {
        receive(count).map { message in
            let type = MessageType(of: message)
            return Reply(type: type, index: message.littleEndianWord(at: type == .response ? 8 : 4))
        }
    }
}

extension Keypair {
    fileprivate convenience init(_ keys: SessionKeys) {
        self.init(
            role: keys.role, localIndex: keys.localIndex, remoteIndex: keys.remoteIndex, send: keys.send,
            receive: keys.receive, path: TunnelPath(peer: PeerID(0)), createdAt: SystemClock.now())
    }
}

/// ICMP echo request over IPv4, `count` bytes in all (RFC 792).
private func echoRequest(from source: String, to destination: String, count: Int) -> [UInt8] {
    func checksum(_ bytes: [UInt8]) -> [UInt8] {
        var sum = stride(from: 0, to: bytes.count, by: 2).reduce(UInt32(0)) {
            $0 + UInt32(bytes[$1]) << 8 + UInt32(bytes[$1 + 1])
        }
        while sum >> 16 != 0 { sum = sum & 0xffff + sum >> 16 }
        return [UInt8(truncatingIfNeeded: ~sum >> 8), UInt8(truncatingIfNeeded: ~sum)]
    }
    var header: [UInt8] = [0x45, 0, UInt8(count >> 8), UInt8(count & 0xff), 0, 0, 0x40, 0, 64, 1, 0, 0]
    for address in [source, destination] { header += address.split(separator: ".").compactMap { UInt8($0) } }
    header.replaceSubrange(10..<12, with: checksum(header))
    var echo: [UInt8] = [8, 0, 0, 0, 0, 1, 0, 1]
    echo += [UInt8](repeating: 0x5a, count: count - header.count - echo.count)
    echo.replaceSubrange(2..<4, with: checksum(echo))
    return header + echo
}
