internal import DataPlane
internal import LinuxIO
internal import WireGuard

/// Handshake messages, from the sockets that carry nothing else (``UDPSocketGroup``).
extension ControlLoop {
    /// Time for handshakes in one round: a flood must not keep the loop from its other business. The sockets stay
    /// readable while there is more.
    private static let workLimit: Duration = .milliseconds(5)

    /// Of groups that take the place of others; sockets in both are watched already.
    func watchHandshakes(of groups: UDPSocketGroups, instead old: UDPSocketGroups?) throws(SystemError) {
        let before = old?.handshakeSockets ?? []
        for new in groups.handshakeSockets where !before.contains(where: { $0.socket === new.socket }) {
            try epoll.add(fd: new.socket.fd, token: Self.token(new))
        }
        let after = groups.handshakeSockets
        for gone in before where !after.contains(where: { $0.socket === gone.socket }) {
            epoll.remove(fd: gone.socket.fd)
        }
    }

    private static func token(_ source: GroupSocket) -> UInt64 {
        Token.handshakes + UInt64(source.group) * 2 + (source.family == .v4 ? 0 : 1)
    }

    func receiveHandshakes(_ token: UInt64) {
        guard let source = underlays.groups.handshakeSockets.first(where: { Self.token($0) == token }) else {
            return
        }
        let socket = source.socket
        device.noteQueue(fill: socket.queueFill, now: now)
        let end = now + Self.workLimit
        repeat {
            let errors = handshakeReceiver.errors
            let count = handshakeReceiver.receive(from: source)
            if handshakeReceiver.errors != errors { device.dropCounters.add(.receiveFailed) }
            guard count > 0 else { return }
            for i in 0..<count {
                guard !handshakeReceiver.isTruncated(i) else {
                    device.dropCounters.add(.datagramOversized)
                    continue
                }
                let underlay = handshakeReceiver.underlay(i)
                let trafficClass = handshakeReceiver.trafficClass(i)
                for message in handshakeReceiver.segments(i) {
                    receive(message, from: underlay, trafficClass: trafficClass)
                }
            }
        } while SystemClock.now() < end
    }

    private func receive(_ message: [UInt8], from underlay: UnderlayPath, trafficClass: UInt8) {
        guard MessageType(of: message) == .transport else {
            return device.receive(message, from: underlay, now: now)
        }
        // The kernel joined it to something else of the same sender, and so it came here.
        passOn(message, from: underlay, trafficClass: trafficClass)
    }

    func passOn(_ message: [UInt8], from underlay: UnderlayPath, trafficClass: UInt8) {
        do throws(DropReason) {
            try dataPlane.passOn(message, from: underlay, trafficClass: trafficClass)
        } catch {
            device.dropCounters.add(error)
        }
    }
}
