internal import DataPlane
internal import GatewayCore
internal import LinuxIO
internal import WireGuard

/// Handshake messages, from the sockets that carry nothing else (``UDPSocketGroup``).
struct HandshakeSockets: ~Copyable {
    /// Time for handshakes in one round: a flood must not keep the loop from its other business. The sockets stay
    /// readable while there is more.
    private static let workLimit: Duration = .milliseconds(5)

    /// Tokens of epoll from here on are the sockets': two a socket group.
    static let firstToken: UInt64 = 1 << 32

    private var receiver = DatagramReceiver(capacity: 8)

    /// Watches the sockets of groups that take the place of others; those in both are watched already.
    static func watch(
        _ groups: UDPSocketGroups, insteadOf old: UDPSocketGroups?, _ epoll: borrowing Epoll
    ) throws(SystemError) {
        let before = old?.handshakeSockets ?? []
        for new in groups.handshakeSockets where !before.contains(where: { $0.socket === new.socket }) {
            try epoll.add(fd: new.socket.fd, token: token(new))
        }
        let after = groups.handshakeSockets
        for gone in before where !after.contains(where: { $0.socket === gone.socket }) {
            epoll.remove(fd: gone.socket.fd)
        }
    }

    private static func token(_ source: GroupSocket) -> UInt64 {
        firstToken + UInt64(source.group) * 2 + (source.family == .v4 ? 0 : 1)
    }

    mutating func receive(
        _ token: UInt64, of groups: UDPSocketGroups, _ gateway: inout Gateway, _ dataPlane: DataPlane,
        now: Instant
    ) {
        guard let source = groups.handshakeSockets.first(where: { Self.token($0) == token }) else { return }
        gateway.handle(.handshakeQueue(fill: source.socket.queueFill), now: now)
        let end = now + Self.workLimit
        repeat {
            let errors = receiver.errors
            let count = receiver.receive(from: source)
            if receiver.errors != errors { gateway.dropCounters.add(.receiveFailed) }
            guard count > 0 else { return }
            for i in 0..<count {
                guard !receiver.isTruncated(i) else {
                    gateway.dropCounters.add(.datagramOversized)
                    continue
                }
                let underlay = receiver.underlay(i)
                let tos = receiver.tos(i)
                for message in receiver.segments(i) {
                    guard MessageType(of: message) == .transport else {
                        gateway.handle(.datagram(message, from: underlay), now: now)
                        continue
                    }
                    // The kernel joined it to something else of the same sender, and so it came here.
                    do throws(DropReason) {
                        try dataPlane.passOn(message, from: underlay, tos: tos)
                    } catch {
                        gateway.dropCounters.add(error)
                    }
                }
            }
        } while SystemClock.now() < end
    }
}
