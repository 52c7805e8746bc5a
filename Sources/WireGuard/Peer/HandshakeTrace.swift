/// A handshake message that came or went, for whoever looks for a fault (`Device.tracesHandshakes`). Holds no secret.
package struct HandshakeTrace: Hashable, Sendable {
    package enum Step: Hashable, Sendable {
        /// The first of an attempt is number 1.
        case initiationSent(number: Int)
        case initiationReceived
        case responseSent
        case responseReceived
        /// In place of a response: this end is under load.
        case cookieSent
        case cookieReceived
        /// A message of the other end was dropped. `key` is the static key that it names, where that could be read.
        case refused(DropReason, key: PublicKey?)
    }

    package let step: Step
    /// Nil where the message cannot be told to be a peer's.
    package let peer: PeerID?
    /// Where it came from or goes to.
    package let endpoint: Endpoint
}
