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

    /// What one kind of live probes saw.
    package struct Measure: Hashable, Sendable {
        /// Until the first probe was sent from which on all were answered while the tunnel was away; zero when none
        /// was lost. Nil: the last was lost, too.
        package var timeToRecover: Duration?
        /// Probes sent while the tunnel was away, and how many of them were not answered.
        package var sent = 0
        package var lost = 0
        /// The longest time that passed from a lost probe to the next answered one.
        package var longestGap: Duration = .zero
        /// Probes lost since the tunnel was put back.
        package var lostAfter = 0
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
    /// From gateway to gateway.
    package var gateway = Measure()
    /// From the connection's source to the targets behind the far gateway; nil where there are none.
    package var targets: Measure?

    /// From putting it back until the tunnel was up; nil when it was not within the time given to it.
    package var timeToReturn: Duration?
    /// Whether the tunnel became the active one again.
    package var hasFailedBack = false

    /// What the operator allows for recovery.
    package var objective: Duration?

    package init(connection: String) { self.connection = connection }

    /// Until both the far gateway and the targets answered again.
    package var timeToRecover: Duration? {
        guard let gateway = gateway.timeToRecover else { return nil }
        guard let targets else { return gateway }
        return targets.timeToRecover.map { max($0, gateway) }
    }

    package var probesLostAfter: Int { gateway.lostAfter + (targets?.lostAfter ?? 0) }

    /// Nil without an objective, and where nothing was cut.
    package var isMet: Bool? {
        guard let objective, refusal == nil else { return nil }
        return timeToRecover.map { $0 <= objective } ?? false
    }
}
