extension Keypair {
    /// A whole transport message around an inner packet; an empty one is a keepalive. For what control itself
    /// sends: one packet now and then, so it may allocate. Nil at the end of the counter.
    package func seal(_ plaintext: [UInt8], mtu: Int, by chacha: inout ChaCha20Poly1305) -> [UInt8]? {
        guard let counter = takeCounters(1) else { return nil }
        let padded = paddedLength(plaintext.count, mtu: mtu)
        var message = [UInt8](repeating: 0, count: padded + Protocol.transportOverhead)
        message.replaceSubrange(
            Protocol.transportHeaderSize..<Protocol.transportHeaderSize + plaintext.count, with: plaintext)
        let header = TransportHeader(receiverIndex: remoteIndex, counter: counter)
        unsafe message.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            let body = unsafe base + Protocol.transportHeaderSize
            unsafe header.write(to: base)
            unsafe sendKey.seal(counter: counter, plaintext: body, count: padded, into: body, by: &chacha)
        }
        return message
    }
}
