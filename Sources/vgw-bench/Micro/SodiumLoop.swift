internal import CSodium
internal import WireGuard

/// libsodium called in a loop, with nothing around it: what sealing and opening cannot be faster than.
struct SodiumLoop: ~Copyable {
    private let cipher: Cipher
    private let size: Int
    private var plaintext: [UInt8]
    private var ciphertext: [UInt8]
    private let key = [UInt8](repeating: 9, count: 32)
    /// One, in an array as C takes its address.
    private var schedule = [crypto_aead_aes256gcm_state()]

    init(cipher: Cipher, size: Int) {
        self.cipher = cipher
        self.size = size
        plaintext = [UInt8](repeating: 7, count: size)
        ciphertext = [UInt8](repeating: 0, count: size + TransportKey.tagSize)
        if cipher == .aes256GCM { _ = unsafe crypto_aead_aes256gcm_beforenm(&schedule, key) }
    }

    /// Each packet is sealed and opened, under a nonce of its own, into the other's place.
    mutating func pass(_ count: Int) -> PacketLoop.Times {
        let clock = ContinuousClock()
        var times = PacketLoop.Times()
        let batch = 64
        var counter: UInt64 = 0
        for _ in 0..<(count / batch) {
            let start = clock.now
            for _ in 0..<batch {
                counter += 1
                seal(counter)
            }
            let middle = clock.now
            for _ in 0..<batch { open(counter) }
            times.sealing += middle - start
            times.opening += clock.now - middle
        }
        return times
    }

    @inline(__always)
    private mutating func seal(_ counter: UInt64) {
        let nonce = (UInt32(0), UInt32(truncatingIfNeeded: counter), UInt32(0))
        unsafe withUnsafePointer(to: nonce) { nonce in
            let nonce = unsafe UnsafeRawPointer(nonce).assumingMemoryBound(to: UInt8.self)
            switch cipher {
            case .chacha20Poly1305:
                _ = unsafe crypto_aead_chacha20poly1305_ietf_encrypt(
                    &ciphertext, nil, plaintext, UInt64(size), nil, 0, nil, nonce, key)
            case .aes256GCM:
                _ = unsafe crypto_aead_aes256gcm_encrypt_afternm(
                    &ciphertext, nil, plaintext, UInt64(size), nil, 0, nil, nonce, schedule)
            }
        }
    }

    @inline(__always)
    private mutating func open(_ counter: UInt64) {
        let nonce = (UInt32(0), UInt32(truncatingIfNeeded: counter), UInt32(0))
        unsafe withUnsafePointer(to: nonce) { nonce in
            let nonce = unsafe UnsafeRawPointer(nonce).assumingMemoryBound(to: UInt8.self)
            let sealed = UInt64(size + TransportKey.tagSize)
            switch cipher {
            case .chacha20Poly1305:
                _ = unsafe crypto_aead_chacha20poly1305_ietf_decrypt(
                    &plaintext, nil, nil, ciphertext, sealed, nil, 0, nonce, key)
            case .aes256GCM:
                _ = unsafe crypto_aead_aes256gcm_decrypt_afternm(
                    &plaintext, nil, nil, ciphertext, sealed, nil, 0, nonce, schedule)
            }
        }
    }
}
