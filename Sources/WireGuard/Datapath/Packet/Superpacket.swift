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

    private let packet: UnsafeMutableRawPointer
    private let count: Int
    private let header: InnerHeader
    private let transportOffset: Int
    let headerLength: Int
    let segmentSize: Int
    private let isTCP: Bool
    private var template = InlineArray<16, UInt64>(repeating: 0)

    /// Nil when what the kernel, or who wrote to the TUN in its name, says does not hold together.
    ///
    /// `limit` is the longest packet that passes: a TCP stream is segmented finer to keep it, which is nobody's loss, and
    /// datagrams are what they are (`longest`).
    init?(
        _ packet: UnsafeMutableRawPointer, header: InnerHeader, offload: VirtioNetHeader, limit: Int = .max
    ) {
        let transportOffset = Int(offload.checksumStart)
        let kind = offload.segmentation & ~VirtioNetHeader.Segmentation.ecn
        let isTCP = kind != VirtioNetHeader.Segmentation.udp
        let expected =
            header.family == .v4 ? VirtioNetHeader.Segmentation.tcp4 : VirtioNetHeader.Segmentation.tcp6
        guard !isTCP || kind == expected, !header.isFragment,
            offload.flags & VirtioNetHeader.Flag.needsChecksum != 0, offload.segmentSize > 0,
            offload.checksumOffset == (isTCP ? 16 : 6),
            transportOffset >= header.ipLength, transportOffset &+ (isTCP ? 20 : 8) <= header.totalLength
        else { return nil }
        var headerLength = transportOffset &+ 8
        if isTCP {
            let dataOffset =
                Int(unsafe packet.load(fromByteOffset: transportOffset &+ 12, as: UInt8.self) >> 4) &* 4
            guard dataOffset >= 20 else { return nil }
            headerLength = transportOffset &+ dataOffset
        }
        guard headerLength < header.totalLength, headerLength <= Self.maximumHeader, headerLength < limit
        else { return nil }
        unsafe self.packet = packet
        count = header.totalLength
        self.header = header
        self.transportOffset = transportOffset
        self.headerLength = headerLength
        segmentSize =
            isTCP ? min(Int(offload.segmentSize), limit &- headerLength) : Int(offload.segmentSize)
        self.isTCP = isTCP
        var span = template.mutableSpan
        unsafe span.withUnsafeMutableBytes { bytes in
            unsafe bytes.baseAddress?.copyMemory(from: packet, byteCount: headerLength)
        }
    }

    var segmentCount: Int { (count &- headerLength &+ segmentSize &- 1) / segmentSize }

    /// Length of the segments, headers included.
    var longest: Int { min(headerLength &+ segmentSize, count) }

    /// Lays segment `number` out where its payload lies and finishes its checksums. Call in order, from 0,
    /// and be done with one before asking for the next.
    @inline(__always)
    func segment(_ number: Int) -> (start: UnsafeMutableRawPointer, count: Int) {
        let offset = headerLength &+ number &* segmentSize
        let payload = min(segmentSize, count &- offset)
        let isLast = offset &+ payload == count
        let start = unsafe packet + (offset &- headerLength)
        let length = headerLength &+ payload
        let source = template.span
        unsafe source.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { unsafe start.copyMemory(from: base, byteCount: headerLength) }
        }
        switch header.family {
        case .v4:
            unsafe start.storeBigEndian16(length, at: 2)
            let identification = unsafe UnsafeRawPointer(start).bigEndian16(at: 4)
            unsafe start.storeBigEndian16(identification &+ number, at: 4)
            unsafe Checksum.finishIPv4Header(start, headerLength: header.ipLength)
        case .v6:
            unsafe start.storeBigEndian16(length &- 40, at: 4)
        }
        let transport = unsafe start + transportOffset
        let transportLength = length &- transportOffset
        if isTCP {
            let sequence = unsafe UnsafeRawPointer(transport).bigEndian32(at: 4)
            unsafe transport.storeBigEndian32(
                sequence &+ UInt32(truncatingIfNeeded: number &* segmentSize), at: 4)
            var flags = unsafe transport.load(fromByteOffset: 13, as: UInt8.self)
            if !isLast { flags &= ~(TCPFlag.fin | TCPFlag.psh) }
            if number > 0 { flags &= ~TCPFlag.cwr }
            unsafe transport.storeBytes(of: flags, toByteOffset: 13, as: UInt8.self)
        } else {
            unsafe transport.storeBigEndian16(transportLength, at: 4)
        }
        let field = isTCP ? 16 : 6
        unsafe transport.storeBytes(of: 0, toByteOffset: field, as: UInt16.self)
        let pseudo = unsafe Checksum.pseudoHeader(
            start, family: header.family, transport: isTCP ? InnerHeader.tcp : InnerHeader.udp,
            length: transportLength)
        let sum = unsafe ~Checksum.fold(Checksum.add(transport, count: transportLength, to: pseudo))
        // A UDP checksum of zero would say that there is none (RFC 768).
        unsafe transport.storeBytes(
            of: !isTCP && sum == 0 ? 0xffff : sum, toByteOffset: field, as: UInt16.self)
        return unsafe (start, length)
    }
}

enum TCPFlag {
    static let fin: UInt8 = 0x01
    static let syn: UInt8 = 0x02
    static let rst: UInt8 = 0x04
    static let psh: UInt8 = 0x08
    static let ack: UInt8 = 0x10
    static let cwr: UInt8 = 0x80
}
