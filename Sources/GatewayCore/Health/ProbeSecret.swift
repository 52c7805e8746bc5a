package import WireGuard

/// What shows that a reply answers a probe of this gateway: a token for each probe, which nobody can make who has not
/// seen that very probe. Whoever answers one tunnel's probes learns nothing of another's.
package struct ProbeSecret: Sendable {
    private let key: SecretBytes

    package init(using entropy: inout some Entropy) {
        key = unsafe SecretBytes(count: Blake2s.digestSize) { storage in
            unsafe entropy.fill(UnsafeMutableRawBufferPointer(start: storage, count: Blake2s.digestSize))
        }
    }

    /// First 8 bytes of the keyed BLAKE2s (RFC 7693) of what the probe says of itself.
    func token(_ peer: PeerID, _ purpose: ProbePurpose, _ sequence: UInt32) -> UInt64 {
        var message: [UInt8] = [0]
        message.appendBigEndian(UInt32(truncatingIfNeeded: peer.rawValue))
        message.appendBigEndian(sequence)
        message.appendBigEndian(purpose.code)
        return mac(message)
    }

    /// Upper half of a SYN's initial sequence number: 16 bits of the keyed BLAKE2s of where it goes, and of its lower
    /// half. `source` is a tunnel's own inside address.
    func mark(
        from source: IPAddress, to destination: IPAddress, port: UInt16, sequence: UInt16
    ) -> UInt16 {
        var message: [UInt8] = [1] + source.bytes + destination.bytes
        message.appendBigEndian(port)
        message.appendBigEndian(sequence)
        return UInt16(truncatingIfNeeded: mac(message) >> 48)
    }

    private func mac(_ message: [UInt8]) -> UInt64 {
        let bytes = Blake2s.mac(key: key, message)
        return UInt64(bytes.bigEndian32(at: 0)) << 32 | UInt64(bytes.bigEndian32(at: 4))
    }
}
