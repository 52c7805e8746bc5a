/// A packet that the kernel left for us to segment (TSO, USO): up to 64 KB behind one header, split into segments
/// of `segmentSize` payload bytes, each under a copy of the header with its own lengths, sequence number,
/// flags and checksums.
///
/// No payload is copied: the header of the next segment is written over the end of the one before it, which
/// by then has been sealed.
@safe struct Superpacket {
    /// IPv4 with options and TCP with options need 120; IPv6 extension headers beyond that are not offered by
    /// the kernel.
    private static let maximumHeader = 128

    private let start: UnsafeMutableRawPointer
    private let count: Int
    private let family: IPAddress.Family
    private let ipLength: Int
    private let transport: UInt8
    private let transportOffset: Int
    let headerLength: Int
    let segmentSize: Int
    private let isTCP: Bool
    private var template = InlineArray<16, UInt64>(repeating: 0)

    /// Nil when what the kernel, or who wrote to the TUN in its name, says does not hold together.
    ///
    /// `limit` is the longest packet that passes: a TCP stream is segmented finer to keep it, which is nobody's loss, and
    /// datagrams are what they are (`longest`).
    init?(_ packet: borrowing IPPacket, offload: VirtioNetHeader, limit: Int = .max) {
        let transportOffset = Int(offload.checksumStart)
        let kind = offload.segmentation & ~VirtioNetHeader.Segmentation.ecn
        let isTCP = kind != VirtioNetHeader.Segmentation.udp
        let expected =
            packet.family == .v4 ? VirtioNetHeader.Segmentation.tcp4 : VirtioNetHeader.Segmentation.tcp6
        let shortest = isTCP ? TCPField.headerLength : UDPField.headerLength
        guard !isTCP || kind == expected, !packet.isFragment,
            offload.flags & VirtioNetHeader.Flag.needsChecksum != 0, offload.segmentSize > 0,
            offload.checksumOffset == (isTCP ? TCPField.checksum : UDPField.checksum),
            transportOffset >= packet.headerLength, transportOffset &+ shortest <= packet.count
        else { return nil }
        var headerLength = transportOffset &+ shortest
        if isTCP {
            let dataOffset =
                Int(unsafe packet.bytes.byte(at: transportOffset &+ TCPField.dataOffset) >> 4) &* 4
            guard dataOffset >= shortest else { return nil }
            headerLength = transportOffset &+ dataOffset
        }
        guard headerLength < packet.count, headerLength <= Self.maximumHeader, headerLength < limit
        else { return nil }
        unsafe start = packet.start
        count = packet.count
        family = packet.family
        ipLength = packet.headerLength
        transport = packet.transport
        self.transportOffset = transportOffset
        self.headerLength = headerLength
        segmentSize =
            isTCP ? min(Int(offload.segmentSize), limit &- headerLength) : Int(offload.segmentSize)
        self.isTCP = isTCP
        let first = unsafe packet.bytes
        var span = template.mutableSpan
        unsafe span.withUnsafeMutableBytes { bytes in
            unsafe bytes.baseAddress?.copyMemory(from: first, byteCount: headerLength)
        }
    }

    var segmentCount: Int { (count &- headerLength &+ segmentSize &- 1) / segmentSize }

    /// Length of the segments, headers included.
    var longest: Int { min(headerLength &+ segmentSize, count) }

    /// Lays segment `index` out where its payload lies and finishes its checksums. Call in order, from 0,
    /// and be done with one before asking for the next.
    @inline(__always)
    func segment(_ index: Int) -> IPPacket {
        let offset = headerLength &+ index &* segmentSize
        let payload = min(segmentSize, count &- offset)
        let isLast = offset &+ payload == count
        let start = unsafe start + (offset &- headerLength)
        let length = headerLength &+ payload
        let source = template.span
        unsafe source.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { unsafe start.copyMemory(from: base, byteCount: headerLength) }
        }
        switch family {
        case .v4:
            unsafe start.storeBigEndian16(length, at: IPv4Field.totalLength)
            let identification = unsafe start.reading.bigEndian16(at: IPv4Field.identification)
            unsafe start.storeBigEndian16(identification &+ index, at: IPv4Field.identification)
            unsafe Checksum.finishIPv4Header(start, headerLength: ipLength)
        case .v6:
            unsafe start.storeBigEndian16(length &- IPv6Field.headerLength, at: IPv6Field.payloadLength)
        }
        let body = unsafe start + transportOffset
        let bodyLength = length &- transportOffset
        if isTCP {
            let sequence = unsafe body.reading.bigEndian32(at: TCPField.sequence)
            unsafe body.storeBigEndian32(
                sequence &+ UInt32(truncatingIfNeeded: index &* segmentSize), at: TCPField.sequence)
            var flags = unsafe body.reading.byte(at: TCPField.flags)
            if !isLast { flags &= ~(TCPFlag.fin | TCPFlag.psh) }
            if index > 0 { flags &= ~TCPFlag.cwr }
            unsafe body.storeByte(flags, at: TCPField.flags)
        } else {
            unsafe body.storeBigEndian16(bodyLength, at: UDPField.length)
        }
        let field = isTCP ? TCPField.checksum : UDPField.checksum
        unsafe body.storeWord(0, at: field)
        let pseudo = unsafe Checksum.pseudoHeader(
            start, family: family, transport: isTCP ? IPProtocol.tcp : IPProtocol.udp, length: bodyLength)
        let sum = unsafe ~Checksum.fold(Checksum.add(body, count: bodyLength, to: pseudo))
        // A UDP checksum of zero would say that there is none (RFC 768).
        unsafe body.storeWord(!isTCP && sum == 0 ? 0xffff : sum, at: field)
        return unsafe IPPacket(
            start, family: family, headerLength: ipLength, count: length, transport: transport)
    }
}
