/// What control must know now: everything else it reads from counters and stamps when a timer falls due.
package enum DatapathEvent: Sendable {
    /// A message of type 1, 2 or 3 of the right length; nothing in it has been verified.
    case handshakeMessage([UInt8], from: UnderlayPath)
    /// A transport message to a keypair of another worker's: the kernel joined it to one for this worker.
    case stray([UInt8], from: UnderlayPath, tos: UInt8)
    /// An inner packet for a peer that no usable keypair leads to.
    case stage(PeerID, packet: [UInt8])
    /// The first data packet sent since `TunnelPath.disarmDataSent`.
    case dataSent(PeerID, at: Instant)
    /// The first data packet received since `TunnelPath.disarmDataReceived`.
    case dataReceived(PeerID, at: Instant)
    /// The sending keypair is past its time or its count; repeated, at most twice a second.
    case rekeyDue(PeerID)
    /// The first authentic packet under a keypair that the responder holds as its next one. Packets from the TUN are
    /// sealed under it already if an older one was in use.
    case keyConfirmed(PeerID, localIndex: UInt32)
    /// An authentic packet came from elsewhere, and packets to the peer go there: at most ten times a second, the last change
    /// with a later packet at the latest.
    case roamed(PeerID)
    /// The socket refused a message as larger than the interface takes, and the tunnel's outer packets are not to be
    /// fragmented; repeated, at most twice a second.
    case sendTooBig(PeerID)
    /// An inner packet was dropped for its source: its first 96 bytes and the length of all of it; at most twice a second.
    case sourceRefused(PeerID, packet: [UInt8], length: Int)
    /// A reply to a probe of ours, whichever tunnel the probe went by: the first 96 bytes of the inner packet,
    /// the length of all of it, and when its batch was taken. Its source belongs to the peer's connection.
    case probeReply(PeerID, packet: [UInt8], length: Int, at: Instant)
}
