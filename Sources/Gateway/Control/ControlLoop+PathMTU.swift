internal import LinuxIO
internal import Logging
internal import WireGuard

/// What each tunnel's path carries (``PathMTUSearch``), for the data threads.
extension ControlLoop {
    func handlePathMTUTimeout(of peer: PeerID) {
        guard let path = device.path(of: peer), let record = tunnels[peer], record.pathMTU != nil else { return }
        if let sent = path.lastDataSent, sent > record.dataSeenAt {
            tunnels[peer]?.dataSeenAt = sent
            // Probes are data too; what an operator would call so comes more often than they do.
            if path.transmittedPackets &- record.packetsSeen > record.probesSent {
                tunnels[peer]?.pathMTU?.dataSent(now: now)
            }
            tunnels[peer]?.packetsSeen = path.transmittedPackets
            tunnels[peer]?.probesSent = 0
        }
        tunnels[peer]?.pathMTU?.handleTimeout(now: now)
    }

    func followPathMTU(of peer: PeerID) {
        while let output = tunnels[peer]?.pathMTU?.poll() {
            switch output {
            case .probe(let size, let sequence):
                guard let inside = tunnels[peer]?.inside else { continue }
                let packet = ProbePacket.echo(
                    from: inside.local, to: inside.remote, token: probeToken, peer: peer,
                    sequence: sequence, purpose: .pathMTU, length: size)
                if let packet, device.sendProbe(packet, to: peer, now: now) { tunnels[peer]?.probesSent += 1 }
            case .found(let innerMTU):
                device.path(of: peer)?.setInnerMTU(innerMTU)
                log.info("path MTU found", metadata: names(of: peer, adding: ["inner": "\(innerMTU)"]))
            }
        }
    }

    func pathMTUWasAnswered(_ sequence: UInt32, of peer: PeerID) {
        tunnels[peer]?.pathMTU?.probeAnswered(sequence: sequence, now: now)
        follow(peer)
    }

    /// EMSGSIZE: an interface of this host is smaller than the path was.
    func sendWasTooBig(_ peer: PeerID) {
        tunnels[peer]?.pathMTU?.sendTooBig(now: now)
        follow(peer)
    }
}
