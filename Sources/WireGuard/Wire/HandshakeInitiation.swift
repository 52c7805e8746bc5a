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
