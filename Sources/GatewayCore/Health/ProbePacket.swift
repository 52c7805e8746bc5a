package import WireGuard

/// Probes that are ours to recognise: with a token, or a mark in the sequence number, from ``ProbeSecret``.
extension ProbePacket {
    /// `length` is that of the whole packet, for one that is padded. Nil when the addresses are not of one family. `silence`
    /// is for how long the far end was not heard; nil says nothing.
    package static func echo(
        from source: IPAddress, to destination: IPAddress, secret: ProbeSecret, peer: PeerID,
        sequence: UInt32, purpose: ProbePurpose = .health, length: Int = 0, silence: Duration? = nil
    ) -> [UInt8]? {
        let payload = ProbePayload(
            silence: silence, token: secret.token(peer, purpose, sequence), peer: peer, sequence: sequence,
            purpose: purpose.code)
        return echo(from: source, to: destination, payload, length: length)
    }

    /// The source port is one of `ports`, and another one with each sequence number: what an unanswered SYN
    /// left behind at the far end is not in the way of the next. The initial sequence number has a mark in its upper half,
    /// and says in the lower which SYN it is. Nil when the addresses are not of one family.
    package static func syn(
        from source: IPAddress, to destination: IPAddress, port: UInt16, secret: ProbeSecret,
        sequence: UInt32, ports: ClosedRange<UInt16>
    ) -> [UInt8]? {
        let sourcePort = UInt32(ports.lowerBound) + sequence % UInt32(ports.count)
        let low = UInt16(truncatingIfNeeded: sequence)
        let mark = secret.mark(from: source, to: destination, port: port, sequence: low)
        return syn(
            from: source, port: UInt16(truncatingIfNeeded: sourcePort), to: destination, port: port,
            sequence: UInt32(mark) << 16 | UInt32(low))
    }
}
