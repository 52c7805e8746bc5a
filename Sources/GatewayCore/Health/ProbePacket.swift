package import WireGuard

/// The inner packets that control sends for itself: echo requests (RFC 792; RFC 4443, section 4.1), and SYNs
/// to see whether a port answers (RFC 9293).
///
/// | echo payload | bytes |
/// |---|---|
/// | `ProbePayload.magic` | 4 |
/// | milliseconds since the far end was last heard, for another vgwd (``ProbePayload``) | 2 |
/// | token (``ProbeSecret``) | 8 |
/// | peer | 4 |
/// | sequence | 4 |
/// | purpose | 2 |
/// | zeros, up to the length asked for | |
///
/// All big endian, and it comes back whole: a translator on the way may change the ICMP identifier, which
/// here only tells a reader of tcpdump the peer. A SYN has no payload; its initial sequence number has a mark
/// (``ProbeSecret``) in the upper half, and says which it is in the lower.
package enum ProbePacket {
    package static let maxLength = 65_507
    static let payloadLength = 24

    /// `length`: of the whole packet, for one that is padded; brought within what an echo can be. Nil when
    /// the addresses are not of one family. `silence` is for how long the far end was not heard; nil says nothing.
    package static func echo(
        from source: IPAddress, to destination: IPAddress, secret: ProbeSecret, peer: PeerID,
        sequence: UInt32, purpose: ProbePurpose = .health, length: Int = 0, silence: Duration? = nil
    ) -> [UInt8]? {
        guard source.family == destination.family else { return nil }
        let family = source.family
        let headerLength = ProbeHeader.length(family)
        let length = min(max(length, headerLength + 8 + payloadLength), maxLength)
        var packet = header(
            from: source, to: destination, transport: family == .v4 ? ProbeHeader.icmp : ProbeHeader.icmpV6,
            length: length)
        packet.append(family == .v4 ? 8 : 128)
        packet.append(contentsOf: [0, 0, 0])
        packet.appendBigEndian(UInt16(truncatingIfNeeded: peer.rawValue))
        packet.appendBigEndian(UInt16(truncatingIfNeeded: sequence))
        packet.appendBigEndian(ProbePayload.magic)
        packet.appendBigEndian(ProbePayload.code(silence: silence))
        packet.appendBigEndian(secret.token(peer, purpose, sequence))
        packet.appendBigEndian(UInt32(truncatingIfNeeded: peer.rawValue))
        packet.appendBigEndian(sequence)
        packet.appendBigEndian(purpose.code)
        packet.append(contentsOf: repeatElement(0, count: length - packet.count))
        finish(&packet, checksumAt: 2)
        return packet
    }

    /// The source port is one of `ports`, and another one with each sequence number: what an unanswered SYN
    /// left behind at the far end is not in the way of the next. Nil when the addresses are not of one
    /// family.
    package static func syn(
        from source: IPAddress, to destination: IPAddress, port: UInt16, secret: ProbeSecret,
        sequence: UInt32,
        ports: ClosedRange<UInt16>
    ) -> [UInt8]? {
        guard source.family == destination.family else { return nil }
        let sourcePort = UInt32(ports.lowerBound) + sequence % UInt32(ports.count)
        let low = UInt16(truncatingIfNeeded: sequence)
        let mark = secret.mark(from: source, to: destination, port: port, sequence: low)
        return segment(
            from: source, to: destination, sourcePort: UInt16(truncatingIfNeeded: sourcePort),
            destinationPort: port,
            sequence: UInt32(mark) << 16 | UInt32(low), flags: TCPFlags.syn,
            // Some filters take a SYN without a window for a scan.
            window: 1024)
    }

    /// Closes what a SYN-ACK has opened (RFC 9293, section 3.5.2). Nil for anything but a SYN-ACK.
    package static func reset(answering packet: [UInt8], length: Int) -> [UInt8]? {
        guard let header = ProbeHeader(packet, length: length), header.transport == ProbeHeader.tcp,
            header.available(in: packet) >= 20, header.isBodyChecksumRight(packet)
        else { return nil }
        let body = header.bodyOffset
        guard packet[body + 13] & TCPFlags.handshake == TCPFlags.syn | TCPFlags.ack else { return nil }
        return segment(
            from: header.destination, to: header.source,
            sourcePort: UInt16(packet.bigEndian16(at: body + 2)),
            destinationPort: UInt16(packet.bigEndian16(at: body)),
            sequence: packet.bigEndian32(at: body + 8), flags: TCPFlags.reset, window: 0)
    }

    private static func segment(
        from source: IPAddress, to destination: IPAddress, sourcePort: UInt16, destinationPort: UInt16,
        sequence: UInt32, flags: UInt8, window: UInt16
    ) -> [UInt8] {
        var packet = header(
            from: source, to: destination, transport: ProbeHeader.tcp,
            length: ProbeHeader.length(source.family) + 20)
        packet.appendBigEndian(sourcePort)
        packet.appendBigEndian(destinationPort)
        packet.appendBigEndian(sequence)
        packet.appendBigEndian(UInt32(0))
        packet.append(contentsOf: [5 << 4, flags])
        packet.appendBigEndian(window)
        packet.append(contentsOf: [0, 0, 0, 0])
        finish(&packet, checksumAt: 16)
        return packet
    }

    /// Of one family and of a length that 16 bits hold. Not to be fragmented: a padded probe that arrives in
    /// pieces would say what is not so.
    private static func header(
        from source: IPAddress, to destination: IPAddress, transport: UInt8, length: Int
    ) -> [UInt8] {
        var packet: [UInt8] = []
        packet.reserveCapacity(length)
        switch source.family {
        case .v4:
            packet.append(contentsOf: [0x45, 0])
            packet.appendBigEndian(UInt16(truncatingIfNeeded: length))
            packet.append(contentsOf: [0, 0, 0x40, 0, ProbeHeader.timeToLive, transport, 0, 0])
        case .v6:
            packet.append(contentsOf: [0x60, 0, 0, 0])
            packet.appendBigEndian(UInt16(truncatingIfNeeded: length - 40))
            packet.append(contentsOf: [transport, ProbeHeader.timeToLive])
        }
        packet += source.bytes + destination.bytes
        if source.family == .v4 {
            var checksum = InternetChecksum()
            checksum.add(packet, 0..<20)
            packet.storeBigEndian16(checksum.value, at: 10)
        }
        return packet
    }

    private static func finish(_ packet: inout [UInt8], checksumAt offset: Int) {
        guard let header = ProbeHeader(packet, length: packet.count) else { return }
        var checksum = InternetChecksum()
        if header.transport != ProbeHeader.icmp { checksum.addPseudoHeader(of: packet, header) }
        checksum.add(packet, header.bodyOffset..<packet.count)
        packet.storeBigEndian16(checksum.value, at: header.bodyOffset + offset)
    }
}

enum TCPFlags {
    static let syn: UInt8 = 0x02
    static let reset: UInt8 = 0x04
    static let ack: UInt8 = 0x10
    static let handshake: UInt8 = syn | reset | ack
}
