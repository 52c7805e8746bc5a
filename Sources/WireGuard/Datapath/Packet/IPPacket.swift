/// A view of an IP packet whose header has been parsed, once. After `init` every field that has a name here lies inside
/// the packet: reading one cannot go past it. What the transport header says is looked at only behind `hasTCPHeader`
/// and its like.
///
/// The bytes are the caller's, and must stay while the view is used. It fits in four registers, and is never copied.
@safe struct IPPacket: ~Copyable {
    enum Side {
        case source
        case destination

        var other: Side { self == .source ? .destination : .source }
    }

    let start: UnsafeMutableRawPointer
    /// Bytes of the whole packet, as its header says; not more than there are.
    let count: Int
    /// Bytes before the transport header, as far as it is known: IPv6 extension headers are not walked.
    let headerLength: Int
    /// IPv4 protocol, or IPv6 next header.
    let transport: UInt8
    let family: IPAddress.Family
    /// Has an offset or more to come, so that its ports are not where they seem. IPv4 only.
    let isFragment: Bool

    /// Bytes of the transport header and of all behind it.
    @inline(__always) var bodyLength: Int { count &- headerLength }
    @inline(__always) var bytes: UnsafeRawPointer { unsafe UnsafeRawPointer(start) }
    /// The transport header; nothing of it need be there.
    @inline(__always) var body: UnsafeRawPointer { unsafe bytes + headerLength }

    /// Throws `.innerVersionUnknown`, or `.innerLengthWrong` when the header's lengths do not fit in `count` bytes. Where
    /// the packet `isQuoted`, by an ICMP error, `count` is what is there of it, whatever the header says.
    @inline(__always)
    init(_ start: UnsafeMutableRawPointer, count: Int, isQuoted: Bool = false) throws(DropReason) {
        guard count > 0 else { throw .innerLengthWrong }
        let bytes = UnsafeRawPointer(start)
        let first = unsafe bytes.byte(at: IPv4Field.versionAndLength)
        switch first >> 4 {
        case 4:
            guard count >= IPv4Field.headerLength else { throw .innerLengthWrong }
            let header = Int(first & 15) &* 4
            let total = unsafe isQuoted ? count : bytes.bigEndian16(at: IPv4Field.totalLength)
            guard header >= IPv4Field.headerLength, total >= header, total <= count else {
                throw .innerLengthWrong
            }
            let fragment = unsafe bytes.bigEndian16(at: IPv4Field.fragment)
            unsafe self.init(
                start, family: .v4, headerLength: header, count: total,
                transport: bytes.byte(at: IPv4Field.transport),
                isFragment: fragment & (FragmentBits.moreFragments | FragmentBits.offset) != 0)
        case 6:
            guard count >= IPv6Field.headerLength else { throw .innerLengthWrong }
            let payload = unsafe bytes.bigEndian16(at: IPv6Field.payloadLength)
            let total = isQuoted ? count : IPv6Field.headerLength &+ payload
            guard total <= count else { throw .innerLengthWrong }
            unsafe self.init(
                start, family: .v6, headerLength: IPv6Field.headerLength, count: total,
                transport: bytes.byte(at: IPv6Field.nextHeader))
        default:
            throw .innerVersionUnknown
        }
    }

    /// For bytes that are known to hold such a packet.
    @inline(__always)
    init(
        _ start: UnsafeMutableRawPointer, family: IPAddress.Family, headerLength: Int, count: Int,
        transport: UInt8,
        isFragment: Bool = false
    ) {
        unsafe self.start = start
        self.count = count
        self.headerLength = headerLength
        self.transport = transport
        self.family = family
        self.isFragment = isFragment
    }

    /// Lets `read` see the packet of `length` bytes that begins with `excerpt`, and how many bytes of its body are there.
    /// Nil without a whole and right header, and for fragments.
    static func read<Result>(
        excerpt: [UInt8], length: Int, _ read: (borrowing IPPacket, _ available: Int) -> Result?
    ) -> Result? {
        guard let first = excerpt.first,
            excerpt.count >= (first >> 4 == 4 ? IPv4Field.headerLength : IPv6Field.headerLength)
        else { return nil }
        return unsafe excerpt.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return nil }
            do throws(DropReason) {
                // Only read from: `read` has a borrowed packet.
                let packet = try unsafe IPPacket(UnsafeMutableRawPointer(mutating: base), count: length)
                guard packet.headerLength <= bytes.count, !packet.isFragment, packet.isHeaderRight else {
                    return nil
                }
                return read(packet, min(packet.bodyLength, bytes.count - packet.headerLength))
            } catch {
                return nil
            }
        }
    }

    // MARK: Writing a packet

    static func headerLength(_ family: IPAddress.Family) -> Int {
        family == .v4 ? IPv4Field.headerLength : IPv6Field.headerLength
    }

    /// Writes a header without options, with its checksum, in front of `bodyLength` bytes. The addresses are of one
    /// family. `fragment` are ``FragmentBits``.
    init(
        writingTo start: UnsafeMutableRawPointer, from source: IPAddress, to destination: IPAddress,
        transport: UInt8,
        bodyLength: Int, fragment: Int = 0
    ) {
        let header = Self.headerLength(source.family)
        unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: header)
        switch source.family {
        case .v4:
            unsafe start.storeByte(0x45, at: IPv4Field.versionAndLength)
            unsafe start.storeBigEndian16(header &+ bodyLength, at: IPv4Field.totalLength)
            unsafe start.storeBigEndian16(fragment, at: IPv4Field.fragment)
            unsafe start.storeByte(Self.hopLimit, at: IPv4Field.ttl)
            unsafe start.storeByte(transport, at: IPv4Field.transport)
            let bits = (UInt32(truncatingIfNeeded: source.bits), UInt32(truncatingIfNeeded: destination.bits))
            unsafe start.storeBigEndian32(bits.0, at: IPv4Field.source)
            unsafe start.storeBigEndian32(bits.1, at: IPv4Field.destination)
            unsafe Checksum.finishIPv4Header(start, headerLength: header)
        case .v6:
            unsafe start.storeByte(0x60, at: IPv6Field.versionAndClass)
            unsafe start.storeBigEndian16(bodyLength, at: IPv6Field.payloadLength)
            unsafe start.storeByte(transport, at: IPv6Field.nextHeader)
            unsafe start.storeByte(Self.hopLimit, at: IPv6Field.hopLimit)
            unsafe start.storeBytes(
                of: source.bits.bigEndian, toByteOffset: IPv6Field.source, as: UInt128.self)
            unsafe start.storeBytes(
                of: destination.bits.bigEndian, toByteOffset: IPv6Field.destination, as: UInt128.self)
        }
        unsafe self.init(
            start, family: source.family, headerLength: header, count: header &+ bodyLength,
            transport: transport)
    }

    private static let hopLimit: UInt8 = 64

    /// Computes the transport's checksum, which is at `field` of the body.
    func finishBody(checksumAt field: Int) {
        unsafe (start + headerLength).storeWord(0, at: field)
        let sum = ~bodySum
        unsafe (start + headerLength).storeWord(sum, at: field)
    }

    // MARK: Checksums

    /// Whether the IPv4 header is as its checksum says; IPv6 has none.
    @inline(__always)
    var isHeaderRight: Bool {
        unsafe family == .v6 || Checksum.fold(Checksum.add(bytes, count: headerLength)) == 0xffff
    }

    /// The same for a header without options, whose length the compiler then knows.
    @inline(__always)
    var isPlainHeaderRight: Bool {
        unsafe family == .v6 || Checksum.fold(Checksum.add(bytes, count: IPv4Field.headerLength)) == 0xffff
    }

    /// Whether the body is as its checksum says; the whole packet must be there.
    @inline(__always)
    var isBodyRight: Bool { bodySum == 0xffff }

    /// Sum of the body, and of the pseudo header where the transport counts one.
    @inline(__always)
    private var bodySum: UInt16 {
        let pseudo = transport == IPProtocol.icmp4 ? 0 : pseudoHeader(transport, length: bodyLength)
        return unsafe Checksum.fold(Checksum.add(body, count: bodyLength, to: pseudo))
    }

    /// Sum of the addresses, `transport` and `length` (RFC 9293, section 3.1; RFC 8200, section 8.1).
    @inline(__always)
    func pseudoHeader(_ transport: UInt8, length: Int) -> UInt64 {
        unsafe Checksum.pseudoHeader(bytes, family: family, transport: transport, length: length)
    }

    // MARK: Addresses

    /// Where the address of that side is.
    @inline(__always)
    func offset(of side: Side) -> Int {
        switch (family, side) {
        case (.v4, .source): IPv4Field.source
        case (.v4, .destination): IPv4Field.destination
        case (.v6, .source): IPv6Field.source
        case (.v6, .destination): IPv6Field.destination
        }
    }

    func address(_ side: Side) -> IPAddress {
        family == .v4
            ? IPAddress(v4: unsafe bytes.bigEndian32(at: offset(of: side)))
            : IPAddress(v6: unsafe bytes.bigEndian128(at: offset(of: side)))
    }

    /// Where `table` sends the packet, by its destination, or would send a reply, by its source; negative is nowhere.
    @inline(__always)
    func route(by side: Side, in table: borrowing ForwardingTable) -> Int32 {
        switch family {
        case .v4:
            table.destination(
                v4: unsafe bytes.bigEndian32(at: side == .source ? IPv4Field.source : IPv4Field.destination))
        case .v6:
            table.destination(
                v6: unsafe bytes.bigEndian128(at: side == .source ? IPv6Field.source : IPv6Field.destination))
        }
    }

    /// Whether it is for the neighbours on the link alone, which routers do not pass on: 224.0.0.0/24 and ff02::/16.
    var staysOnLink: Bool {
        family == .v4
            ? unsafe bytes.bigEndian32(at: IPv4Field.destination) >> 8 == 0xe00000
            : unsafe bytes.bigEndian16(at: IPv6Field.destination) & 0xff0f == 0xff02
    }

    /// No checksum changes by it.
    func swapAddresses() {
        switch family {
        case .v4: swap(IPv4Field.source, IPv4Field.destination, as: UInt32.self)
        case .v6: swap(IPv6Field.source, IPv6Field.destination, as: UInt128.self)
        }
    }

    private func swap<Bits: BitwiseCopyable>(_ a: Int, _ b: Int, as type: Bits.Type) {
        let first = unsafe start.loadUnaligned(fromByteOffset: a, as: type)
        unsafe start.storeBytes(
            of: start.loadUnaligned(fromByteOffset: b, as: type), toByteOffset: a, as: type)
        unsafe start.storeBytes(of: first, toByteOffset: b, as: type)
    }

    // MARK: Fields

    /// TOS of IPv4, traffic class of IPv6.
    @inline(__always)
    var tos: UInt8 {
        family == .v4
            ? unsafe bytes.byte(at: IPv4Field.tos)
            : UInt8(truncatingIfNeeded: (unsafe bytes.bigEndian16(at: IPv6Field.versionAndClass)) &>> 4)
    }

    /// Replaces the ECN bits, and keeps the IPv4 header's checksum right.
    @inline(never)
    func setECN(_ ecn: UInt8) {
        switch family {
        case .v4:
            // The checksum is of words: this one holds the version and the header's length too.
            let old = unsafe bytes.bigEndian16(at: IPv4Field.versionAndLength)
            let new = old & ~Int(ECN.Codepoint.mask) | Int(ecn)
            unsafe start.storeBigEndian16(new, at: IPv4Field.versionAndLength)
            unsafe Checksum.update(
                start, at: IPv4Field.checksum, from: Checksum.word(old), to: Checksum.word(new))
        case .v6:
            let offset = IPv6Field.versionAndClass &+ 1
            unsafe start.storeByte(bytes.byte(at: offset) & 0xcf | ecn << 4, at: offset)
        }
    }

    /// ``FragmentBits`` of an IPv4 packet.
    var fragmentField: Int { unsafe bytes.bigEndian16(at: IPv4Field.fragment) }

    // MARK: TCP

    /// Whether a TCP header without options is there.
    @inline(__always)
    var hasTCPHeader: Bool {
        transport == IPProtocol.tcp && !isFragment && bodyLength >= TCPField.headerLength
    }

    /// Call where `hasTCPHeader`.
    @inline(__always)
    var tcpFlags: UInt8 { unsafe body.byte(at: TCPField.flags) }

    /// What the header says of its length; call where `hasTCPHeader`.
    @inline(__always)
    var tcpHeaderLength: Int { Int(unsafe body.byte(at: TCPField.dataOffset) >> 4) &* 4 }
}
