/// Why a packet, or a request, went no further. Each is a counter that `vgwctl status --drops` shows under this name;
/// nothing is dropped without one.
package enum DropReason: UInt8, Error, Sendable, CaseIterable {
    // From the network, before anything is believed.
    case receiveFailed
    /// The kernel's count: it came while a socket's receive buffer was full.
    case receiveQueueFull
    case datagramTruncated
    case datagramOversized
    case messageTypeUnknown
    case messageLengthWrong
    case receiverIndexUnknown
    /// Joined by the kernel to a message for another thread (a handshake, or one of another worker's peer behind the
    /// same address and port), and there was no room to pass it on to its own.
    case strayQueueFull
    case mac1Invalid
    case mac2Invalid
    case cookieRequired
    case handshakeRateLimited
    case handshakeQueueFull

    // Handshakes.
    case lowOrderPoint
    case handshakeDecryptionFailed
    case peerUnknown
    /// An operator has turned it off.
    case peerDisabled
    /// The peer was told to use another cipher than we were.
    case cipherMismatch
    case timestampNotNewer
    case initiationTooSoon
    case responseUnexpected
    case cookieReplyUnexpected
    case cookieReplyInvalid

    // Transport data from a peer.
    case keypairExpired
    case counterExhausted
    case authenticationFailed
    case replayed
    case innerVersionUnknown
    case innerLengthWrong
    case innerSourceNotAllowed
    /// A router on the way marked congestion (CE) on a packet whose sender would not understand it: RFC 6040,
    /// section 4.2, has it dropped instead.
    case congestionMarked
    case tunWriteFailed
    /// No session to answer a probe of the peer's in, or more probes than fit in a batch.
    case probeUnanswerable
    /// Replies to our own probes that control had no room for.
    case probeQueueFull
    /// A reply to a probe that was not sent, or not to there, or not by this connection.
    case probeReplyUnexpected

    // Both ways.
    /// A drill keeps the tunnel cut.
    case drilled

    // From the TUN, on the way out.
    case tunReadFailed
    case outboundMalformed
    case outboundOffloadInvalid
    case noRoute
    /// For the neighbours on a link, as programs look for them (mDNS, IGMP): the tunnels are no link, and it is no fault.
    case linkLocalMulticast
    case noEndpoint
    /// One of our own outer packets, led into the tunnel by a route.
    case routingLoop
    /// Larger than the tunnel's path carries; its sender was told (ICMP).
    case outboundTooBig
    /// A prefix is to be translated, and the packet's checksum lies in another fragment.
    case untranslatable
    /// Past the configured rate, with the queue before it full.
    case rateLimited
    case stagedQueueFull
    case stagedExpired
    case sendCounterExhausted
    case sendFailed
    case sendTooBig

    // From those who give orders.
    case controlRequestMalformed
    case wgRequestRefused

    /// Position in the counter arrays.
    @inlinable package var index: Int { Int(rawValue) }

    /// The case in kebab-case, as operators read it: `replayed`, `mac1-invalid`.
    package var name: String {
        String(describing: self).reduce(into: "") { name, character in
            if character.isUppercase { name += "-" }
            name += character.lowercased()
        }
    }
}
