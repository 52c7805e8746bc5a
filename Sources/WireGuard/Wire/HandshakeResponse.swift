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
