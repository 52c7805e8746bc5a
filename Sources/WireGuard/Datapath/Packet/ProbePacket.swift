/// The inner packets that tell whether a tunnel works: ICMP and ICMPv6 echo (RFC 792; RFC 4443, section 4), and
/// what a TCP target answers to a SYN.
///
///     echo    type  code  checksum  identifier  sequence     RFC 792, RFC 4443
///             ``ProbePayload``                                 ours, in requests that we send
///     TCP     SYN from one of `ForwardingTable.probePorts`, answered by SYN-ACK or RST
enum Probe {
    static let icmp: UInt8 = 1
    static let icmp6: UInt8 = 58

    private static let echoHeader = 8
    private static let tcpHeader = 20
    private static let echoReply4: UInt8 = 0
    private static let echoRequest4: UInt8 = 8
    private static let echoRequest6: UInt8 = 128
    private static let echoReply6: UInt8 = 129

    /// An echo request without options and whole, with right checksums: any other the kernel answers, or not.
    static func isRequest(_ packet: UnsafeRawPointer, header: InnerHeader) -> Bool {
        unsafe isEcho(packet, header: header, type: header.family == .v4 ? echoRequest4 : echoRequest6)
    }

    /// Swaps the addresses and makes the request a reply, with the checksum that follows (RFC 1624): no other sum
    /// changes.
    static func turnIntoAnswer(_ packet: UnsafeMutableRawPointer, header: InnerHeader) {
        let echo = unsafe packet + header.ipLength
        let before = unsafe UInt64(echo.loadUnaligned(as: UInt16.self))
        switch header.family {
        case .v4:
            let source = unsafe packet.loadUnaligned(fromByteOffset: 12, as: UInt32.self)
            let destination = unsafe packet.loadUnaligned(fromByteOffset: 16, as: UInt32.self)
            unsafe packet.storeBytes(of: destination, toByteOffset: 12, as: UInt32.self)
            unsafe packet.storeBytes(of: source, toByteOffset: 16, as: UInt32.self)
            unsafe echo.storeBytes(of: echoReply4, as: UInt8.self)
        case .v6:
            let source = unsafe packet.loadUnaligned(fromByteOffset: 8, as: UInt128.self)
            let destination = unsafe packet.loadUnaligned(fromByteOffset: 24, as: UInt128.self)
            unsafe packet.storeBytes(of: destination, toByteOffset: 8, as: UInt128.self)
            unsafe packet.storeBytes(of: source, toByteOffset: 24, as: UInt128.self)
            unsafe echo.storeBytes(of: echoReply6, as: UInt8.self)
        }
        let after = unsafe UInt64(echo.loadUnaligned(as: UInt16.self))
        let old = unsafe UInt64(~echo.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
        let sum = ~Checksum.fold(old &+ (before ^ 0xffff) &+ after)
        unsafe echo.storeBytes(of: sum, toByteOffset: 2, as: UInt16.self)
    }

    /// An echo reply that may answer a probe of ours, or what a TCP target answers to a probe's SYN: control looks
    /// closer.
    static func isAnswer(_ packet: UnsafeRawPointer, header: InnerHeader) -> Bool {
        if header.transport == InnerHeader.tcp {
            guard !header.isFragment, header.totalLength >= header.ipLength &+ tcpHeader else { return false }
            let segment = unsafe packet + header.ipLength
            let flags = unsafe segment.load(fromByteOffset: 13, as: UInt8.self)
            let isSynAck = flags & (TCPFlag.syn | TCPFlag.ack | TCPFlag.rst) == TCPFlag.syn | TCPFlag.ack
            let isRefusal = flags & (TCPFlag.rst | TCPFlag.ack) == TCPFlag.rst | TCPFlag.ack
            return unsafe (isSynAck || isRefusal)
                && ForwardingTable.probePorts.contains(UInt16(segment.bigEndian16(at: 2)))
        }
        return unsafe hasPayload(packet, header: header)
            && isEcho(packet, header: header, type: header.family == .v4 ? echoReply4 : echoReply6)
    }

    /// What another vgwd says in its request of what it hears of us; nil where it says nothing, or is no vgwd.
    static func silence(in packet: UnsafeRawPointer, header: InnerHeader) -> Duration? {
        guard unsafe hasPayload(packet, header: header) else { return nil }
        let offset = header.ipLength &+ echoHeader &+ ProbePayload.silenceOffset
        return unsafe ProbePayload.silence(code: UInt16(packet.bigEndian16(at: offset)))
    }

    private static func hasPayload(_ packet: UnsafeRawPointer, header: InnerHeader) -> Bool {
        let offset = header.ipLength &+ echoHeader
        guard header.totalLength >= offset &+ ProbePayload.silenceOffset &+ 2 else { return false }
        return unsafe packet.bigEndian32(at: offset) == ProbePayload.magic
    }

    private static func isEcho(_ packet: UnsafeRawPointer, header: InnerHeader, type: UInt8) -> Bool {
        let length = header.totalLength &- header.ipLength
        guard !header.isFragment, length >= echoHeader,
            unsafe packet.load(fromByteOffset: header.ipLength, as: UInt8.self) == type,
            unsafe packet.load(fromByteOffset: header.ipLength &+ 1, as: UInt8.self) == 0
        else { return false }
        let pseudo: UInt64
        switch header.family {
        case .v4:
            guard header.transport == icmp, header.ipLength == 20,
                unsafe Checksum.fold(Checksum.add(packet, count: 20)) == 0xffff
            else { return false }
            pseudo = 0
        case .v6:
            guard header.transport == icmp6 else { return false }
            pseudo = unsafe Checksum.pseudoHeader(packet, family: .v6, transport: icmp6, length: length)
        }
        return unsafe Checksum.fold(Checksum.add(packet + header.ipLength, count: length, to: pseudo))
            == 0xffff
    }
}
