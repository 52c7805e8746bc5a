internal import ControlAPI
package import WireGuard

/// A far site: its tunnels, which of them carry its packets, and what is told of it.
///
/// It alone changes its tunnels. Each change of one ends in `settle` (`Connection+Tunnels.swift`), which does what the tunnel's
/// machines ask for and notes that the connection may have to decide anew; `decide` then looks at all tunnels at once.
package struct Connection {
    /// What it is to be: as the gateway's spec has it.
    package internal(set) var spec: ConnectionSpec
    /// Those that the device took, in the order of the spec and of the forwarding table's paths.
    package internal(set) var tunnels: [Tunnel] = []
    package private(set) var selection: TunnelSelection
    /// When `selection.isUsable` changed.
    package private(set) var since: Instant
    /// The tunnel that an operator prefers; nil where the priorities decide.
    package internal(set) var preferred: String?
    /// How often it became unusable after it had carried packets.
    package private(set) var failures = 0
    /// A tunnel of it has carried packets.
    private var hasBeenUp = false
    /// Targets are silent by each tunnel that works: where they were asked from.
    package private(set) var silentTargetsSource: String?
    /// It came back, and its far end may not have noticed yet: until then. Nil: that is past.
    package private(set) var settlesAt: Instant?
    var drill: DrillRun?
    /// A tunnel of it may have changed since it decided.
    var isUndecided = false

    package var name: String { spec.name }

    init(_ spec: ConnectionSpec, _ context: inout GatewayContext) {
        self.spec = spec
        since = context.now
        selection = TunnelSelection(
            isBalanced: spec.policy == .balance, keepsHeard: spec.onDown == .unreachable)
        for tunnel in spec.tunnels { add(tunnel, &context) }
        selection.update(candidates)
        if !selection.isUsable { usabilityChanged(&context) }
    }

    /// Names of the tunnels that carry its packets; none where all are disabled.
    package var activeTunnels: [String] { activeTunnels(by: selection) }

    private func activeTunnels(by selection: TunnelSelection) -> [String] {
        let indices =
            selection.isBalanced ? Set(selection.buckets).sorted() : [selection.active].compactMap(\.self)
        return indices.filter { tunnels.indices.contains($0) }.map { tunnels[$0].name }
    }

    package func tunnel(named name: String?) -> Int? { tunnels.firstIndex { $0.name == name } }

    // MARK: Time

    /// When `handleTimeout` has something to do; nil while nothing is awaited.
    var nextTimeout: Instant? {
        tunnels.reduce(.earliest(settlesAt, drill?.drill.nextTimeout)) { .earliest($0, $1.nextTimeout) }
    }

    mutating func handleTimeout(_ context: inout GatewayContext) {
        for index in tunnels.indices where tunnels[index].nextTimeout.map({ $0 <= context.now }) ?? false {
            handleTunnelTimeout(index, &context)
        }
        handleDrillTimeout(&context)
        if let settlesAt, settlesAt <= context.now {
            self.settlesAt = nil
            context.isTableStale = true
        }
    }

    // MARK: Deciding

    struct Decision {
        /// Packets go by another tunnel, or by other shares.
        var movesTraffic = false
        /// Other connections, and the kernel's routes, depend on it.
        var changesUsability = false
    }

    /// Chooses anew among the tunnels, as they are now, and tells of what changed.
    mutating func decide(_ context: inout GatewayContext) -> Decision {
        isUndecided = false
        if !spec.health.targets.isEmpty { compareTargets(&context) }
        let before = selection
        let candidates = candidates
        selection.update(candidates)
        for index in tunnels.indices {
            tunnels[index].health.handle(
                .alternative(selection.hasAlternative(to: index)), now: context.now)
            settle(index, &context)
        }
        var decision = Decision()
        if selection.active != before.active || selection.buckets != before.buckets {
            decision.movesTraffic = true
            tellOfSwitch(from: before, &context)
        }
        forgetDrills(context)
        decision.changesUsability = selection.usability != before.usability
        if selection.isUsable != before.isUsable {
            usabilityChanged(&context)
        } else if !hasBeenUp, candidates.contains(where: \.state.isCarrying) {
            tellOfUp(from: "connecting", &context)
        }
        return decision
    }

    private var candidates: [TunnelSelection.Candidate] {
        tunnels.map {
            TunnelSelection.Candidate(
                name: $0.name, priority: $0.spec.priority, weight: $0.spec.weight,
                isPreferred: $0.name == preferred, health: $0.health)
        }
    }

    /// Once what a drill has cut works again, or an operator has other plans with it, all that happens to it is real.
    private mutating func forgetDrills(_ context: borrowing GatewayContext) {
        for index in tunnels.indices where tunnels[index].isDrilled {
            let state = tunnels[index].health.state
            guard context.device.path(of: tunnels[index].peer)?.isCut != true,
                state.isCarrying || state == .disabled
            else { continue }
            tunnels[index].isDrilled = false
        }
    }

    /// Health targets choose among the tunnels (``OtherTunnels``); when they are silent by all of them, that is said and
    /// no more.
    private mutating func compareTargets(_ context: inout GatewayContext) {
        for index in tunnels.indices {
            let others = tunnels.indices.filter { $0 != index }.map { tunnels[$0].health }
            let seen = OtherTunnels(others.map { ($0.liveness == .answering, $0.targetReach) })
            tunnels[index].health.handle(.others(seen), now: context.now)
            settle(index, &context)
        }
        let areSilent = TargetReach.areSilent(tunnels.map { ($0.health.isWorking, $0.health.targetReach) })
        switch (silentTargetsSource != nil, areSilent) {
        case (false, true?):
            let sources = spec.tunnels.compactMap(\.inside).map(spec.health.source)
            let source = Set(sources).map(\.description).sorted().joined(separator: " and ")
            silentTargetsSource = source
            context.raise(
                .targetsUnanswered, connection: name, reason: HealthReason.targetUnreachable.name,
                "\(name): \(Self.silence(source))", details: ["source": source], level: .warning)
        case (true, false?):
            silentTargetsSource = nil
            context.raise(
                .targetsAnswered, connection: name, "targets of \(name) answer again", level: .notice)
        default: break
        }
    }

    static func silence(_ source: String) -> String {
        "targets do not answer by any tunnel: is there a way back to \(source)?"
    }

    // MARK: Telling

    private mutating func tellOfSwitch(from old: TunnelSelection, _ context: inout GatewayContext) {
        let before = activeTunnels(by: old)
        let after = activeTunnels
        noteInDrill(.active(after.first), &context)
        // What is tried before anything works is nobody's failing over.
        guard before != after, hasBeenUp else { return }
        guard Set(before).isDisjoint(with: after) else {
            return tellOfShares(from: before, to: after, &context)
        }
        // The one that was left; where that one carries, the one that came back.
        let left = tunnel(named: before.first).map { tunnels[$0] }
        let moved =
            left?.health.state.isCarrying ?? true ? tunnel(named: after.first).map { tunnels[$0] } : left
        let caller = context.orderer(of: name)
        context.raise(
            .failover, connection: name, from: Self.list(before), to: Self.list(after),
            reason: caller == nil ? moved?.health.reason.name : HealthReason.operator.name,
            "\(name) goes by \(Self.list(after) ?? "no tunnel") now, and went by "
                + "\(Self.list(before) ?? "none")" + (caller.map { ", by \($0.words)" } ?? ""),
            details: caller?.details() ?? [:], isDrill: [left, moved].contains { $0?.isDrilled ?? false },
            level: .notice)
    }

    /// Under `balance`: some carry on, so that nothing has failed over.
    private func tellOfShares(
        from before: [String], to after: [String], _ context: inout GatewayContext
    ) {
        let caller = context.orderer(of: name)
        func tell(
            _ kind: GatewayEvent.Kind, _ tunnel: String, _ words: String, _ context: inout GatewayContext
        ) {
            let moved = self.tunnel(named: tunnel).map { tunnels[$0] }
            context.raise(
                kind, connection: name, tunnel: tunnel, from: Self.list(before), to: Self.list(after),
                reason: caller == nil ? moved?.health.reason.name : HealthReason.operator.name,
                "\(tunnel) \(words), beside \(Self.list(after.filter { $0 != tunnel }) ?? "none")",
                details: caller?.details() ?? [:], isDrill: moved?.isDrilled ?? false, level: .notice)
        }
        for tunnel in before where !after.contains(tunnel) {
            tell(.tunnelLeft, tunnel, "carries no share of \(name) now", &context)
        }
        for tunnel in after where !before.contains(tunnel) {
            tell(.tunnelJoined, tunnel, "carries a share of \(name) now", &context)
        }
    }

    private static func list(_ names: [String]) -> String? {
        names.isEmpty ? nil : names.joined(separator: ", ")
    }

    private mutating func usabilityChanged(_ context: inout GatewayContext) {
        since = context.now
        guard !selection.isUsable else {
            settlesAt = context.now + spec.health.maxHoldDown
            return tellOfUp(from: "down", &context)
        }
        settlesAt = nil
        // What never carried a packet has not flapped.
        if hasBeenUp { failures += 1 }
        context.raise(
            .connectionDown, connection: name, from: hasBeenUp ? "up" : "connecting", to: "down",
            reason: tunnels.first?.health.reason.name, "\(name) is down: no tunnel of it is usable",
            level: .warning)
    }

    private mutating func tellOfUp(from state: String, _ context: inout GatewayContext) {
        hasBeenUp = true
        context.raise(
            .connectionUp, connection: name, from: state, to: "up", "\(name) is up", level: .notice)
    }
}
