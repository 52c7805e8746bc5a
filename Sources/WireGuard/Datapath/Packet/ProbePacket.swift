/// The inner packets that tell whether a tunnel works: ICMP and ICMPv6 echo (RFC 792; RFC 4443, section 4), and
/// SYNs to see whether a port of a target answers (RFC 9293). This file has all of their format.
///
///     echo request    type  code  checksum  identifier  sequence  ``ProbePayload``
///     echo reply      the same with another type; it comes back whole
///     TCP             SYN from one of `ForwardingTable.probePorts`, whose reply is SYN-ACK or RST
///
/// The ICMP identifier only tells a reader of tcpdump the peer: a translator on the way may change it. A SYN has no
/// payload; who sent it knows the reply by its acknowledgement number.
///
/// The data threads reply to requests and recognise replies, as methods of ``IPPacket``. Control builds requests and
/// reads replies, as arrays.
package enum ProbePacket {
    /// Longest packet that can be asked for, in bytes.
    package static let maxLength = 65_507
    /// Some filters take a SYN without a window for a scan.
    private static let synWindow: UInt16 = 1024

    /// `length` is that of the whole packet, for one that is padded; it is brought within what an echo can be. Nil when
    /// the addresses are not of one family.
    package static func echo(
        from source: IPAddress, to destination: IPAddress, _ payload: ProbePayload, length: Int = 0
    ) -> [UInt8]? {
        guard source.family == destination.family else { return nil }
        let family = source.family
        let shortest = IPPacket.headerLength(family) + ICMPField.headerLength + ProbePayload.size
        var body: [UInt8] = [family == .v4 ? ICMPType.echoRequest4 : ICMPType.echoRequest6, 0, 0, 0]
        body.appendBigEndian(UInt16(truncatingIfNeeded: payload.peer.rawValue))
        body.appendBigEndian(UInt16(truncatingIfNeeded: payload.sequence))
        return packet(
            from: source, to: destination, transport: IPProtocol.icmp(family), body: body + payload.bytes,
            checksumAt: ICMPField.checksum, length: min(max(length, shortest), maxLength))
    }

    /// Nil when the addresses are not of one family.
    package static func syn(
        from source: IPAddress, port sourcePort: UInt16, to destination: IPAddress, port: UInt16,
        sequence: UInt32
    ) -> [UInt8]? {
        guard source.family == destination.family else { return nil }
        return segment(
            from: source, to: destination, ports: (sourcePort, port), sequence: sequence, flags: TCPFlag.syn,
            window: synWindow)
    }

    /// Closes what a SYN-ACK has opened (RFC 9293, section 3.5.2). Nil for anything but a SYN-ACK. `packet` may be the
    /// beginning of one that is `length` bytes long.
    package static func reset(answering packet: [UInt8], length: Int) -> [UInt8]? {
        guard let reply = Reply(packet, length: length), case .tcp(let tcp) = reply.content, tcp.isSynAck
        else { return nil }
        return segment(
            from: reply.destination, to: reply.source, ports: (tcp.destinationPort, tcp.sourcePort),
            sequence: tcp.acknowledgement, flags: TCPFlag.rst, window: 0)
    }

    private static func segment(
        from source: IPAddress, to destination: IPAddress, ports: (UInt16, UInt16), sequence: UInt32,
        flags: UInt8,
        window: UInt16
    ) -> [UInt8] {
        var body: [UInt8] = []
        body.appendBigEndian(ports.0)
        body.appendBigEndian(ports.1)
        body.appendBigEndian(sequence)
        body.appendBigEndian(UInt32(0))
        body += [UInt8(TCPField.headerLength / 4) << 4, flags]
        body.appendBigEndian(window)
        body += [0, 0, 0, 0]
        return packet(
            from: source, to: destination, transport: IPProtocol.tcp, body: body,
            checksumAt: TCPField.checksum)
    }

    /// Not to be fragmented: a padded probe that arrives in pieces would say what is not so. Zeros follow `body` up to
    /// `length`.
    private static func packet(
        from source: IPAddress, to destination: IPAddress, transport: UInt8, body: [UInt8],
        checksumAt field: Int, length: Int = 0
    ) -> [UInt8] {
        let header = IPPacket.headerLength(source.family)
        var bytes = [UInt8](repeating: 0, count: max(length, header + body.count))
        bytes.replaceSubrange(header..<header + body.count, with: body)
        unsafe bytes.withUnsafeMutableBytes { bytes in
            guard let start = bytes.baseAddress else { return }
            let packet = unsafe IPPacket(
                writingTo: start, from: source, to: destination, transport: transport,
                bodyLength: bytes.count - header, fragment: FragmentBits.doNotFragment)
            packet.finishBody(checksumAt: field)
        }
        return bytes
    }

    /// Whether `packet`, the beginning of one that is `length` bytes long, is another vgwd's echo request.
    package static func isRequest(_ packet: [UInt8], length: Int) -> Bool {
        IPPacket.read(excerpt: packet, length: length) { packet, available in
            unsafe available >= ICMPField.headerLength + ProbePayload.silenceOffset
                && packet.transport == IPProtocol.icmp(packet.family)
                && packet.body.byte(at: ICMPField.type)
                    == (packet.family == .v4 ? ICMPType.echoRequest4 : ICMPType.echoRequest6)
                && packet.body.bigEndian32(at: ICMPField.headerLength) == ProbePayload.magic
        } ?? false
    }
}

/// What the echo requests of vgwd carry, big endian; zeros follow, up to the length asked for.
///
///     0 magic  4 silence  6 token  14 peer  18 sequence  22 purpose
package struct ProbePayload: Hashable, Sendable {
    /// "vgwd".
    package static let magic: UInt32 = 0x7667_7764
    static let silenceOffset = 4
    static let tokenOffset = 6
    private static let peerOffset = 14
    private static let sequenceOffset = 18
    private static let purposeOffset = 22
    static let size = 24
    /// Nothing is said of silence.
    private static let unsaid: UInt16 = .max

    /// For how long the far end was not heard, so that another vgwd learns that what it sends is lost. It is believed of the
    /// tunnel that it came by, and of no other. Nil says nothing. On the wire in milliseconds.
    package var silence: Duration?
    /// What nobody can make who has not seen this very probe.
    package var token: UInt64
    package var peer: PeerID
    package var sequence: UInt32
    package var purpose: UInt16

    package init(silence: Duration? = nil, token: UInt64, peer: PeerID, sequence: UInt32, purpose: UInt16) {
        self.silence = silence
        self.token = token
        self.peer = peer
        self.sequence = sequence
        self.purpose = purpose
    }

    /// `bytes` holds `size` of them. Nil for what is no vgwd's.
    fileprivate init?(_ bytes: UnsafeRawPointer) {
        guard unsafe bytes.bigEndian32(at: 0) == Self.magic else { return nil }
        silence = unsafe Self.silence(code: UInt16(bytes.bigEndian16(at: Self.silenceOffset)))
        token =
            unsafe UInt64(bytes.bigEndian32(at: Self.tokenOffset)) << 32
            | UInt64(bytes.bigEndian32(at: Self.tokenOffset + 4))
        peer = PeerID(Int(unsafe bytes.bigEndian32(at: Self.peerOffset)))
        sequence = unsafe bytes.bigEndian32(at: Self.sequenceOffset)
        purpose = UInt16(unsafe bytes.bigEndian16(at: Self.purposeOffset))
    }

    fileprivate var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(Self.magic)
        bytes.appendBigEndian(Self.code(silence: silence))
        bytes.appendBigEndian(token)
        bytes.appendBigEndian(UInt32(truncatingIfNeeded: peer.rawValue))
        bytes.appendBigEndian(sequence)
        bytes.appendBigEndian(purpose)
        return bytes
    }

    package static func code(silence: Duration?) -> UInt16 {
        guard let silence else { return unsaid }
        return UInt16(min(max(silence.wholeNanoseconds / 1_000_000, 0), Int64(unsaid) - 1))
    }

    package static func silence(code: UInt16) -> Duration? {
        code == unsaid ? nil : .milliseconds(Int64(code))
    }
}

extension ProbePacket {
    /// What may answer a probe, as it stands in the packet: whether it does is for whoever sent the probe to say.
    package struct Reply {
        package enum Content {
            case echo(ProbePayload)
            case tcp(TCP)
        }

        package struct TCP {
            package let sourcePort: UInt16
            package let destinationPort: UInt16
            package let acknowledgement: UInt32
            package let isSynAck: Bool
            /// RST with ACK: the port is closed.
            package let isRefusal: Bool
        }

        package let source: IPAddress
        package let destination: IPAddress
        /// Bytes of the whole packet.
        package let length: Int
        package let content: Content

        /// `packet` may be the beginning of one that is `length` bytes long: checksums are verified as far as the
        /// bytes are there. Nil for all but echo replies with a payload of ours, and TCP.
        package init?(_ packet: [UInt8], length: Int) {
            guard let reply = IPPacket.read(excerpt: packet, length: length, { Reply($0, available: $1) })
            else { return nil }
            self = reply
        }

        private init?(_ packet: borrowing IPPacket, available: Int) {
            let body = unsafe packet.body
            switch packet.transport {
            case IPProtocol.icmp(packet.family):
                guard available >= ICMPField.headerLength + ProbePayload.size,
                    unsafe body.byte(at: ICMPField.type)
                        == (packet.family == .v4 ? ICMPType.echoReply4 : ICMPType.echoReply6),
                    unsafe body.byte(at: ICMPField.code) == 0,
                    let payload = unsafe ProbePayload(body + ICMPField.headerLength)
                else { return nil }
                content = .echo(payload)
            case IPProtocol.tcp:
                guard available >= TCPField.headerLength else { return nil }
                content = .tcp(
                    TCP(
                        sourcePort: UInt16(unsafe body.bigEndian16(at: TCPField.sourcePort)),
                        destinationPort: UInt16(unsafe body.bigEndian16(at: TCPField.destinationPort)),
                        acknowledgement: unsafe body.bigEndian32(at: TCPField.acknowledgement),
                        isSynAck: packet.isSynAck, isRefusal: packet.isRefusal))
            default: return nil
            }
            guard available < packet.bodyLength || packet.isBodyRight else { return nil }
            source = packet.address(.source)
            destination = packet.address(.destination)
            length = packet.count
        }
    }
}

// MARK: What data threads see

extension IPPacket {
    /// An echo request without options and whole, with right checksums: to any other the kernel replies, or not.
    var isEchoRequest: Bool {
        isEcho(type: family == .v4 ? ICMPType.echoRequest4 : ICMPType.echoRequest6)
    }

    /// Swaps the addresses and makes the request a reply, with the checksum that follows: no other sum changes.
    func turnIntoEchoReply() {
        let echo = unsafe start + headerLength
        let before = unsafe UInt64(echo.reading.word(at: ICMPField.type))
        swapAddresses()
        unsafe echo.storeByte(family == .v4 ? ICMPType.echoReply4 : ICMPType.echoReply6, at: ICMPField.type)
        unsafe Checksum.update(
            echo, at: ICMPField.checksum, from: before, to: UInt64(echo.reading.word(at: ICMPField.type)))
    }

    /// Whether it may answer a probe of ours: an echo reply, or what a TCP target answers to a probe's SYN. Control looks
    /// closer.
    var mayAnswerProbe: Bool {
        if transport == IPProtocol.tcp {
            return unsafe hasTCPHeader
                && (isSynAck || tcpFlags & (TCPFlag.rst | TCPFlag.ack) == TCPFlag.rst | TCPFlag.ack)
                && ForwardingTable.probePorts.contains(
                    UInt16(body.bigEndian16(at: TCPField.destinationPort)))
        }
        return hasProbePayload
            && isEcho(type: family == .v4 ? ICMPType.echoReply4 : ICMPType.echoReply6)
    }

    /// What another vgwd says in its request of what it hears of us; nil where it says nothing, or is no vgwd.
    var probeSilence: Duration? {
        guard hasProbePayload else { return nil }
        let offset = ICMPField.headerLength &+ ProbePayload.silenceOffset
        return unsafe ProbePayload.silence(code: UInt16(body.bigEndian16(at: offset)))
    }

    fileprivate var isSynAck: Bool {
        tcpFlags & (TCPFlag.syn | TCPFlag.rst | TCPFlag.ack) == TCPFlag.syn | TCPFlag.ack
    }

    fileprivate var isRefusal: Bool {
        tcpFlags & (TCPFlag.syn | TCPFlag.rst | TCPFlag.ack) == TCPFlag.rst | TCPFlag.ack
    }

    private var hasProbePayload: Bool {
        bodyLength >= ICMPField.headerLength &+ ProbePayload.tokenOffset
            && (unsafe body.bigEndian32(at: ICMPField.headerLength)) == ProbePayload.magic
    }

    private func isEcho(type: UInt8) -> Bool {
        unsafe !isFragment && transport == IPProtocol.icmp(family)
            && headerLength == Self.headerLength(family) && bodyLength >= ICMPField.headerLength
            && body.byte(at: ICMPField.type) == type && body.byte(at: ICMPField.code) == 0
            && isHeaderRight && isBodyRight
    }
}
