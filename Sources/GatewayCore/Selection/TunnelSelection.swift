package import ControlAPI

/// Which tunnels of a connection carry its packets, by policy and health.
///
/// | rank | a tunnel that |
/// |---|---|
/// | preferred | an operator prefers, while it is up or degraded |
/// | up | |
/// | degraded | |
/// | answering | is not up yet, and answers probes: it has to answer more of them, or is held down for having flapped |
/// | untried | is connecting, with a session |
/// | waiting | is idle, or connecting without a session, and has not failed: packets are staged there |
/// | heard | is down, and something comes by it: only ours does not get there, or the far end answers no probe |
/// | failing | is down, with a session |
/// | hopeless | is anything else but disabled |
///
/// The best rank wins, then the lowest priority, then the tunnel that is active already. Of those that answer, the
/// active one wins before the priority: what is not up yet has nothing to move traffic for. What has not been tried
/// comes before what was found dead: without inside addresses only traffic shows whether a tunnel works.
package struct TunnelSelection: Sendable {
    package struct Candidate: Hashable, Sendable {
        /// Unique in the gateway: flows keep to a tunnel by its name.
        package var name: String
        /// Lowest first.
        package var priority: Int
        /// Share of the flows under `balance`; less than 1 counts as 1.
        package var weight: Int
        package var state: TunnelState
        package var hasSession: Bool
        /// By an operator.
        package var isPreferred: Bool
        /// As ``TunnelHealth`` has them.
        package var hasFailed: Bool
        package var liveness: Liveness

        package init(
            name: String, priority: Int = 10, weight: Int = 1, state: TunnelState, hasSession: Bool,
            isPreferred: Bool = false, hasFailed: Bool = false, liveness: Liveness = .silent
        ) {
            self.name = name
            self.priority = priority
            self.weight = weight
            self.state = state
            self.hasSession = hasSession
            self.isPreferred = isPreferred
            self.hasFailed = hasFailed
            self.liveness = liveness
        }
    }

    package enum Usability: Hashable, Sendable {
        case dead
        /// Something comes by a tunnel that is down: its routes stay where nobody else has them.
        case heard
        /// Some tunnel carries traffic, or may, for all that is known.
        case usable
    }

    private enum Rank: Int, Comparable {
        case preferred, up, degraded, answering, untried, waiting, heard, failing, hopeless

        static func < (a: Rank, b: Rank) -> Bool { a.rawValue < b.rawValue }
    }

    package let isBalanced: Bool
    /// Where packets go, or, under `balance`, those that no bucket leads to. By place among the candidates;
    /// nil when all are disabled.
    package private(set) var active: Int?
    package private(set) var usability = Usability.dead
    /// When not, routes follow `on-down`.
    package var isUsable: Bool { usability != .dead }
    /// Under `balance`: 256 places among the candidates, by the hash of a flow. Empty when all are disabled,
    /// and under `failover`.
    package private(set) var buckets: [Int] = []

    /// By place: whether a tunnel is known to carry packets.
    private var isProven: [Bool] = []
    private let keepsHeard: Bool
    private var activeName: String?
    /// The active tunnel has been up. Before, one that has a session and no verdict yet is as good as one that has
    /// shown itself first: which of them that is, is chance, and flows should not move for it.
    private var hasCarried = false
    private var hashing = TunnelHashing()

    /// `keepsHeard`: a connection of which something is still heard is better than none.
    package init(isBalanced: Bool, keepsHeard: Bool = true) {
        self.isBalanced = isBalanced
        self.keepsHeard = keepsHeard
    }

    /// Call when anything about any candidate changed. The same again changes nothing.
    package mutating func update(_ candidates: [Candidate]) {
        let isBeginning = !isBalanced && !hasCarried && activeName != nil
        let ranks = candidates.map { candidate -> Rank? in
            let rank = Self.rank(of: candidate)
            let isTrying = candidate.state == .connecting && candidate.hasSession && !candidate.hasFailed
            return isBeginning && isTrying ? .up : rank
        }
        active = best(candidates, ranks)
        activeName = active.map { candidates[$0].name }
        if let active, candidates[active].state.isCarrying { hasCarried = true }
        isProven = ranks.map { $0.map { $0 <= .answering } ?? false }
        usability =
            if isProven.contains(true) || candidates.contains(where: { Self.isPromising($0) }) {
                .usable
            } else {
                keepsHeard && ranks.contains(.heard) ? .heard : .dead
            }
        if isBalanced {
            let carriers = carriers(candidates, ranks)
            let members = candidates.indices.map { index in
                TunnelHashing.Member(
                    name: candidates[index].name, weight: max(candidates[index].weight, 1),
                    isIn: carriers.contains(index))
            }
            buckets = hashing.assign(members)
        }
    }

    /// Whether a tunnel other than the one at `place` is known to carry packets.
    package func hasAlternative(to place: Int) -> Bool {
        isProven.indices.contains { $0 != place && isProven[$0] }
    }

    private func best(_ candidates: [Candidate], _ ranks: [Rank?]) -> Int? {
        var best: Int?
        for (index, rank) in ranks.enumerated() {
            guard let rank else { continue }
            guard let leader = best, let leading = ranks[leader] else {
                best = index
                continue
            }
            let isBetter =
                rank == leading
                ? order(of: candidates[index], rank) < order(of: candidates[leader], rank) : rank < leading
            if isBetter { best = index }
        }
        return best
    }

    /// Among those of one rank the lowest wins.
    private func order(of candidate: Candidate, _ rank: Rank) -> (Int, Int) {
        let presence = candidate.name == activeName ? 0 : 1
        return rank == .answering ? (presence, candidate.priority) : (candidate.priority, presence)
    }

    /// Who shares the flows: all of the best rank, if that carries; else the active one has them all.
    private func carriers(_ candidates: [Candidate], _ ranks: [Rank?]) -> Set<Int> {
        guard let top = ranks.compactMap({ $0 }).min() else { return [] }
        guard top <= .answering else { return active.map { [$0] } ?? [] }
        return Set(candidates.indices.filter { ranks[$0] == top })
    }

    private static func rank(of candidate: Candidate) -> Rank? {
        switch candidate.state {
        case .disabled: nil
        case .up: candidate.isPreferred ? .preferred : .up
        case .degraded: candidate.isPreferred ? .preferred : .degraded
        case .connecting, .idle, .down:
            if candidate.liveness == .answering {
                .answering
            } else if candidate.state == .connecting, candidate.hasSession {
                .untried
            } else if isPromising(candidate) {
                .waiting
            } else if candidate.liveness == .heard {
                .heard
            } else if candidate.hasSession {
                .failing
            } else {
                .hopeless
            }
        }
    }

    /// Idle or connecting, and was never down since it was last good.
    private static func isPromising(_ candidate: Candidate) -> Bool {
        (candidate.state == .idle || candidate.state == .connecting) && !candidate.hasFailed
    }
}

extension TunnelSelection.Candidate {
    package init(name: String, priority: Int, weight: Int, isPreferred: Bool = false, health: TunnelHealth) {
        self.init(
            name: name, priority: priority, weight: weight, state: health.state,
            hasSession: health.hasSession, isPreferred: isPreferred, hasFailed: health.hasFailed,
            liveness: health.liveness)
    }
}
