/// Splits an IPv4 packet that may be fragmented into fragments that fit (RFC 791, section 3.2), one at a time into a
/// buffer of the caller's.
///
/// Its checksums must be finished before: the transport's then lies in the first fragment as it is, and holds
/// for the whole again when the far end has put it together.
@safe struct Fragmenter {
    /// An option's first bit: it belongs in every fragment.
    private static let copied: UInt8 = 0x80

    private let packet: UnsafeRawPointer
    private let headerLength: Int
    private let totalLength: Int
    private let mtu: Int
    /// Flags and offset of the packet, itself a fragment perhaps.
    private let fragmentField: Int
    /// Offset of the next byte that is to go.
    private var position: Int

    /// Nil for a packet that must not be fragmented (IPv6, DF: its sender is owed an ``ICMPError``), or that cannot:
    /// the offset of its last piece would not fit in the header, or no piece in the MTU.
    init?(_ packet: borrowing IPPacket, mtu: Int) {
        guard packet.family == .v4 else { return nil }
        let field = packet.fragmentField
        let last = (field & FragmentBits.offset) &* 8 &+ packet.bodyLength
        guard field & FragmentBits.doNotFragment == 0, mtu >= packet.headerLength &+ 8, last <= 0xffff else {
            return nil
        }
        unsafe self.packet = packet.bytes
        headerLength = packet.headerLength
        totalLength = packet.count
        self.mtu = mtu
        fragmentField = field
        position = packet.headerLength
    }

    /// Lays the next fragment out in `buffer`, which has room for the MTU; nil when all have gone.
    mutating func next(into buffer: UnsafeMutableRawPointer) -> IPPacket? {
        guard position < totalLength else { return nil }
        let isFirst = position == headerLength
        let header = unsafe isFirst ? copyHeader(to: buffer) : copyLaterHeader(to: buffer)
        let left = totalLength &- position
        let fits = header &+ left <= mtu
        // All but the last are a multiple of eight bytes.
        let payload = fits ? left : (mtu &- header) & ~7
        let offset = (fragmentField & FragmentBits.offset) &+ (position &- headerLength) / 8
        let isMore = !fits || fragmentField & FragmentBits.moreFragments != 0
        unsafe buffer.storeBigEndian16(header &+ payload, at: IPv4Field.totalLength)
        unsafe buffer.storeBigEndian16(
            fragmentField & FragmentBits.reserved | (isMore ? FragmentBits.moreFragments : 0) | offset,
            at: IPv4Field.fragment)
        unsafe (buffer + header).copyMemory(from: packet + position, byteCount: payload)
        unsafe Checksum.finishIPv4Header(buffer, headerLength: header)
        position &+= payload
        return unsafe IPPacket(
            buffer, family: .v4, headerLength: header, count: header &+ payload,
            transport: packet.byte(at: IPv4Field.transport), isFragment: isMore || offset > 0)
    }

    private func copyHeader(to buffer: UnsafeMutableRawPointer) -> Int {
        unsafe buffer.copyMemory(from: packet, byteCount: headerLength)
        return headerLength
    }

    /// With those options alone that belong in every fragment.
    private func copyLaterHeader(to buffer: UnsafeMutableRawPointer) -> Int {
        unsafe buffer.copyMemory(from: packet, byteCount: IPv4Field.headerLength)
        var length = IPv4Field.headerLength
        var offset = IPv4Field.headerLength
        while offset < headerLength {
            let kind = unsafe packet.byte(at: offset)
            // End of the list, and no operation, which only aligns.
            if kind == 0 { break }
            if kind == 1 {
                offset &+= 1
                continue
            }
            guard offset &+ 1 < headerLength else { break }
            let size = Int(unsafe packet.byte(at: offset &+ 1))
            // Whoever reads it will not get further either.
            guard size >= 2, offset &+ size <= headerLength else { break }
            if kind & Self.copied != 0 {
                unsafe (buffer + length).copyMemory(from: packet + offset, byteCount: size)
                length &+= size
            }
            offset &+= size
        }
        while length & 3 != 0 {
            unsafe buffer.storeByte(0, at: length)
            length &+= 1
        }
        unsafe buffer.storeByte(0x40 | UInt8(truncatingIfNeeded: length / 4), at: IPv4Field.versionAndLength)
        return length
    }
}
