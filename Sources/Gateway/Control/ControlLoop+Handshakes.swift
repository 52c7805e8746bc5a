internal import LinuxIO
internal import WireGuard

/// Handshake messages, from the sockets that carry nothing else (``UDPSocketGroup``).
extension ControlLoop {
    /// Batches a round: a flood must not keep the loop from its other business.
    private static let batchesInRound = 8

    func watchHandshakes(of group: UDPSocketGroup) throws(SystemError) {
        for (family, token) in [
            (IPAddress.Family.v4, Token.handshakes4), (.v6, Token.handshakes6),
        ] {
            guard let socket = group.handshakes?.socket(for: family) else { continue }
            try epoll.add(fd: socket.fd, token: token)
        }
    }

    func receiveHandshakes(_ family: IPAddress.Family) {
        guard let socket = sockets.handshakes?.socket(for: family) else { return }
        device.noteQueue(fill: socket.queueFill, now: now)
        for _ in 0..<Self.batchesInRound {
            let errors = handshakeReceiver.errors
            let count = handshakeReceiver.receive(from: socket)
            if handshakeReceiver.errors != errors { device.dropCounters.add(.receiveFailed) }
            guard count > 0 else { return }
            for i in 0..<count {
                guard !handshakeReceiver.isTruncated(i) else {
                    device.dropCounters.add(.datagramOversized)
                    continue
                }
                let underlay = handshakeReceiver.underlay(i)
                for message in handshakeReceiver.segments(i) { receive(message, from: underlay) }
            }
        }
    }

    private func receive(_ message: [UInt8], from underlay: UnderlayPath) {
        // The kernel joined it to a handshake of the same sender, and so it came here.
        guard MessageType(of: message) != .transport else { return device.dropCounters.add(.wrongWorker) }
        device.receive(message, from: underlay, now: now)
    }
}
