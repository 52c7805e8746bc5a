/// The first word of every datagram: the type in its lowest byte, the other three zero (section 5.4).
package enum MessageType: UInt32, Sendable, CaseIterable {
    case initiation = 1
    case response
    case cookieReply
    case transport

    /// Nil for too few bytes, an unknown type, or an upper byte that is not zero.
    package init?(of datagram: [UInt8]) {
        guard datagram.count >= 4 else { return nil }
        self.init(rawValue: datagram.littleEndianWord(at: 0))
    }

    /// The one size a handshake message may have; nil for transport, which has a least size only.
    package var exactSize: Int? {
        switch self {
        case .initiation: Protocol.initiationSize
        case .response: Protocol.responseSize
        case .cookieReply: Protocol.cookieReplySize
        case .transport: nil
        }
    }
}

extension [UInt8] {
    /// The caller has checked that four bytes are there.
    func littleEndianWord(at offset: Int) -> UInt32 {
        UInt32(self[offset]) | UInt32(self[offset + 1]) << 8
            | UInt32(self[offset + 2]) << 16 | UInt32(self[offset + 3]) << 24
    }

    mutating func append(littleEndian word: UInt32) {
        append(UInt8(truncatingIfNeeded: word))
        append(UInt8(truncatingIfNeeded: word >> 8))
        append(UInt8(truncatingIfNeeded: word >> 16))
        append(UInt8(truncatingIfNeeded: word >> 24))
    }
}
