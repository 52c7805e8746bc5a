// The four messages of WireGuard (whitepaper, section 5.4). All numbers are little endian; each offset below is in bytes.

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

extension Protocol {
    package static let macSize = 16
    package static let initiationSize = 148
    package static let responseSize = 92
    package static let cookieReplySize = 64
    package static let transportHeaderSize = 16
    /// Header and tag: an empty keepalive.
    package static let transportOverhead = 32
}

/// A message that ends in two MACs: the first proves that its sender knows whom it talks to, the second that
/// it hears what is sent to its address (section 5.4.4).
package protocol MacedMessage: Sendable {
    /// 16 bytes over everything before it.
    var mac1: [UInt8] { get set }
    /// 16 bytes over everything before it, mac1 included; zero while the sender has no cookie.
    var mac2: [UInt8] { get set }
    var bytes: [UInt8] { get }
}

/// The first message of a handshake (section 5.4.2), 148 bytes:
///
///     0 type  4 sender  8 ephemeral  40 static + tag  88 timestamp + tag  116 mac1  132 mac2
package struct HandshakeInitiation: MacedMessage, Hashable {
    package var senderIndex: UInt32
    /// 32 bytes.
    package var ephemeral: [UInt8]
    /// 48 bytes.
    package var encryptedStatic: [UInt8]
    /// 28 bytes.
    package var encryptedTimestamp: [UInt8]
    package var mac1: [UInt8]
    package var mac2: [UInt8]

    /// Nil unless type and length are those of an initiation.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count == Protocol.initiationSize, MessageType(of: bytes) == .initiation else {
            return nil
        }
        senderIndex = bytes.littleEndianWord(at: 4)
        ephemeral = Array(bytes[8..<40])
        encryptedStatic = Array(bytes[40..<88])
        encryptedTimestamp = Array(bytes[88..<116])
        mac1 = Array(bytes[116..<132])
        mac2 = Array(bytes[132..<148])
    }

    /// With both MACs zero: `MacGenerator` sets them.
    init(senderIndex: UInt32, ephemeral: [UInt8], encryptedStatic: [UInt8], encryptedTimestamp: [UInt8]) {
        self.senderIndex = senderIndex
        self.ephemeral = ephemeral
        self.encryptedStatic = encryptedStatic
        self.encryptedTimestamp = encryptedTimestamp
        mac1 = Array(repeating: 0, count: Protocol.macSize)
        mac2 = mac1
    }

    package var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Protocol.initiationSize)
        bytes.append(littleEndian: MessageType.initiation.rawValue)
        bytes.append(littleEndian: senderIndex)
        bytes += ephemeral
        bytes += encryptedStatic
        bytes += encryptedTimestamp
        bytes += mac1
        bytes += mac2
        return bytes
    }
}

/// The second and last message of a handshake (section 5.4.3), 92 bytes:
///
///     0 type  4 sender  8 receiver  12 ephemeral  44 tag of nothing  60 mac1  76 mac2
package struct HandshakeResponse: MacedMessage, Hashable {
    package var senderIndex: UInt32
    package var receiverIndex: UInt32
    /// 32 bytes.
    package var ephemeral: [UInt8]
    /// 16 bytes: a tag alone.
    package var encryptedNothing: [UInt8]
    package var mac1: [UInt8]
    package var mac2: [UInt8]

    /// Nil unless type and length are those of a response.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count == Protocol.responseSize, MessageType(of: bytes) == .response else { return nil }
        senderIndex = bytes.littleEndianWord(at: 4)
        receiverIndex = bytes.littleEndianWord(at: 8)
        ephemeral = Array(bytes[12..<44])
        encryptedNothing = Array(bytes[44..<60])
        mac1 = Array(bytes[60..<76])
        mac2 = Array(bytes[76..<92])
    }

    /// With both MACs zero: `MacGenerator` sets them.
    init(senderIndex: UInt32, receiverIndex: UInt32, ephemeral: [UInt8], encryptedNothing: [UInt8]) {
        self.senderIndex = senderIndex
        self.receiverIndex = receiverIndex
        self.ephemeral = ephemeral
        self.encryptedNothing = encryptedNothing
        mac1 = Array(repeating: 0, count: Protocol.macSize)
        mac2 = mac1
    }

    package var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Protocol.responseSize)
        bytes.append(littleEndian: MessageType.response.rawValue)
        bytes.append(littleEndian: senderIndex)
        bytes.append(littleEndian: receiverIndex)
        bytes += ephemeral
        bytes += encryptedNothing
        bytes += mac1
        bytes += mac2
        return bytes
    }
}

/// What a device under load answers in place of working (section 5.4.7), 64 bytes:
///
///     0 type  4 receiver  8 nonce  32 cookie + tag
package struct CookieReply: Hashable, Sendable {
    /// The sender index of the message that is answered.
    package var receiverIndex: UInt32
    /// 24 bytes.
    package var nonce: [UInt8]
    /// 32 bytes.
    package var encryptedCookie: [UInt8]

    /// Nil unless type and length are those of a cookie reply.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count == Protocol.cookieReplySize, MessageType(of: bytes) == .cookieReply else {
            return nil
        }
        receiverIndex = bytes.littleEndianWord(at: 4)
        nonce = Array(bytes[8..<32])
        encryptedCookie = Array(bytes[32..<64])
    }

    init(receiverIndex: UInt32, nonce: [UInt8], encryptedCookie: [UInt8]) {
        self.receiverIndex = receiverIndex
        self.nonce = nonce
        self.encryptedCookie = encryptedCookie
    }

    package var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Protocol.cookieReplySize)
        bytes.append(littleEndian: MessageType.cookieReply.rawValue)
        bytes.append(littleEndian: receiverIndex)
        bytes += nonce
        bytes += encryptedCookie
        return bytes
    }
}

/// The clear start of a transport message (section 5.4.6), 16 bytes; the sealed inner packet follows, and its tag of 16:
///
///     0 type  4 receiver  8 counter  16 packet + tag
struct TransportHeader {
    let receiverIndex: UInt32
    let counter: UInt64

    @inline(__always)
    init(receiverIndex: UInt32, counter: UInt64) {
        self.receiverIndex = receiverIndex
        self.counter = counter
    }

    /// Reads 16 bytes; the caller has looked at the type.
    @inline(__always)
    init(_ message: UnsafeRawPointer) {
        receiverIndex = UInt32(littleEndian: unsafe message.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        counter = UInt64(littleEndian: unsafe message.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    }

    @inline(__always)
    func write(to output: UnsafeMutableRawPointer) {
        unsafe output.storeBytes(of: MessageType.transport.rawValue.littleEndian, as: UInt32.self)
        unsafe output.storeBytes(of: receiverIndex.littleEndian, toByteOffset: 4, as: UInt32.self)
        unsafe output.storeBytes(of: counter.littleEndian, toByteOffset: 8, as: UInt64.self)
    }
}
