extension Keypair {
    /// Seals `count` bytes of `packet`, and zeros up to `padded`, as a whole transport message into `output`, which has room
    /// for `padded + Protocol.transportOverhead`. The 16 bytes behind the packet are written to, and put back. False at the
    /// end of the counter.
    @inline(__always)
    func seal(
        _ packet: UnsafeMutableRawPointer, count: Int, padded: Int, into output: UnsafeMutableRawPointer,
        by chacha: inout ChaCha20Poly1305
    ) -> Bool {
        guard let counter = takeCounters(1) else { return false }
        unsafe TransportHeader(receiverIndex: remoteIndex, counter: counter).write(to: output)
        let tail = unsafe packet + count
        // Behind a segment of a superpacket is the payload of the next one, still to be sent.
        let saved = unsafe tail.loadUnaligned(as: UInt128.self)
        unsafe tail.storeBytes(of: 0, as: UInt128.self)
        unsafe sendKey.seal(
            counter: counter, plaintext: packet, count: padded, into: output + Protocol.transportHeaderSize,
            by: &chacha)
        unsafe tail.storeBytes(of: saved, as: UInt128.self)
        return true
    }

    /// A whole transport message around an inner packet; an empty one is a keepalive. For what control itself
    /// sends: one packet now and then, so it may allocate. Nil at the end of the counter.
    package func seal(_ plaintext: [UInt8], mtu: Int, by chacha: inout ChaCha20Poly1305) -> [UInt8]? {
        let padded = paddedLength(plaintext.count, mtu: mtu)
        var packet = plaintext + [UInt8](repeating: 0, count: 16)
        var message = [UInt8](repeating: 0, count: padded + Protocol.transportOverhead)
        let isSealed = unsafe packet.withUnsafeMutableBytes { packet in
            unsafe message.withUnsafeMutableBytes { message in
                guard let base = packet.baseAddress, let output = message.baseAddress else { return false }
                return unsafe seal(base, count: plaintext.count, padded: padded, into: output, by: &chacha)
            }
        }
        return isSealed ? message : nil
    }
}
