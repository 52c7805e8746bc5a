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

    /// Nil without an objective, and where nothing was cut.
    package var isMet: Bool? {
        guard let objective, refusal == nil else { return nil }
        return timeToRecover.map { $0 <= objective } ?? false
    }
}

extension DrillOutcome {
    /// What was odd, a clause each for people. `wereTargetsSilent`: none answered before the cut either.
    package func notes(wereTargetsSilent: Bool) -> [String] {
        var notes: [String] = []
        if timeToDetect == nil { notes.append("the tunnel was never held to be down") }
        if gateway.lostAfter > 0 {
            notes.append("\(gateway.lostAfter) probes to the far gateway were lost after it was mended")
        }
        if let targets {
            if wereTargetsSilent {
                notes.append("no target answered before the cut either")
            } else if gateway.timeToRecover != nil, targets.timeToRecover == nil {
                notes.append(
                    "the far gateway answered again and no target did: the far site's way back may still lead by "
                        + (cut ?? "the tunnel"))
            }
            if !wereTargetsSilent, targets.lostAfter > 0 {
                notes.append("\(targets.lostAfter) probes to targets were lost after it was mended")
            }
        }
        guard !wasAborted else {
            // Its return was not waited for.
            return notes + ["somebody ended it before its time"]
        }
        if timeToReturn == nil { notes.append("the tunnel was not back 10 s after it was mended") }
        if !hasFailedBack, activeWhileCut != nil {
            notes.append("traffic did not return to it: it is held down, or another is preferred")
        }
        return notes
    }
}
