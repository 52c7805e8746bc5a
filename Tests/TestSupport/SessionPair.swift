package import WireGuard

/// Two ends with a session between them, under keys that are the same in each run. Whoever makes it has libsodium ready.
package struct SessionPair: Sendable {
    /// What one end has.
    package struct End: Sendable {
        package let path: TunnelPath
        /// Nil: the end only seals and opens by hand.
        package let keypairs: KeypairTable?

        package init(_ path: TunnelPath, _ keypairs: KeypairTable? = nil) {
            self.path = path
            self.keypairs = keypairs
        }
    }

    package let near: Keypair
    package let far: Keypair

    /// - Parameter seed: another one for each session between the same ends.
    package init(
        _ nearEnd: End, _ farEnd: End = End(TunnelPath(peer: PeerID(0))), seed: UInt64 = 1,
        role: Role = .initiator,
        cipher: Cipher = .chacha20Poly1305, firstCounter: UInt64 = 0, createdAt: Instant
    ) {
        var random = SplitMix(seed: seed)
        let there = TransportKey(SecretBytes.random(32, from: &random), cipher: cipher)
        let back = TransportKey(SecretBytes.random(32, from: &random), cipher: cipher)
        func index(_ end: End) -> UInt32 {
            end.keypairs?.reserveIndex(entropy: &random) ?? UInt32(truncatingIfNeeded: random.next())
        }
        let (nearIndex, farIndex) = (index(nearEnd), index(farEnd))
        near = Keypair(
            role: role, localIndex: nearIndex, remoteIndex: farIndex, send: there, receive: back,
            path: nearEnd.path, createdAt: createdAt, firstCounter: firstCounter)
        far = Keypair(
            role: role == .initiator ? .responder : .initiator, localIndex: farIndex, remoteIndex: nearIndex,
            send: back, receive: there, path: farEnd.path, createdAt: createdAt)
        for (end, keypair) in [(nearEnd, near), (farEnd, far)] {
            end.keypairs?.install(keypair)
            end.path.publish(sending: keypair)
        }
    }
}
