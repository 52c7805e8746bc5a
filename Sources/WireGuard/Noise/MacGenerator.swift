/// The sender's side of the two MACs, one a peer (sections 5.4.4 and 5.4.7).
///
///     1. stamp     mac1 under the peer's public key; mac2 under its cookie, while there is a fresh one
///     2. receive   a cookie reply to the last message stamped; the cookie serves the next one
///
/// The keys are hashes of a public key, and a cookie is no better kept on its way here: neither is secret.
package struct MacGenerator: Sendable {
    /// Some seconds less than the peer keeps its secret, for the way there and back.
    private static let cookieLifetime = Protocol.cookieSecretLifetime - Protocol.cookieLatency

    private let mac1Key: [UInt8]
    private let cookieKey: [UInt8]
    /// mac1 of the last message, until a cookie reply has answered it.
    private var awaitedMac1: [UInt8]?
    private var cookie: (bytes: [UInt8], receivedAt: Instant)?

    package init(peer: PublicKey) {
        mac1Key = Blake2s.hash(Array(Protocol.mac1Label.utf8), peer.bytes)
        cookieKey = Blake2s.hash(Array(Protocol.cookieLabel.utf8), peer.bytes)
    }

    /// Sets both MACs. Each message is stamped right before it is sent.
    package mutating func stamp(_ message: inout some MacedMessage, now: Instant) {
        message.mac1 = Blake2s.mac(key: mac1Key, message.bytes.dropLast(2 * Protocol.macSize))
        awaitedMac1 = message.mac1
        if let cookie, now - cookie.receivedAt < Self.cookieLifetime {
            message.mac2 = Blake2s.mac(key: cookie.bytes, message.bytes.dropLast(Protocol.macSize))
        } else {
            cookie = nil
            message.mac2 = Array(repeating: 0, count: Protocol.macSize)
        }
    }

    /// Throws `.cookieReplyUnexpected` when no message awaits one, `.cookieReplyInvalid` when it does not
    /// answer the last one. The caller has found this peer by the receiver index.
    package mutating func receive(_ reply: CookieReply, now: Instant) throws(DropReason) {
        guard let awaitedMac1 else { throw .cookieReplyUnexpected }
        guard
            let bytes = XChaCha20Poly1305.open(
                reply.encryptedCookie, key: cookieKey, nonce: reply.nonce, associatedData: awaitedMac1)
        else { throw .cookieReplyInvalid }
        cookie = (bytes, now)
        self.awaitedMac1 = nil
    }
}
