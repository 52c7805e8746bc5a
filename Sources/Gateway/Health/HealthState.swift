/// What a tunnel is good for.
package enum HealthState: String, Hashable, Sendable, CaseIterable {
    /// By an operator.
    case disabled
    /// Not probed, no session, and none wanted: it comes up on the first packet.
    case idle
    /// No session yet, or one that has yet to show that it carries packets.
    case connecting
    case up
    /// Carries packets, but loses too many or takes too long; used last.
    case degraded
    case down

    /// Whether traffic may be given to it without regret.
    package var isCarrying: Bool { self == .up || self == .degraded }
}
