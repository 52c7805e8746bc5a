/// Why a tunnel is in its state. Events, the status and hooks know no others.
package enum HealthReason: String, Hashable, Sendable, CaseIterable {
    // Handshakes.
    case noReplyToHandshake = "no-reply-to-handshake"
    case mac1Wrong = "mac1-wrong"
    case timestampNotNewer = "timestamp-not-newer"
    case handshakeRefused = "handshake-refused"
    case handshakeCompleted = "handshake-completed"
    case sessionExpired = "session-expired"

    // Probes and traffic.
    case probeTimeout = "probe-timeout"
    case targetUnreachable = "target-unreachable"
    case lossTooHigh = "loss-too-high"
    case roundTripTooLong = "round-trip-too-long"
    case probesAnswered = "probes-answered"
    case trafficHeard = "traffic-heard"

    // What is around the tunnel.
    case endpointUnresolved = "endpoint-unresolved"
    case endpointAwaited = "endpoint-awaited"
    case endpointUnknown = "endpoint-unknown"
    case interfaceDown = "interface-down"
    case `operator` = "operator"
    case started = "started"

    package var name: String { rawValue }

    /// A clause for people, to stand behind the state: `down: probes are not answered`.
    package var words: String {
        switch self {
        case .noReplyToHandshake: "no reply to handshake"
        case .mac1Wrong: "mac1 is wrong: this end's idea of the far key is wrong"
        case .timestampNotNewer: "timestamp is not newer: a clock went back"
        case .handshakeRefused: "the handshake is refused"
        case .handshakeCompleted: "the handshake is complete"
        case .sessionExpired: "the session expired, and no other took its place"
        case .probeTimeout: "probes are not answered"
        case .targetUnreachable: "targets answered by another tunnel and not by this one"
        case .lossTooHigh: "too many probes are lost"
        case .roundTripTooLong: "the round trip takes too long"
        case .probesAnswered: "probes are answered"
        case .trafficHeard: "the far end is heard"
        case .endpointUnresolved: "the endpoint does not resolve"
        case .endpointAwaited: "the endpoint's name is being looked up"
        case .endpointUnknown: "the endpoint is not known: the far end must speak first"
        case .interfaceDown: "the interface that it leaves by is down"
        case .operator: "an operator said so"
        case .started: "started"
        }
    }
}
