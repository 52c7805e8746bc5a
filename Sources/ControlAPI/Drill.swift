/// `POST /v1/connections/NAME/drill`: take the active tunnel away as a cut cable would, see how long traffic is
/// lost, and put it back. The answer comes when that is over, and it is over at once when the client's connection is
/// closed.
package struct DrillRequest: Codable, Hashable, Sendable {
    /// Seconds that the tunnel stays cut; nil is `defaultDuration`.
    package var duration: Double?

    package init(duration: Double? = nil) { self.duration = duration }

    package static let defaultDuration = 10.0
    package static let durationRange = 1.0...300.0
    /// How much longer than the duration an answer may take: the tunnel has to come back.
    package static let patience = 30.0
}

/// What a drill found. Times are in seconds, from the cut.
package struct DrillReport: Codable, Hashable, Sendable {
    package var connection: String
    /// The one that was cut.
    package var tunnel: String
    package var duration: Double
    /// Until the tunnel was held to be down. Nil: it never was.
    package var timeToDetect: Double?
    /// Until probes passed again from gateway to gateway. Nil: they did not while the tunnel was cut.
    package var timeToRecover: Double?
    package var probesSent: Int
    package var probesLost: Int
    /// The longest time without an answered probe.
    package var longestGap: Double?
    /// The same of the health targets behind the far gateway; nil where there are none, so that nothing is known of
    /// what is behind it.
    package var targets: DrillTargets?
    /// Tunnels; nil where there was none.
    package var activeBefore: String?
    package var activeDuring: String?
    package var activeAfter: String?
    /// The connection's recovery time objective; nil where none is configured.
    package var rto: Double?
    /// Nil without an objective.
    package var rtoMet: Bool?
    /// Sentences for people: what was odd.
    package var notes: [String]

    package init(
        connection: String, tunnel: String, duration: Double, timeToDetect: Double? = nil,
        timeToRecover: Double? = nil, probesSent: Int = 0, probesLost: Int = 0, longestGap: Double? = nil,
        targets: DrillTargets? = nil,
        activeBefore: String? = nil, activeDuring: String? = nil, activeAfter: String? = nil,
        rto: Double? = nil, rtoMet: Bool? = nil, notes: [String] = []
    ) {
        self.connection = connection
        self.tunnel = tunnel
        self.duration = duration
        self.timeToDetect = timeToDetect
        self.timeToRecover = timeToRecover
        self.probesSent = probesSent
        self.probesLost = probesLost
        self.longestGap = longestGap
        self.targets = targets
        self.activeBefore = activeBefore
        self.activeDuring = activeDuring
        self.activeAfter = activeAfter
        self.rto = rto
        self.rtoMet = rtoMet
        self.notes = notes
    }

    /// Probes passed again while the tunnel was cut, to the targets too where there are some, and soon enough where an
    /// objective says what that is.
    package var isPassed: Bool {
        timeToRecover != nil && targets.map { $0.timeToRecover != nil } ?? true && rtoMet != false
    }
}

/// What probes of a drill to the health targets found; a probe counts as answered when one target answers it.
package struct DrillTargets: Codable, Hashable, Sendable {
    /// Nil: they did not answer again while the tunnel was cut.
    package var timeToRecover: Double?
    package var probesSent: Int
    package var probesLost: Int
    package var longestGap: Double

    package init(timeToRecover: Double?, probesSent: Int, probesLost: Int, longestGap: Double) {
        self.timeToRecover = timeToRecover
        self.probesSent = probesSent
        self.probesLost = probesLost
        self.longestGap = longestGap
    }
}
