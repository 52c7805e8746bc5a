internal import ControlAPI
internal import DataPlane
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What control keeps of one connection.
struct ConnectionRecord {
    /// Position in the forwarding table.
    var place = 0
    var selection: TunnelSelection
    /// When `selection.isUsable` changed.
    var since: Instant
    /// An operator's choice.
    var preferred: String?
    /// How often it became unusable after it had carried packets.
    var failures = 0
    /// A tunnel of it has carried packets.
    var hasBeenUp = false
    /// Targets are silent by each tunnel that works: where they were asked from.
    var silentTargetsSource: String?
    /// It came back, and its far end may not have noticed yet: until then. Nil: that is past.
    var settlesAt: Instant?
}

/// Which tunnel each connection uses, and what follows for forwarding and for routes.
extension ControlLoop {
    func addConnection(_ connection: Connection) {
        for tunnel in connection.tunnels { addTunnel(tunnel, of: connection) }
        guard connections[connection.name] == nil else { return connectionChanged(connection.name) }
        var record = ConnectionRecord(
            selection: TunnelSelection(
                isBalanced: connection.policy == .balance, keepsHeard: connection.onDown == .unreachable),
            since: now)
        record.selection.update(candidates(of: connection, preferred: nil))
        connections[connection.name] = record
        if !record.selection.isUsable { usabilityChanged(of: connection, isUsable: false) }
    }

    /// Those that the state no longer has.
    func dropConnections() {
        for name in connections.keys where state.connection(named: name) == nil {
            connections[name] = nil
            abortDrill(of: name)
        }
    }

    /// The tunnels that are in the device, in the order of the forwarding table's paths.
    func peers(of connection: Connection) -> [PeerID] {
        connection.tunnels.compactMap { tunnels.peer(named: $0.name) }
    }

    private func candidates(
        of connection: Connection, preferred: String?
    ) -> [TunnelSelection.Candidate] {
        connection.tunnels.compactMap { tunnel in
            guard let record = tunnels.peer(named: tunnel.name).flatMap({ tunnels[$0] }) else { return nil }
            return TunnelSelection.Candidate(
                name: record.name, priority: tunnel.priority, weight: tunnel.weight,
                isPreferred: record.name == preferred, health: record.health)
        }
    }

    /// A tunnel of it may have changed.
    func connectionChanged(_ name: String) { staleConnections.insert(name) }

    /// After a round: whatever became of the tunnels in it is one change.
    func settleConnections() {
        let (changed, isUsabilityNew) = updateSelections()
        if isUsabilityNew {
            forwardAndRoute()
        } else {
            for name in changed {
                guard let record = connections[name] else { continue }
                apply(record.selection, at: record.place, in: forwarding)
            }
        }
    }

    /// Chooses and tells anew where a tunnel may have changed. What was chosen is yet to be applied.
    private func updateSelections() -> (changed: [String], isUsabilityNew: Bool) {
        var changed: [String] = []
        var isUsabilityNew = false
        let stale = staleConnections
        staleConnections = []
        for name in stale {
            guard let record = connections[name], let connection = state.connection(named: name) else {
                continue
            }
            if !connection.health.targets.isEmpty { compareTargets(of: connection) }
            var next = record.selection
            let candidates = candidates(of: connection, preferred: record.preferred)
            next.update(candidates)
            connections[name]?.selection = next
            for (place, peer) in peers(of: connection).enumerated() {
                tunnels[peer]?.health.handle(.alternative(next.hasAlternative(to: place)), now: now)
                tunnels.reschedule(peer)
            }
            if next.active != record.selection.active || next.buckets != record.selection.buckets {
                changed.append(name)
                reportSwitch(from: record.selection, to: next, of: connection, isStart: !record.hasBeenUp)
            }
            forgetDrills(of: connection)
            isUsabilityNew = isUsabilityNew || next.usability != record.selection.usability
            if next.isUsable != record.selection.isUsable {
                usabilityChanged(of: connection, isUsable: next.isUsable)
            } else if !record.hasBeenUp, candidates.contains(where: \.state.isCarrying) {
                tellOfUp(connection, from: "connecting")
            }
        }
        return (changed, isUsabilityNew)
    }

    private func apply(_ selection: TunnelSelection, at place: Int, in table: ForwardingTable) {
        if selection.isBalanced {
            table.assign(selection.buckets, of: place)
        } else {
            table.activate(selection.active, of: place)
        }
    }

    /// Names of the tunnels that carry the connection's packets; none where all are disabled.
    func activeTunnels(of connection: Connection, by selection: TunnelSelection) -> [String] {
        let names = peers(of: connection).compactMap { tunnels[$0]?.name }
        let places =
            selection.isBalanced ? Set(selection.buckets).sorted() : [selection.active].compactMap(\.self)
        return places.filter { names.indices.contains($0) }.map { names[$0] }
    }

    private func reportSwitch(
        from old: TunnelSelection, to new: TunnelSelection, of connection: Connection, isStart: Bool
    ) {
        let before = activeTunnels(of: connection, by: old)
        let after = activeTunnels(of: connection, by: new)
        drillNotices(of: connection.name, active: after.first)
        // What is tried before anything works is nobody's failing over.
        guard before != after, !isStart else { return }
        guard Set(before).isDisjoint(with: after) else {
            return reportShares(from: before, to: after, of: connection)
        }
        // The one that was left; where that one carries, the one that came back.
        let left = before.first.flatMap { record(ofTunnel: $0) }
        let moved =
            left?.health.state.isCarrying ?? true ? after.first.flatMap { record(ofTunnel: $0) } : left
        let isDrill = [left, moved].contains { $0?.isDrilled ?? false }
        let caller = orderer(of: connection.name)
        raise(
            .failover, connection: connection.name, from: Self.list(before), to: Self.list(after),
            reason: caller == nil ? moved?.health.reason.name : HealthReason.operator.name,
            "\(connection.name) goes by \(Self.list(after) ?? "no tunnel") now, and went by "
                + "\(Self.list(before) ?? "none")" + (caller.map { ", by \($0.words)" } ?? ""),
            details: caller?.details() ?? [:], isDrill: isDrill, level: .notice)
    }

    /// Under `balance`: some carry on, so that nothing has failed over.
    private func reportShares(from before: [String], to after: [String], of connection: Connection) {
        func tell(_ kind: GatewayEvent.Kind, _ tunnel: String, _ words: String) {
            let record = record(ofTunnel: tunnel)
            let caller = orderer(of: connection.name)
            raise(
                kind, connection: connection.name, tunnel: tunnel, from: Self.list(before),
                to: Self.list(after),
                reason: caller == nil ? record?.health.reason.name : HealthReason.operator.name,
                "\(tunnel) \(words), beside \(Self.list(after.filter { $0 != tunnel }) ?? "none")",
                details: caller?.details() ?? [:], isDrill: record?.isDrilled ?? false, level: .notice)
        }
        for tunnel in before where !after.contains(tunnel) {
            tell(.tunnelLeft, tunnel, "carries no share of \(connection.name) now")
        }
        for tunnel in after where !before.contains(tunnel) {
            tell(.tunnelJoined, tunnel, "carries a share of \(connection.name) now")
        }
    }

    private static func list(_ names: [String]) -> String? {
        names.isEmpty ? nil : names.joined(separator: ", ")
    }

    private func record(ofTunnel name: String) -> TunnelRecord? {
        tunnels.peer(named: name).flatMap { tunnels[$0] }
    }

    /// Once what a drill has cut works again, or an operator has other plans with it, all that happens to it is real.
    private func forgetDrills(of connection: Connection) {
        for peer in peers(of: connection) {
            guard let record = tunnels[peer], record.isDrilled, device.path(of: peer)?.isCut != true,
                record.health.state.isCarrying || record.health.state == .disabled
            else { continue }
            tunnels[peer]?.isDrilled = false
        }
    }

    private func usabilityChanged(of connection: Connection, isUsable: Bool) {
        connections[connection.name]?.since = now
        connections[connection.name]?.settlesAt = isUsable ? now + connection.health.maxHoldDown : nil
        if isUsable {
            tellOfUp(connection, from: "down")
        } else {
            // What never carried a packet has not flapped.
            let hasBeenUp = connections[connection.name]?.hasBeenUp ?? false
            if hasBeenUp { connections[connection.name]?.failures += 1 }
            let reason = peers(of: connection).first.flatMap { tunnels[$0]?.health.reason }
            raise(
                .connectionDown, connection: connection.name, from: hasBeenUp ? "up" : "connecting",
                to: "down", reason: reason?.name,
                "\(connection.name) is down: no tunnel of it is usable", level: .warning)
        }
    }

    private func tellOfUp(_ connection: Connection, from: String) {
        connections[connection.name]?.hasBeenUp = true
        raise(
            .connectionUp, connection: connection.name, from: from, to: "up", "\(connection.name) is up",
            level: .notice)
    }

    // MARK: Forwarding

    /// After every change of connections, prefixes, MTU, or of which connections are usable.
    func publishForwarding() {
        if updateSelections().isUsabilityNew { forwardAndRoute() } else { forward() }
    }

    private func forwardAndRoute() {
        forward()
        reconcileRoutes()
    }

    private func forward() {
        chooseLeftOut()
        let connections = state.connections
        let choice = prefixChoice(connections)
        let table = ForwardingTable(
            connections: connections.enumerated().map { number, connection in
                ForwardingTable.Connection(
                    prefixes: choice.prefixes[number],
                    paths: peers(of: connection).compactMap { device.path(of: $0) },
                    isBalanced: connection.policy == .balance,
                    watched: connection.health.isOn ? connection.health.targets.map(\.address) : [],
                    probeSource: connection.health.source,
                    sources: choice.sources[number], active: nil,
                    translation: translation(of: connection), copiesDSCP: connection.copiesDSCP,
                    limiter: limiters.limiter(
                        of: .connection(connection.name), rate: connection.rateLimit, mtu: mtu, now: now),
                    pathLimiters: tunnelLimiters(of: connection))
            }, mtu: mtu)
        limiters.keep { owner in
            switch owner {
            case .connection(let name): state.connection(named: name) != nil
            case .tunnel(let name): tunnels.peer(named: name) != nil
            }
        }
        for (place, connection) in connections.enumerated() {
            guard let record = self.connections[connection.name] else { continue }
            self.connections[connection.name]?.place = place
            apply(record.selection, at: place, in: table)
        }
        forwarding = table
        dataPlane.publish(table)
        chooseFragmentation()
    }

    private func translation(of connection: Connection) -> PrefixTranslation? {
        guard !connection.translations.isEmpty else { return nil }
        return PrefixTranslation(
            connection.translations.compactMap {
                PrefixTranslation.Pair(inside: $0.inside, outside: $0.outside)
            })
    }

    /// In the order of the forwarding table's paths.
    private func tunnelLimiters(of connection: Connection) -> [RateLimiter?] {
        connection.tunnels.filter { tunnels.peer(named: $0.name).flatMap { device.path(of: $0) } != nil }.map
        {
            limiters.limiter(of: .tunnel($0.name), rate: $0.rateLimit, mtu: mtu, now: now)
        }
    }

    /// Outer packets go whole where vgwd finds out what passes: on the sockets whose tunnels are all probed. The
    /// others' are fragmented, as ever.
    private func chooseFragmentation() {
        guard case .automatic = settings.mtu else { return }
        let records = tunnels.peers.compactMap { tunnels[$0] }
        for number in underlays.bindings.indices.map({ UInt8($0) }) {
            let users = records.filter { $0.socket == number }
            let isProbed = !users.isEmpty && users.allSatisfy { $0.inside != nil }
            do throws(SystemError) {
                try underlays.setDontFragment(isProbed, of: number)
            } catch {
                log.warning("outer packets may be fragmented", metadata: ["error": "\(error)"])
            }
        }
    }

    private func prefixChoice(_ connections: [Connection]) -> PrefixChoice {
        let candidates = connections.map { candidate($0) }
        let guarded = guarded.prefixes.filter { localNetworks.inUse(holding: $0) == nil }
        if let latest = latestChoice, latest.candidates == candidates, latest.guarded == guarded {
            return latest.choice
        }
        let choice = PrefixChoice(candidates, guarded: guarded)
        latestChoice = (candidates, guarded, choice)
        return choice
    }

    func candidate(_ connection: Connection) -> PrefixChoice.Candidate {
        PrefixChoice.Candidate(
            connection.routes.filter { leftOut.isEmpty || leftOut[$0.prefix] == nil }.map { route in
                PrefixChoice.Claim(
                    route.prefix, metric: connection.metric ?? route.metric ?? settings.plan.metric,
                    isLearned: route.origin == .learned)
            }, health: health(of: connection),
            onDown: connection.onDown == .unreachable ? .unreachable : .withdraw)
    }

    /// Settled once its far end, too, must have noticed what there was to notice.
    private func health(of connection: Connection) -> PrefixChoice.Health {
        // What `wg` allows to a peer is nobody else's, whatever becomes of the peer.
        guard settings.managesLink, let record = connections[connection.name] else { return .settled }
        return switch record.selection.usability {
        case .dead: .dead
        case .heard: .heard
        case .usable: record.settlesAt == nil ? .settled : .usable
        }
    }

    /// When the next connection that came back is settled: from then on no other may speak for its prefixes.
    var settlingDeadline: Instant? {
        connections.values.lazy.compactMap(\.settlesAt).min()
    }

    func handleSettling() {
        guard let deadline = settlingDeadline, deadline <= now else { return }
        for (name, record) in connections where record.settlesAt.map({ $0 <= now }) ?? false {
            connections[name]?.settlesAt = nil
        }
        publishForwarding()
    }

    func isUsable(_ connection: Connection) -> Bool {
        connections[connection.name]?.selection.isUsable ?? true
    }

    // MARK: Routes

    func reconcileRoutes() {
        let prefixes = wantedPrefixes()
        if isTunHere { reportRoutes(prefixes) }
        keeper.reconcile(prefixes, now: now)
    }

    /// What becomes of a prefix by health; one that comes or goes is told of by who adds it or takes it out.
    private func reportRoutes(_ prefixes: [RoutePlan.Prefix]) {
        guard keeper.installsRoutes else { return }
        let before = routeStates
        let prefixes = leftOut.isEmpty ? prefixes : prefixes.filter { leftOut[$0.prefix] == nil }
        routeStates = Dictionary(prefixes.map { ($0.prefix, $0.state) }) { first, _ in first }
        var changed: [GatewayEvent.Kind: [IPPrefix]] = [:]
        for prefix in prefixes {
            guard let was = before[prefix.prefix], was != prefix.state else { continue }
            switch prefix.state {
            case .carried, .covered:
                guard was == .unreachable || was == .withdrawn else { continue }
                changed[.routeRestored, default: []].append(prefix.prefix)
            case .unreachable: changed[.routeUnreachable, default: []].append(prefix.prefix)
            case .withdrawn: changed[.routeRemoved, default: []].append(prefix.prefix)
            }
        }
        for (kind, words) in [
            (.routeUnreachable, "unreachable: no tunnel leads there"),
            (.routeRemoved, "withdrawn: no tunnel leads there"),
            (.routeRestored, "routed into a tunnel again"),
        ] as [(GatewayEvent.Kind, String)] { report(changed[kind] ?? [], as: kind, words) }
    }

    private func report(_ prefixes: [IPPrefix], as kind: GatewayEvent.Kind, _ words: String) {
        guard prefixes.count > Self.routeEventLimit else {
            for prefix in prefixes {
                raise(
                    kind, connection: owner(of: prefix), reason: "on-down",
                    "\(prefix) is \(words)", details: ["prefix": "\(prefix)"], level: .notice)
            }
            return
        }
        let owners = Set(prefixes.map(owner))
        raise(
            kind, connection: owners.count == 1 ? owners.first ?? nil : nil, reason: "on-down",
            "\(prefixes.count) prefixes are \(words)",
            details: ["count": "\(prefixes.count)"], level: .notice)
    }

    private func owner(of prefix: IPPrefix) -> String? {
        state.owners(of: prefix).first ?? guarded.connection(of: prefix)
    }

    /// What the kernel shall route, and how: what connections carry, what is guarded, and the far ends of the
    /// inside links, which are there whatever becomes of the connection, so that who speaks to them comes back by
    /// himself.
    func routePrefixes() -> [RoutePlan.Prefix] {
        let ends = state.insideEnds
        let choice = prefixChoice(state.connections)
        let kernel = withSources(choice.kernel.filter { !ends.contains($0.prefix) }, choice)
        return ends.map { RoutePlan.Prefix($0) } + state.exclusively(kernel) + leftOutGuards
    }
}
