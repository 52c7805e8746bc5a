/// The constants of WireGuard protocol version 1 (whitepaper, sections 5 and 6); sizes are with the messages.
package enum Protocol {
    package static let construction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
    /// Between two vgwd that are both told to use AES-256-GCM; otherwise the protocol is the same.
    package static let aesConstruction = "Noise_IKpsk2_25519_AESGCM_BLAKE2s"
    package static let identifier = "WireGuard v1 zx2c4 Jason@zx2c4.com"
    package static let mac1Label = "mac1----"
    package static let cookieLabel = "cookie--"

    /// Messages under one key before a rekey is asked for, and before the key is refused.
    package static let rekeyAfterMessages: UInt64 = 1 << 60
    package static let rejectAfterMessages: UInt64 = .max - (1 << 13)

    package static let rekeyAfterTime: Duration = .seconds(120)
    package static let rejectAfterTime: Duration = .seconds(180)
    package static let rekeyTimeout: Duration = .seconds(5)
    package static let rekeyTimeoutJitter: Duration = .milliseconds(333)
    package static let rekeyAttemptTime: Duration = .seconds(90)
    package static let keepaliveTimeout: Duration = .seconds(10)
    /// Past this age a receiving initiator asks for new keys: REJECT - KEEPALIVE - REKEY_TIMEOUT.
    package static let rekeyAfterTimeReceiving: Duration = .seconds(165)
    /// Data sent and nothing heard for KEEPALIVE + REKEY_TIMEOUT: a new handshake.
    package static let deadPeerTimeout: Duration = .seconds(15)
    /// Three times REJECT_AFTER_TIME without new keys: wipe everything.
    package static let wipeAfterTime: Duration = .seconds(540)

    package static let cookieSecretLifetime: Duration = .seconds(120)
    package static let cookieLatency: Duration = .seconds(5)
    package static let initiationInterval: Duration = .milliseconds(20)
    /// Handshakes a second, and at once, from one address that has shown a cookie.
    package static let handshakesPerSecond = 20
    package static let handshakeBurst = 5
    package static let stagedPacketLimit = 128
}
