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
