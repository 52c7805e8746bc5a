package import WireGuard

/// What answers a ``ProbePacket``.
package struct ProbeReply: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        /// The peer that the probe was sent to; the one that the reply came by may be another.
        case echo(PeerID, ProbePurpose)
        /// The port is open, and must be told that nothing follows: ``ProbePacket/reset(answering:length:)``.
        case synAck(port: UInt16)
        /// It is not, and that, too, is an answer.
        case reset(port: UInt16)
    }

    package var kind: Kind
    /// Sequence of the probe; of a TCP reply only the low 16 bits.
    package var sequence: UInt32
    package var source: IPAddress
    package var destination: IPAddress
    /// The port of this end that a TCP reply came to; 0 for an echo reply.
    package var destinationPort: UInt16 = 0
    /// Bytes of the whole packet.
    package var length: Int

    /// `packet` may be the beginning of one that is `length` bytes long: checksums are verified as far as the
    /// bytes are there. Nil for all that does not answer a probe of ours.
    package init?(_ packet: [UInt8], length: Int, secret: ProbeSecret, ports: ClosedRange<UInt16>) {
        guard let reply = ProbePacket.Reply(packet, length: length) else { return nil }
        switch reply.content {
        case .echo(let payload):
            guard let purpose = ProbePurpose(code: payload.purpose),
                payload.token == secret.token(payload.peer, purpose, payload.sequence)
            else { return nil }
            kind = .echo(payload.peer, purpose)
            sequence = payload.sequence
        case .tcp(let tcp):
            guard ports.contains(tcp.destinationPort), tcp.isSynAck || tcp.isRefusal else { return nil }
            let acknowledged = tcp.acknowledgement &- 1
            let low = UInt16(truncatingIfNeeded: acknowledged)
            let mark = secret.mark(
                from: reply.destination, to: reply.source, port: tcp.sourcePort, sequence: low)
            guard UInt16(acknowledged >> 16) == mark else { return nil }
            kind = tcp.isSynAck ? .synAck(port: tcp.sourcePort) : .reset(port: tcp.sourcePort)
            sequence = UInt32(low)
            destinationPort = tcp.destinationPort
        }
        source = reply.source
        destination = reply.destination
        self.length = reply.length
    }
}

extension ProbeReply {
    /// Which of a connection's tunnels was asked, and for what.
    package func asked(among peers: [PeerID]) -> (tunnel: Int, use: ProbePorts.Use)? {
        switch kind {
        case .echo(let peer, let purpose):
            return peers.firstIndex(of: peer).map { ($0, purpose == .drillTarget ? .drill : .health) }
        case .synAck, .reset:
            let ports = ProbePorts(ForwardingTable.probePorts, tunnels: peers.count)
            guard let owner = ports.owner(of: destinationPort), peers.indices.contains(owner.tunnel) else {
                return nil
            }
            return owner
        }
    }

    /// Whether it comes from whom the tunnel's probe of this kind went to, and to where that came from.
    package func answers(inside: InsideLink, settings: HealthSettings) -> Bool {
        switch kind {
        case .echo(_, .health), .echo(_, .pathMTU), .echo(_, .drill):
            source == inside.remote && destination == inside.local
        case .echo(_, .target), .echo(_, .drillTarget), .synAck, .reset:
            destination == settings.source(by: inside) && settings.target(of: self) != nil
        }
    }
}

extension HealthSettings {
    /// Which target a reply is from; nil for the far inside address, and for all that is no target's.
    package func target(of reply: ProbeReply) -> Int? {
        switch reply.kind {
        case .echo(_, .target(let index)):
            targets.indices.contains(index) && targets[index] == .echo(reply.source) ? index : nil
        case .echo(_, .drillTarget): targets.firstIndex(of: .echo(reply.source))
        case .echo: nil
        case .synAck(let port), .reset(let port):
            targets.firstIndex(of: .tcp(reply.source, port: port))
        }
    }
}
