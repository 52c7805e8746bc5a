/// What a tunnel is good for.
package enum TunnelState: String, Codable, Hashable, Sendable, CaseIterable {
    /// An operator took it down.
    case disabled
    /// Not probed, no session, and none wanted: it comes up on the first packet.
    case idle
    /// No session yet, or one that has yet to show that it carries packets.
    case connecting
    case up
    /// It carries packets, with more loss or delay than its limits: it is used last.
    case degraded
    /// Handshakes fail, or nobody answers probes; `TunnelStatus.reason` says how.
    case down

    /// Whether traffic may be given to it without regret.
    package var isCarrying: Bool { self == .up || self == .degraded }
}
