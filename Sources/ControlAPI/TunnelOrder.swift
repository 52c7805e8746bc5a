/// What an operator tells a tunnel. Holds until it is told otherwise, or vgwd ends. The answer is its
/// `TunnelStatus`.
package enum TunnelOrder: String, Codable, Hashable, Sendable, CaseIterable {
    /// `POST /v1/tunnels/NAME/down`: carry nothing, keep no session.
    case down
    /// `POST /v1/tunnels/NAME/up`: as configured again.
    case up
    /// `POST /v1/tunnels/NAME/prefer`: carry the connection's traffic whenever it is healthy, whatever the
    /// priorities say. A connection prefers one at a time.
    case prefer
    /// `DELETE /v1/tunnels/NAME/prefer`: the priorities decide again. No error where it was not preferred.
    case unprefer
}
