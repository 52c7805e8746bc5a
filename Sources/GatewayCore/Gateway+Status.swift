package import ControlAPI
package import WireGuard

/// The gateway in the words of the control API.
extension Gateway {
    /// What only the shell knows, as the status needs it.
    package struct HostFacts {
        /// Why answers of a peer may not reach this end, with what to do about it.
        package var returnProblem: (PeerID) -> String? = { _ in nil }
        /// Why the kernel has not a route of ours to a prefix.
        package var routeProblem: (IPPrefix) -> String? = { _ in nil }
        /// Routes of others that lead a connection's packets past the tunnels.
        package var foreignNotices: (_ connection: String) -> [String] = { _ in [] }

        package init() {}
    }

    package func connectionStatuses(_ host: HostFacts) -> [ConnectionStatus] {
        connections.map { status(of: $0, host) }
    }

    /// Nil where there is no such tunnel.
    package func tunnelStatus(named name: String, _ host: HostFacts) -> TunnelStatus? {
        index(ofTunnel: name).flatMap { status(of: $0.tunnel, in: connections[$0.connection], host) }
    }

    package var drops: [DropReason: UInt64] { context.device.drops }

    /// In another namespace it is not ours to know.
    package var isInterfaceUp: Bool { context.interface.isUp || !context.interface.isHere }

    private func status(of connection: Connection, _ host: HostFacts) -> ConnectionStatus {
        let tunnels = connection.tunnels.indices.compactMap { self.status(of: $0, in: connection, host) }
        let states = Set(tunnels.map(\.state))
        let isSomeAnswering = connection.tunnels.contains { $0.health.liveness == .answering }
        let state: ConnectionStatus.State =
            if !isInterfaceUp || !connection.selection.isUsable {
                .down
            } else if isSomeAnswering {
                .up
            } else if !states.isDisjoint(with: [.down, .disabled]) {
                .down
            } else {
                .idle
            }
        let spec = connection.spec
        var status = ConnectionStatus(
            name: spec.name, state: state, routes: spec.prefixes.map(\.description),
            policy: spec.policy.rawValue, tunnels: tunnels)
        if context.settings.installsRoutes { status.onDown = spec.onDown.rawValue }
        let leftOut = spec.prefixes.compactMap { prefix in
            self.leftOut[prefix].map { "\(prefix) is left out: \($0.words(holding: prefix))" }
        }
        let notices =
            [connection.silentTargetsSource.map(Connection.silence)].compactMap(\.self) + leftOut
            + host.foreignNotices(spec.name) + connection.tunnels.compactMap(\.sharedKeyWords)
        if !notices.isEmpty { status.notices = notices }
        status.metric = spec.metric
        status.rto = spec.recoveryTimeObjective?.seconds
        status.isUsable = connection.selection.isUsable
        status.activeTunnels = tunnels.filter { $0.isActive == true }.map(\.name)
        status.since = context.seconds(since: connection.since)
        status.flaps = connection.failures
        return status
    }

    private func status(
        of index: Int, in connection: Connection, _ host: HostFacts
    ) -> TunnelStatus? {
        let tunnel = connection.tunnels[index]
        guard let status = context.device.status(of: tunnel.peer) else { return nil }
        var facts = connection.facts(of: index, context)
        facts.returnProblem = facts.failure == .noReply ? host.returnProblem(tunnel.peer) : nil
        facts.stubHint = stubHint
        facts.stranger = latestStranger
        let diagnosis = facts.isFine ? nil : Diagnosis(facts)
        let names = tunnel.spec.endpoints.filter { if case .name = $0 { true } else { false } }
        var answer = TunnelStatus(
            name: tunnel.name, connection: connection.name, publicKey: tunnel.spec.publicKey.base64,
            hasPresharedKey: !tunnel.spec.presharedKey.isNone, cipher: tunnel.spec.cipher.rawValue,
            state: tunnel.health.state, reason: diagnosis?.reason, hint: diagnosis?.hint,
            endpoint: status.underlay?.endpoint.description, configuredEndpoint: names.first?.description,
            lastHandshake: status.lastHandshake.map { unixNanoseconds(of: $0) / 1_000_000_000 },
            lastHandshakeAge: status.lastHandshake.map { context.seconds(since: $0) },
            rxBytes: status.receivedBytes, txBytes: status.transmittedBytes,
            rxPackets: status.receivedPackets, txPackets: status.transmittedPackets,
            lastReceivedAge: facts.silent?.seconds, persistentKeepalive: tunnel.spec.persistentKeepalive,
            stagedPackets: status.stagedPackets)
        answer.since = facts.inState.seconds
        answer.reasonCode = tunnel.health.reason.name
        answer.priority = tunnel.spec.priority
        answer.weight = tunnel.spec.weight
        answer.underlayDevice = tunnel.spec.binding.device
        answer.insideLocal = tunnel.spec.inside?.local.description
        answer.insideRemote = tunnel.spec.inside?.remote.description
        // What is chosen while nothing works carries nothing: its connection's routes lead elsewhere, or packets wait.
        answer.isActive =
            connection.selection.isUsable && tunnel.health.hasSession
            && connection.activeTunnels.contains(tunnel.name)
        answer.isPreferred = connection.preferred == tunnel.name
        answer.isProbed = tunnel.health.isProbed
        if !tunnel.health.isProbed {
            answer.notProbed = tunnel.spec.inside == nil ? "no inside addresses" : "health is off"
        } else {
            // While nothing is answered, the figures are of another time.
            if tunnel.health.liveness == .answering { answer.windows = windows(of: tunnel.health) }
            answer.pathMTU = tunnel.pathMTU?.found
            if answer.pathMTU == nil { answer.assumedMTU = tunnel.pathMTU?.innerMTU }
            answer.holdDown = facts.holdDownLeft?.seconds
        }
        return answer
    }

    private func windows(of health: TunnelHealth) -> [WindowStatus] {
        let statistics = health.statistics(now: context.now)
        return [
            Self.window(1, statistics.second), Self.window(10, statistics.tenSeconds),
            Self.window(60, statistics.minute),
        ]
    }

    private static func window(_ seconds: Int, _ window: ProbeStatistics.Window) -> WindowStatus {
        WindowStatus(
            seconds: seconds, roundTrip: window.roundTrip?.seconds, jitter: window.jitter?.seconds,
            loss: window.loss)
    }

    // MARK: Routes

    package func routeList(_ host: HostFacts) -> RouteList {
        RouteList(
            routes: spec.connections.flatMap { connection in
                connection.routes.map { entry(of: $0, via: connection, host) }
            } + guardedPrefixes.map { guardedEntry(of: $0) })
    }

    /// A learned prefix that nobody announces now.
    package func guardedEntry(of prefix: IPPrefix) -> RouteEntry {
        var entry = RouteEntry(
            prefix: prefix.description, connection: guarded.connection(of: prefix) ?? "", origin: .learned,
            installed: false,
            reason: "guarded, as nobody announces it now: 'vgwctl route del \(prefix)' lets go of it")
        entry.isGuarded = true
        return entry
    }

    package func entry(
        of route: ConnectionSpec.Route, via connection: ConnectionSpec, _ host: HostFacts
    ) -> RouteEntry {
        var reason: String?
        if !context.interface.isHere {
            reason = "the interface is in another network namespace"
        } else if context.settings.installsRoutes, !context.interface.isUp {
            reason = "the interface is down"
        } else if let local = leftOut[route.prefix] {
            reason = local.words(holding: route.prefix)
        } else if let problem = host.routeProblem(route.prefix) {
            reason = problem
        } else if !isUsable(connection.name) {
            reason = "the connection is down"
        }
        let isInstalled = route.origin == .learned || context.settings.installsRoutes
        var entry = RouteEntry(
            prefix: route.prefix.description, connection: connection.name,
            origin: RouteEntry.Origin(route.origin),
            installed: isInstalled && reason == nil && !route.prefix.isMulticast,
            reason: reason ?? (route.prefix.isMulticast ? "multicast has no kernel route" : nil))
        entry.isSaved = route.origin == .kept
        entry.metric = connection.metric ?? route.metric
        return entry
    }

    private func isUsable(_ name: String) -> Bool {
        connections.first { $0.name == name }?.selection.isUsable ?? true
    }

    // MARK: The way of a packet

    /// `kernel` and `match` are the kernel's word on the packet, nil where it cannot be asked; `way` is that of a named
    /// tunnel's outer packets to its endpoint.
    package func explain(
        _ packet: RouteTrace.Packet, interface: String, kernel: RouteTrace.Way?, match: String?,
        way: (_ tunnel: String, Endpoint) -> RouteTrace.Way?
    ) -> RouteExplanation {
        let trace = RouteTrace(
            of: packet, connections: connections.map { traced($0) }, interface: interface, kernel: kernel,
            match: match,
            leftOut: leftOut.first { $0.key.contains(packet.destination) }.map {
                "\($0.key) is left out: \($0.value.words(holding: $0.key))"
            }, way: way)
        var answer = RouteExplanation(trace)
        let held = guardedPrefixes.filter { $0.contains(packet.destination) }.max { $0.length < $1.length }
        if answer.verdict == .unreachable, let held, held.length > trace.prefix?.length ?? -1 {
            answer.steps.append(
                "\(held) was learned before, and nobody announces it now: it is guarded, so that nothing sent there "
                    + "leaves in clear, until it is announced again or 'vgwctl route del \(held)' lets go of it."
            )
        }
        return answer
    }

    private func traced(_ connection: Connection) -> RouteTrace.Connection {
        let active = Set(connection.activeTunnels)
        return RouteTrace.Connection(
            name: connection.name, candidate: candidate(connection),
            reason: connection.selection.isUsable ? nil : "no tunnel of it is usable",
            isBalanced: connection.spec.policy == .balance,
            tunnels: connection.tunnels.map { tunnel in
                RouteTrace.Tunnel(
                    name: tunnel.name, state: tunnel.health.state.rawValue,
                    reason: tunnel.health.state == .up ? nil : tunnel.health.reason.words,
                    isActive: active.contains(tunnel.name),
                    endpoint: context.device.path(of: tunnel.peer)?.underlay?.endpoint)
            })
    }
}

extension RouteEntry.Origin {
    fileprivate init(_ origin: ConnectionSpec.Route.Origin) {
        self =
            switch origin {
            case .configured: .configured
            case .runtime, .kept, .wg: .runtime
            case .learned: .learned
            }
    }
}

extension RouteExplanation {
    fileprivate init(_ explanation: RouteTrace) {
        self.init(
            destination: explanation.destination.description, verdict: .unreachable, steps: explanation.steps)
        switch explanation.verdict {
        case .tunnel(let connection, let tunnel, let endpoint, let interface, let source):
            verdict = .tunnel
            self.connection = connection
            self.tunnel = tunnel
            self.endpoint = endpoint.description
            self.interface = interface
            self.source = source?.description
        case .spread(let connection, let tunnels):
            verdict = .tunnel
            self.connection = connection
            tunnel = tunnels.joined(separator: ", ")
        case .dropped, .unreachable: break
        case .elsewhere(let interface):
            verdict = .elsewhere
            self.interface = interface
        }
    }
}
