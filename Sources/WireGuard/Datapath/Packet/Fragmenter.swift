/// Splits an IPv4 packet that may be fragmented into fragments that fit (RFC 791, section 3.2), one at a time into a
/// buffer of the caller's.
///
/// Its checksums must be finished before: the transport's then lies in the first fragment as it is, and holds
/// for the whole again when the far end has put it together.
@safe struct Fragmenter {
    private static let moreFragments = 0x2000
    private static let doNotFragment = 0x4000
    private static let reserved = 0x8000
    private static let offsetMask = 0x1fff
    /// An option's first bit: it belongs in every fragment.
    private static let copied: UInt8 = 0x80

    private let packet: UnsafeRawPointer
    private let headerLength: Int
    private let totalLength: Int
    private let mtu: Int
    /// Flags and offset of the packet, itself a fragment perhaps.
    private let fragmentField: Int
    /// Of the packet's bytes, the next that is to go.
    private var position: Int

    /// Nil for a packet that must not be fragmented (IPv6, DF: its sender is owed an ``ICMPError``), or that cannot:
    /// the offset of its last piece would not fit in the header, or no piece in the MTU.
    init?(_ packet: UnsafeRawPointer, header: InnerHeader, mtu: Int) {
        guard header.family == .v4 else { return nil }
        let field = unsafe packet.bigEndian16(at: 6)
        let last = (field & Self.offsetMask) &* 8 &+ header.totalLength &- header.ipLength
        guard field & Self.doNotFragment == 0, mtu >= header.ipLength &+ 8, last <= 0xffff else { return nil }
        unsafe self.packet = packet
        headerLength = header.ipLength
        totalLength = header.totalLength
        self.mtu = mtu
        fragmentField = field
        position = header.ipLength
    }

    /// Lays the next fragment out in `buffer`, which has room for the MTU, and returns its length; 0 when all
    /// have gone.
    mutating func next(into buffer: UnsafeMutableRawPointer) -> Int {
        guard position < totalLength else { return 0 }
        let isFirst = position == headerLength
        let header = unsafe isFirst ? copyHeader(to: buffer) : copyLaterHeader(to: buffer)
        let left = totalLength &- position
        let fits = header &+ left <= mtu
        // All but the last are a multiple of eight bytes.
        let payload = fits ? left : (mtu &- header) & ~7
        let offset = (fragmentField & Self.offsetMask) &+ (position &- headerLength) / 8
        let isMore = !fits || fragmentField & Self.moreFragments != 0
        unsafe buffer.storeBigEndian16(header &+ payload, at: 2)
        unsafe buffer.storeBigEndian16(
            fragmentField & Self.reserved | (isMore ? Self.moreFragments : 0) | offset, at: 6)
        unsafe (buffer + header).copyMemory(from: packet + position, byteCount: payload)
        unsafe Checksum.finishIPv4Header(buffer, headerLength: header)
        position &+= payload
        return header &+ payload
    }

    private func copyHeader(to buffer: UnsafeMutableRawPointer) -> Int {
        unsafe buffer.copyMemory(from: packet, byteCount: headerLength)
        return headerLength
    }

    /// With those options alone that belong in every fragment.
    private func copyLaterHeader(to buffer: UnsafeMutableRawPointer) -> Int {
        unsafe buffer.copyMemory(from: packet, byteCount: 20)
        var length = 20
        var offset = 20
        while offset < headerLength {
            let kind = unsafe packet.load(fromByteOffset: offset, as: UInt8.self)
            // End of the list, and no operation, which only aligns.
            if kind == 0 { break }
            if kind == 1 {
                offset &+= 1
                continue
            }
            guard offset &+ 1 < headerLength else { break }
            let size = Int(unsafe packet.load(fromByteOffset: offset &+ 1, as: UInt8.self))
            // Whoever reads it will not get further either.
            guard size >= 2, offset &+ size <= headerLength else { break }
            if kind & Self.copied != 0 {
                unsafe (buffer + length).copyMemory(from: packet + offset, byteCount: size)
                length &+= size
            }
            offset &+= size
        }
        while length & 3 != 0 {
            unsafe buffer.storeBytes(of: 0, toByteOffset: length, as: UInt8.self)
            length &+= 1
        }
        unsafe buffer.storeBytes(of: 0x40 | UInt8(truncatingIfNeeded: length / 4), as: UInt8.self)
        return length
    }
}
