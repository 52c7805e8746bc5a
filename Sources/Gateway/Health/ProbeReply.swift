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
    /// Of the whole packet.
    package var length: Int

    /// `packet` may be the beginning of one that is `length` bytes long: checksums are verified as far as the
    /// bytes are there. Nil for all that does not answer a probe of ours.
    package init?(_ packet: [UInt8], length: Int, token: UInt64, ports: ClosedRange<UInt16>) {
        guard let header = ProbeHeader(packet, length: length) else { return nil }
        let available = header.available(in: packet)
        let body = header.bodyOffset
        switch (header.family, header.transport) {
        case (.v4, ProbeHeader.icmp), (.v6, ProbeHeader.icmpV6):
            guard available >= 8 + ProbePacket.payloadLength,
                packet[body] == (header.family == .v4 ? 0 : 129), packet[body + 1] == 0,
                UInt64(packet.bigEndian32(at: body + 8)) << 32 | UInt64(packet.bigEndian32(at: body + 12))
                    == token,
                let purpose = ProbePurpose(code: UInt16(packet.bigEndian16(at: body + 24)))
            else { return nil }
            kind = .echo(PeerID(Int(packet.bigEndian32(at: body + 16))), purpose)
            sequence = packet.bigEndian32(at: body + 20)
        case (_, ProbeHeader.tcp):
            guard available >= 20, ports.contains(UInt16(packet.bigEndian16(at: body + 2))) else {
                return nil
            }
            let port = UInt16(packet.bigEndian16(at: body))
            let acknowledged = packet.bigEndian32(at: body + 8) &- 1
            guard acknowledged >> 16 == ProbePacket.mark(token, header.source, port) else { return nil }
            switch packet[body + 13] & TCPFlags.handshake {
            case TCPFlags.syn | TCPFlags.ack: kind = .synAck(port: port)
            case TCPFlags.reset | TCPFlags.ack: kind = .reset(port: port)
            default: return nil
            }
            sequence = acknowledged & 0xffff
        default: return nil
        }
        guard header.isBodyChecksumRight(packet) else { return nil }
        source = header.source
        destination = header.destination
        self.length = body + header.bodyLength
    }
}

extension HealthSettings {
    /// Which target a reply is from; nil for the far inside address, and for all that is no target's.
    package func target(of reply: ProbeReply) -> Int? {
        switch reply.kind {
        case .echo(_, .target(let index)):
            targets.indices.contains(index) && targets[index] == .echo(reply.source) ? index : nil
        case .echo: nil
        case .synAck(let port), .reset(let port):
            targets.firstIndex(of: .tcp(reply.source, port: port))
        }
    }
}
