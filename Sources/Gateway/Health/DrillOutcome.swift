/// What a drill found. Times count from the cut.
package struct DrillOutcome: Hashable, Sendable {
    /// Why nothing was cut.
    package enum Refusal: String, Hashable, Sendable {
        case noActiveTunnel = "no-active-tunnel"
        case onlyOneTunnel = "only-one-tunnel"
        case noOtherTunnelUp = "no-other-tunnel-up"

        package var words: String {
            switch self {
            case .noActiveTunnel: "no tunnel carries traffic now"
            case .onlyOneTunnel: "there is only one tunnel, so there is nothing to fail over to"
            case .noOtherTunnelUp: "no other tunnel is up, so there is nothing to fail over to"
            }
        }
    }

    package var connection: String
    package var refusal: Refusal?
    /// Somebody ended it before its time.
    package var wasAborted = false
    /// The tunnel that was cut, and which carried traffic just before it was put back, and at the end.
    package var cut: String?
    package var activeWhileCut: String?
    package var activeAfter: String?

    /// Until the tunnel was down. Nil: it never was.
    package var timeToDetect: Duration?
    /// Until the first live probe was sent from which on all were answered while the tunnel was away; zero
    /// when none was lost. Nil: the last was lost, too.
    package var timeToRecover: Duration?
    /// Live probes sent while the tunnel was away, and how many of them were not answered.
    package var probesSent = 0
    package var probesLost = 0
    /// The longest time that passed from a lost probe to the next answered one.
    package var longestGap: Duration = .zero

    /// From putting it back until the tunnel was up; nil when it was not within the time given to it.
    package var timeToReturn: Duration?
    /// Whether the tunnel became the active one again, and how many live probes were lost since it was put
    /// back.
    package var hasFailedBack = false
    package var probesLostAfter = 0

    /// What the operator allows for recovery.
    package var objective: Duration?

    package init(connection: String) { self.connection = connection }

    /// Nil without an objective, and where nothing was cut.
    package var isMet: Bool? {
        guard let objective, refusal == nil else { return nil }
        return timeToRecover.map { $0 <= objective } ?? false
    }
}
