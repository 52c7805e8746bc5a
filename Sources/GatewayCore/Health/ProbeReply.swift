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
    /// Of a TCP reply only the low 16 bits.
    package var sequence: UInt32
    package var source: IPAddress
    package var destination: IPAddress
    /// The port of this end that a TCP reply came to; 0 for an echo reply.
    package var destinationPort: UInt16 = 0
    /// Of the whole packet.
    package var length: Int

    /// `packet` may be the beginning of one that is `length` bytes long: checksums are verified as far as the
    /// bytes are there. Nil for all that does not answer a probe of ours.
    package init?(_ packet: [UInt8], length: Int, secret: ProbeSecret, ports: ClosedRange<UInt16>) {
        guard let header = ProbeHeader(packet, length: length) else { return nil }
        let available = header.available(in: packet)
        let body = header.bodyOffset
        switch (header.family, header.transport) {
        case (.v4, ProbeHeader.icmp), (.v6, ProbeHeader.icmpV6):
            guard available >= 8 + ProbePacket.payloadLength,
                packet[body] == (header.family == .v4 ? 0 : 129), packet[body + 1] == 0,
                packet.bigEndian32(at: body + 8) == ProbePayload.magic,
                let purpose = ProbePurpose(code: UInt16(packet.bigEndian16(at: body + 30)))
            else { return nil }
            let peer = PeerID(Int(packet.bigEndian32(at: body + 22)))
            sequence = packet.bigEndian32(at: body + 26)
            let token = secret.token(peer, purpose, sequence)
            guard packet.bigEndian32(at: body + 14) == UInt32(token >> 32),
                packet.bigEndian32(at: body + 18) == UInt32(truncatingIfNeeded: token)
            else { return nil }
            kind = .echo(peer, purpose)
        case (_, ProbeHeader.tcp):
            guard available >= 20, ports.contains(UInt16(packet.bigEndian16(at: body + 2))) else {
                return nil
            }
            let port = UInt16(packet.bigEndian16(at: body))
            let acknowledged = packet.bigEndian32(at: body + 8) &- 1
            let low = UInt16(truncatingIfNeeded: acknowledged)
            let mark = secret.mark(from: header.destination, to: header.source, port: port, sequence: low)
            guard UInt16(acknowledged >> 16) == mark else { return nil }
            switch packet[body + 13] & TCPFlags.handshake {
            case TCPFlags.syn | TCPFlags.ack: kind = .synAck(port: port)
            case TCPFlags.reset | TCPFlags.ack: kind = .reset(port: port)
            default: return nil
            }
            sequence = acknowledged & 0xffff
            destinationPort = UInt16(packet.bigEndian16(at: body + 2))
        default: return nil
        }
        guard header.isBodyChecksumRight(packet) else { return nil }
        source = header.source
        destination = header.destination
        self.length = body + header.bodyLength
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
