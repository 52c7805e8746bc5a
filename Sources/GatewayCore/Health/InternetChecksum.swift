/// RFC 1071, over arrays: for the packets that control builds and reads itself. The data path has its own.
struct InternetChecksum {
    private var sum: UInt64 = 0

    /// Adds bytes of the range, which must lie in the array and, but for the last one added, be of even
    /// length.
    mutating func add(_ bytes: [UInt8], _ range: Range<Int>) {
        var index = range.lowerBound
        while index + 1 < range.upperBound {
            sum &+= UInt64(bytes[index]) << 8 | UInt64(bytes[index + 1])
            index += 2
        }
        if index < range.upperBound { sum &+= UInt64(bytes[index]) << 8 }
    }

    /// The addresses of `packet`, protocol and length (RFC 9293, section 3.1; RFC 8200, section 8.1).
    mutating func addPseudoHeader(of packet: [UInt8], _ header: ProbeHeader) {
        add(packet, header.addresses)
        sum &+= UInt64(header.transport) &+ UInt64(header.bodyLength)
    }

    /// What belongs into the field. Over bytes that hold their checksum it is 0.
    var value: UInt16 {
        var folded = sum
        while folded > 0xffff { folded = (folded & 0xffff) &+ folded >> 16 }
        return ~UInt16(folded)
    }
}
