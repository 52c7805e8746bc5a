internal import LinuxIO
internal import Logging
internal import WireGuard

/// What each tunnel's path carries (``PathMTUSearch``), for the data threads.
extension ControlLoop {
    func handlePathMTUTimeout(of peer: PeerID) {
        guard let record = tunnels[peer], record.pathMTU != nil else { return }
        if let sent = device.path(of: peer)?.lastTrafficSent, sent > record.trafficSeenAt {
            tunnels[peer]?.trafficSeenAt = sent
            if let roundTrip = record.health.statistics(now: now).smoothedRoundTrip {
                tunnels[peer]?.pathMTU?.setRoundTrip(roundTrip)
            }
            tunnels[peer]?.pathMTU?.dataSent(now: now)
        }
        tunnels[peer]?.pathMTU?.handleTimeout(now: now)
    }

    func followPathMTU(of peer: PeerID) {
        while let output = tunnels[peer]?.pathMTU?.poll() {
            switch output {
            case .probe(let size, let sequence):
                guard let inside = tunnels[peer]?.inside else { continue }
                let packet = ProbePacket.echo(
                    from: inside.local, to: inside.remote, secret: probeSecret, peer: peer,
                    sequence: sequence, purpose: .pathMTU, length: size)
                if let packet { _ = device.sendProbe(packet, to: peer, now: now) }
            case .found(let innerMTU):
                device.path(of: peer)?.setInnerMTU(innerMTU)
                log.info("path MTU found", metadata: names(of: peer, adding: ["inner": "\(innerMTU)"]))
            }
        }
        if let search = tunnels[peer]?.pathMTU {
            device.path(of: peer)?.setInnerMTUPassing(search.isSearching)
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
