internal import CSodium

/// What seals the fields of a handshake and the packets of a session. Both ends of a tunnel are told; nothing
/// is negotiated, so nothing can be downgraded.
package enum Cipher: String, Hashable, Sendable, CaseIterable {
    /// WireGuard's own (RFC 8439): every far end speaks it.
    case chacha20Poly1305 = "chacha20-poly1305"
    /// Between two vgwd (NIST SP 800-38D), where the processor has the instructions for it.
    case aes256GCM = "aes-256-gcm"

    /// False without hardware AES: libsodium has no other, since in software it would leak its key by timing.
    package var isAvailable: Bool {
        switch self {
        case .chacha20Poly1305: true
        case .aes256GCM: sodiumIsReady && crypto_aead_aes256gcm_is_available() == 1
        }
    }

    /// Those that this machine can compute.
    package static let available = allCases.filter(\.isAvailable)
}
