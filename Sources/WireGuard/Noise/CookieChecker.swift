/// The receiver's side of the two MACs, one a device (sections 5.4.4 and 5.4.7).
///
///     1. verifyMac1   always, before anything else is looked at
///     2. verifyMac2   under load: does the sender hear what is sent to its address?
///     3. makeReply    if not: a cookie, and no work
///
/// A cookie is a MAC of the sender's address and port under a secret that changes every two minutes, so
/// nothing is kept a sender.
package struct CookieChecker: Sendable {
    private let mac1Key: [UInt8]
    private let cookieKey: [UInt8]
    private var secret: (bytes: SecretBytes, madeAt: Instant)?

    package init(publicKey: PublicKey) {
        mac1Key = Blake2s.hash(Array(Protocol.mac1Label.utf8), publicKey.bytes)
        cookieKey = Blake2s.hash(Array(Protocol.cookieLabel.utf8), publicKey.bytes)
    }

    /// In constant time. `message` is a whole initiation or response.
    package func verifyMac1(_ message: [UInt8]) -> Bool {
        guard message.count >= 2 * Protocol.macSize else { return false }
        let body = message.dropLast(2 * Protocol.macSize)
        let mac1 = Array(message[body.endIndex...].prefix(Protocol.macSize))
        return isEqualInConstantTime(Blake2s.mac(key: mac1Key, body), mac1)
    }

    /// In constant time. False while no cookie that is still good has been given out.
    package func verifyMac2(_ message: [UInt8], from source: Endpoint, now: Instant) -> Bool {
        guard message.count >= 2 * Protocol.macSize, let secret, isFresh(secret.madeAt, now) else {
            return false
        }
        let body = message.dropLast(Protocol.macSize)
        let cookie = Self.cookie(for: source, under: secret.bytes)
        return isEqualInConstantTime(Blake2s.mac(key: cookie, body), Array(message[body.endIndex...]))
    }

    /// The answer to `message`, a whole initiation or response whose mac1 is good and whose sender index is
    /// `index`.
    package mutating func makeReply(
        for message: [UInt8], from source: Endpoint, index: UInt32, now: Instant, entropy: inout some Entropy
    ) -> CookieReply {
        let secret = currentSecret(now: now, entropy: &entropy)
        let nonce = entropy.bytes(XChaCha20Poly1305.nonceSize)
        let mac1 = Array(message.suffix(2 * Protocol.macSize).prefix(Protocol.macSize))
        let sealed = XChaCha20Poly1305.seal(
            Self.cookie(for: source, under: secret), key: cookieKey, nonce: nonce, associatedData: mac1)
        return CookieReply(receiverIndex: index, nonce: nonce, encryptedCookie: sealed)
    }

    private mutating func currentSecret(now: Instant, entropy: inout some Entropy) -> SecretBytes {
        if let secret, isFresh(secret.madeAt, now) { return secret.bytes }
        let bytes = SecretBytes.random(Blake2s.digestSize, from: &entropy)
        secret = (bytes, now)
        return bytes
    }

    private func isFresh(_ madeAt: Instant, _ now: Instant) -> Bool {
        now - madeAt < Protocol.cookieSecretLifetime
    }

    private static func cookie(for source: Endpoint, under secret: SecretBytes) -> [UInt8] {
        let port = [UInt8(truncatingIfNeeded: source.port >> 8), UInt8(truncatingIfNeeded: source.port)]
        return Blake2s.mac(key: secret, source.address.bytes + port)
    }
}
