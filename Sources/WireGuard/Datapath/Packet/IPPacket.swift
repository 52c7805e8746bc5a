/// What the data path needs to know of an inner packet, read once. After `init` every offset lies inside the
/// packet.
struct InnerHeader {
    let family: IPAddress.Family
    /// Bytes before the transport header, as far as it is known: IPv6 extension headers are not walked.
    let ipLength: Int
    /// As the header says; not more than there is.
    let totalLength: Int
    /// IPv4 protocol, or IPv6 next header.
    let transport: UInt8
    /// Has an offset or more to come: its ports are not where they seem.
    let isFragment: Bool

    static let tcp: UInt8 = 6
    static let udp: UInt8 = 17
    /// Of IPv6 (RFC 8200, section 4.5).
    static let fragmentHeader: UInt8 = 44

    /// `.innerVersionUnknown`, or `.innerLengthWrong` when the header's lengths do not fit in `count` bytes.
    @inline(__always)
    init(_ packet: UnsafeRawPointer, count: Int) throws(DropReason) {
        guard count > 0 else { throw .innerLengthWrong }
        switch unsafe packet.load(as: UInt8.self) >> 4 {
        case 4:
            guard count >= 20 else { throw .innerLengthWrong }
            family = .v4
            ipLength = Int(unsafe packet.load(as: UInt8.self) & 15) * 4
            totalLength = unsafe packet.bigEndian16(at: 2)
            guard ipLength >= 20, totalLength >= ipLength, totalLength <= count else {
                throw .innerLengthWrong
            }
            transport = unsafe packet.load(fromByteOffset: 9, as: UInt8.self)
            isFragment = unsafe packet.bigEndian16(at: 6) & 0x3fff != 0
        case 6:
            guard count >= 40 else { throw .innerLengthWrong }
            family = .v6
            ipLength = 40
            totalLength = 40 &+ (unsafe packet.bigEndian16(at: 4))
            guard totalLength <= count else { throw .innerLengthWrong }
            transport = unsafe packet.load(fromByteOffset: 6, as: UInt8.self)
            isFragment = false
        default:
            throw .innerVersionUnknown
        }
    }

    /// Where `table` sends the packet; negative is nowhere.
    @inline(__always)
    func destination(of packet: UnsafeRawPointer, in table: borrowing ForwardingTable) -> Int32 {
        family == .v4
            ? table.destination(v4: unsafe packet.bigEndian32(at: 16))
            : table.destination(v6: unsafe packet.bigEndian128(at: 24))
    }

    /// Where `table` would send an answer to the packet.
    @inline(__always)
    func destinationOfAnswer(to packet: UnsafeRawPointer, in table: borrowing ForwardingTable) -> Int32 {
        family == .v4
            ? table.destination(v4: unsafe packet.bigEndian32(at: 12))
            : table.destination(v6: unsafe packet.bigEndian128(at: 8))
    }

    /// Whether it is for the neighbours on the link alone, which routers do not pass on: 224.0.0.0/24 and ff02::/16.
    func staysOnLink(_ packet: UnsafeRawPointer) -> Bool {
        family == .v4
            ? unsafe packet.bigEndian32(at: 16) >> 8 == 0xe00000
            : unsafe packet.bigEndian16(at: 24) & 0xff0f == 0xff02
    }

    func sourceAddress(of packet: UnsafeRawPointer) -> IPAddress {
        family == .v4
            ? IPAddress(v4: unsafe packet.bigEndian32(at: 12))
            : IPAddress(v6: unsafe packet.bigEndian128(at: 8))
    }

    func destinationAddress(of packet: UnsafeRawPointer) -> IPAddress {
        family == .v4
            ? IPAddress(v4: unsafe packet.bigEndian32(at: 16))
            : IPAddress(v6: unsafe packet.bigEndian128(at: 24))
    }
}

extension UnsafeRawPointer {
    @inline(__always)
    func bigEndian16(at offset: Int) -> Int {
        Int(UInt16(bigEndian: unsafe loadUnaligned(fromByteOffset: offset, as: UInt16.self)))
    }

    @inline(__always)
    func bigEndian32(at offset: Int) -> UInt32 {
        UInt32(bigEndian: unsafe loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    @inline(__always)
    func bigEndian128(at offset: Int) -> UInt128 {
        let high = UInt64(bigEndian: unsafe loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        let low = UInt64(bigEndian: unsafe loadUnaligned(fromByteOffset: offset &+ 8, as: UInt64.self))
        return UInt128(high) << 64 | UInt128(low)
    }
}

extension UnsafeMutableRawPointer {
    @inline(__always)
    func storeBigEndian16(_ value: Int, at offset: Int) {
        unsafe storeBytes(
            of: UInt16(truncatingIfNeeded: value).bigEndian, toByteOffset: offset, as: UInt16.self)
    }

    @inline(__always)
    func storeBigEndian32(_ value: UInt32, at offset: Int) {
        unsafe storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
    }
}
