/// A private key of ours, and what a message to it must show before anything else of it is looked at.
///
/// A device has one for all its peers; a peer may have one of its own, so that two paths to one far gateway are
/// two sessions.
struct Identity: Sendable {
    let privateKey: PrivateKey
    let publicKey: PublicKey
    var cookies: CookieChecker
    /// Peers that have it for their own.
    var users = 0

    init(_ privateKey: PrivateKey) {
        self.privateKey = privateKey
        publicKey = privateKey.publicKey
        cookies = CookieChecker(publicKey: publicKey)
    }
}

/// Both ends of a session: the peer's key, and ours where it is not the device's.
struct PeerKey: Hashable, Sendable {
    let identity: PublicKey?
    let peer: PublicKey
}
