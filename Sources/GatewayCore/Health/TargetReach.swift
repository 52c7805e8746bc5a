package import WireGuard

/// What the targets say of one tunnel by which they are asked.
package enum TargetReach: Hashable, Sendable {
    /// There is none, or nothing is known yet.
    case unknown
    /// One answers; its newest answered probe was sent at that time.
    case answered(at: Instant)
    /// None of them answers any more; the newest that fell silent has done so since then.
    case unanswered(since: Instant)
}

/// What a connection's other tunnels are good for, as one of them has to know: its targets choose among tunnels, and
/// never take all of them down.
package enum OtherTunnels: Hashable, Sendable {
    case noneCarries
    /// When the newest probe of a target left that was answered by one of those that carry.
    case carry(targetsAnsweredAt: Instant?)

    /// `tunnels` are the others: whether each can carry traffic, and what its targets say.
    package init(_ tunnels: [(carries: Bool, targets: TargetReach)]) {
        let carrying = tunnels.filter(\.carries)
        guard !carrying.isEmpty else {
            self = .noneCarries
            return
        }
        self = .carry(
            targetsAnsweredAt: carrying.compactMap { tunnel in
                if case .answered(let at) = tunnel.targets { at } else { nil }
            }.max())
    }
}

extension TargetReach {
    /// Returns true if targets answer by no tunnel while some tunnel works: then no tunnel is to blame. Nil where
    /// nothing tells.
    package static func areSilent(_ tunnels: [(works: Bool, targets: TargetReach)]) -> Bool? {
        var areSilent: Bool?
        for tunnel in tunnels {
            switch tunnel.targets {
            case .answered: return false
            case .unanswered: if tunnel.works { areSilent = true }
            case .unknown: break
            }
        }
        return areSilent
    }
}
