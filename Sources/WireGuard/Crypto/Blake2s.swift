internal import CBlake2
internal import CSodium

/// BLAKE2s (RFC 7693) as WireGuard uses it: plain, keyed, in HMAC, and in the key derivation of section 5.4.
///
/// Whatever on the stack has touched a secret is wiped before a function returns.
package enum Blake2s {
    package static let digestSize = 32
    private static let blockSize = 64

    /// BLAKE2s of `message` with all its parameters (RFC 7693, section 2): `size` is 1 to 32, a key has up to
    /// 32 bytes.
    package static func digest(_ message: [UInt8], size: Int, key: [UInt8] = []) -> [UInt8] {
        unsafe key.withUnsafeBytes { key in unsafe digest(message, size: size, key: key) }
    }

    /// BLAKE2s-256 of `parts`, one after the other.
    package static func hash(_ parts: [UInt8]...) -> [UInt8] {
        digest(Array(parts.joined()), size: digestSize)
    }

    /// BLAKE2s-256 of something public and then a secret.
    static func hash(_ start: [UInt8], _ secret: SecretBytes) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: digestSize)
        unsafe start.withUnsafeBytes { start in
            unsafe output.withUnsafeMutableBytes { output in unsafe digest(start, secret.buffer, into: output)
            }
        }
        return output
    }

    /// Keyed BLAKE2s-128 under what is no secret: mac1, and mac2 at the sender.
    package static func mac(key: [UInt8], _ message: some Collection<UInt8>) -> [UInt8] {
        digest(Array(message), size: Protocol.macSize, key: key)
    }

    /// Keyed BLAKE2s-128 under a secret: the cookie.
    package static func mac(key: SecretBytes, _ message: some Collection<UInt8>) -> [UInt8] {
        unsafe digest(Array(message), size: Protocol.macSize, key: key.buffer)
    }

    /// Keyed BLAKE2s-128 of one secret under another.
    static func fingerprint(of secret: SecretBytes, salt: SecretBytes) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: Protocol.macSize)
        unsafe output.withUnsafeMutableBytes { unsafe digest(key: salt.buffer, secret.buffer, into: $0) }
        return output
    }

    /// HMAC-BLAKE2s (RFC 2104) under a key of at most 64 bytes.
    package static func hmac(key: SecretBytes, _ message: SecretBytes) -> SecretBytes {
        unsafe SecretBytes(count: digestSize) { output in
            unsafe hmac(key: key.buffer, message.buffer, into: output)
        }
    }

    /// KDF1: the next chaining key.
    package static func kdf1(chainingKey: SecretBytes, input: SecretBytes) -> SecretBytes {
        unsafe derive(1, chainingKey, input.buffer)
    }

    /// KDF1 of something public: an ephemeral key on the wire.
    package static func kdf1(chainingKey: SecretBytes, publicInput: [UInt8]) -> SecretBytes {
        unsafe publicInput.withUnsafeBytes { input in unsafe derive(1, chainingKey, input) }
    }

    /// KDF2: two independent keys. No input is the end of a handshake.
    package static func kdf2(chainingKey: SecretBytes, input: SecretBytes?) -> (SecretBytes, SecretBytes) {
        let keys = unsafe derive(2, chainingKey, input?.buffer ?? .init(start: nil, count: 0))
        return (keys.digest(0), keys.digest(1))
    }

    /// KDF3: three independent keys.
    package static func kdf3(
        chainingKey: SecretBytes, input: SecretBytes
    ) -> (SecretBytes, SecretBytes, SecretBytes) {
        let keys = unsafe derive(3, chainingKey, input.buffer)
        return (keys.digest(0), keys.digest(1), keys.digest(2))
    }

    /// HKDF (RFC 5869) with the chaining key as salt: `count` digests, one after the other.
    private static func derive(
        _ count: Int, _ chainingKey: SecretBytes, _ input: UnsafeRawBufferPointer
    ) -> SecretBytes {
        unsafe SecretBytes(count: count * digestSize) { output in
            unsafe withUnsafeTemporaryAllocation(byteCount: digestSize, alignment: 16) { temporary in
                guard let secret = temporary.baseAddress else { return }
                unsafe hmac(key: chainingKey.buffer, input, into: secret)
                for index in 0..<count {
                    let previous = unsafe UnsafeRawBufferPointer(
                        start: output + max(index - 1, 0) * digestSize, count: index == 0 ? 0 : digestSize)
                    let number = UInt8(index + 1)
                    unsafe withUnsafeBytes(of: number) { number in
                        unsafe hmac(
                            key: UnsafeRawBufferPointer(temporary), previous, number,
                            into: output + index * digestSize)
                    }
                }
                unsafe sodium_memzero(secret, digestSize)
            }
        }
    }

    private static func hmac(
        key: UnsafeRawBufferPointer, _ a: UnsafeRawBufferPointer,
        _ b: UnsafeRawBufferPointer = unsafe .init(start: nil, count: 0), into output: UnsafeMutableRawPointer
    ) {
        unsafe withUnsafeTemporaryAllocation(byteCount: blockSize + digestSize, alignment: 16) { temporary in
            guard let block = temporary.baseAddress else { return }
            let padded = unsafe UnsafeRawBufferPointer(start: block, count: blockSize)
            let inner = unsafe UnsafeMutableRawBufferPointer(start: block + blockSize, count: digestSize)
            func fill(_ pad: UInt8) {
                for index in 0..<blockSize {
                    unsafe temporary[index] = pad ^ (index < key.count ? key[index] : 0)
                }
            }
            fill(0x36)
            unsafe digest(padded, a, b, into: inner)
            fill(0x5c)
            unsafe digest(
                padded, UnsafeRawBufferPointer(inner),
                into: UnsafeMutableRawBufferPointer(start: output, count: digestSize))
            unsafe sodium_memzero(block, temporary.count)
        }
    }

    private static func digest(_ message: [UInt8], size: Int, key: UnsafeRawBufferPointer) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: size)
        unsafe message.withUnsafeBytes { message in
            unsafe output.withUnsafeMutableBytes { output in unsafe digest(key: key, message, into: output) }
        }
        return output
    }

    /// The size of `output` is a parameter of the hash: 32 for a digest, 16 for a MAC.
    private static func digest(
        key: UnsafeRawBufferPointer = unsafe .init(start: nil, count: 0), _ a: UnsafeRawBufferPointer,
        _ b: UnsafeRawBufferPointer = unsafe .init(start: nil, count: 0),
        _ c: UnsafeRawBufferPointer = unsafe .init(start: nil, count: 0),
        into output: UnsafeMutableRawBufferPointer
    ) {
        var state = blake2s_state()
        unsafe withUnsafeMutablePointer(to: &state) { state in
            let started =
                unsafe key.isEmpty
                ? blake2s_init(state, output.count)
                : blake2s_init_key(state, output.count, key.baseAddress, key.count)
            precondition(started == 0, "BLAKE2s gives and takes a key of at most 32 bytes")
            unsafe update(state, a)
            unsafe update(state, b)
            unsafe update(state, c)
            _ = unsafe blake2s_final(
                state, output.baseAddress?.assumingMemoryBound(to: UInt8.self), output.count)
            unsafe sodium_memzero(state, MemoryLayout<blake2s_state>.size)
        }
    }

    private static func update(_ state: UnsafeMutablePointer<blake2s_state>, _ part: UnsafeRawBufferPointer) {
        guard unsafe !part.isEmpty else { return }
        _ = unsafe blake2s_update(state, part.baseAddress?.assumingMemoryBound(to: UInt8.self), part.count)
    }
}

extension SecretBytes {
    /// Valid while `self` lives.
    var buffer: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: pointer, count: count) }

    /// The 32 bytes at `index * 32`, in memory of their own.
    fileprivate func digest(_ index: Int) -> SecretBytes {
        unsafe SecretBytes(count: Blake2s.digestSize) { output in
            unsafe output.copyMemory(
                from: pointer + index * Blake2s.digestSize, byteCount: Blake2s.digestSize)
        }
    }
}
