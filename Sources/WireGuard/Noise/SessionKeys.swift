/// Which side of a handshake we were: the initiator alone rekeys by time, and the responder waits for the
/// first packet.
package enum Role: Sendable, Hashable {
    case initiator
    case responder
}

/// What a finished handshake leaves: two keys and the indices to find them by. The rest of it is wiped.
package struct SessionKeys: Sendable {
    package let role: Role
    /// Ours: what the peer writes into the messages it sends.
    package let localIndex: UInt32
    /// The peer's: what we write.
    package let remoteIndex: UInt32
    package let send: TransportKey
    package let receive: TransportKey

    init(_ handshake: HandshakeState, role: Role, localIndex: UInt32, remoteIndex: UInt32) {
        let (fromInitiator, fromResponder) = handshake.split()
        self.role = role
        self.localIndex = localIndex
        self.remoteIndex = remoteIndex
        send = role == .initiator ? fromInitiator : fromResponder
        receive = role == .initiator ? fromResponder : fromInitiator
    }
}
