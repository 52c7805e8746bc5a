package import ControlAPI
package import WireGuard

/// What operators order, and what `wg` does. What is refused has changed nothing.
extension Gateway {
    // MARK: Tunnels

    package mutating func order(
        _ order: TunnelOrder, tunnel name: String, by caller: Caller, now: Instant
    ) throws(APIError) {
        context.now = now
        guard let (index, tunnel) = index(ofTunnel: name) else {
            throw APIError(
                code: .notFound, message: "there is no tunnel \(name)", hint: "'vgwctl status' lists them")
        }
        // What follows from the order at once is told as the operator's doing.
        context.order = (connections[index].name, caller)
        defer { context.order = nil }
        update(connection: index) { connection, context in
            switch order {
            case .down, .up:
                // Somebody has other plans with what a drill is about.
                connection.noteInDrill(.abort, &context)
                connection.setEnabled(order == .up, tunnel, &context)
            case .prefer: connection.prefer(name, by: caller, &context)
            case .unprefer:
                if connection.preferred == name { connection.prefer(nil, by: caller, &context) }
            }
        }
        settle()
    }

    // MARK: Drills

    /// Its report comes as `Output.drillEnded`.
    package mutating func startDrill(
        _ name: String, _ request: DrillRequest, by caller: Caller, now: Instant
    ) throws(APIError) {
        context.now = now
        guard let index = connections.firstIndex(where: { $0.name == name }) else {
            throw APIError(
                code: .notFound, message: "there is no connection \(name)",
                hint: "'vgwctl status' lists them")
        }
        var problem: APIError?
        update(connection: index) { connection, context in
            do throws(APIError) {
                try connection.startDrill(request, by: caller, &context)
            } catch {
                problem = error
            }
        }
        if let problem { throw problem }
    }

    // MARK: Routes

    /// The route holds once the kernel has taken it: else give `restore` the spec of before.
    package mutating func addRoute(_ request: RouteRequest, now: Instant) throws(APIError)
        -> ConnectionSpec.Route
    {
        context.now = now
        let prefix = try Self.prefix(request.prefix)
        guard let connection = spec.connection(named: request.connection) else {
            throw APIError(
                code: .notFound, message: "there is no connection \(request.connection)",
                hint: "'vgwctl status' lists them")
        }
        let owners = spec.owners(of: prefix).compactMap { spec.connection(named: $0) }
        if let owner = owners.first(where: { $0.metric == connection.metric || $0.name == connection.name }) {
            throw APIError(
                code: .conflict, message: "\(prefix) goes via \(owner.name) already",
                hint: owner.name == connection.name
                    ? nil : "delete it there first, or give one of the two connections a metric")
        }
        guard request.save != true || context.settings.managesLink else {
            throw APIError(
                code: .conflict, message: "routes of an interface that wg sets up are not kept",
                hint: "keep them in the file that wg reads")
        }
        try check(prefix)
        if context.settings.managesLink, !connection.isExclusive,
            let local = localNetworks.inUse(holding: prefix)
        {
            throw APIError(
                code: .conflict,
                message: "\(prefix) cannot go via \(connection.name): \(local.words(holding: prefix))",
                hint: "where both sites need it, let both translate theirs by nat")
        }
        let route = ConnectionSpec.Route(prefix, origin: request.save == true ? .kept : .runtime)
        var next = spec
        next.add(route, to: connection.name)
        adopt(next)
        return route
    }

    /// As the configuration file is checked.
    private func check(_ prefix: IPPrefix) throws(APIError) {
        guard context.settings.leadsOuterPackets else { return }
        for tunnel in connections.lazy.flatMap(\.tunnels) {
            var addresses = tunnel.endpoints.candidates.map(\.address)
            // It may have moved.
            if let underlay = context.device.path(of: tunnel.peer)?.underlay {
                addresses.append(underlay.endpoint.address)
            }
            guard let covered = addresses.first(where: { prefix.contains($0) }) else { continue }
            throw APIError(
                code: .conflict,
                message: "\(prefix) covers \(covered) of tunnel \(tunnel.name), which would run into itself",
                hint: "leave firewall-mark and table out of [gateway], so that outer packets take a table "
                    + "without that route")
        }
    }

    /// Routes that were kept in earlier runs, as far as there still are such connections: after `start`. Returns those that
    /// are not used, with the reasons.
    package mutating func restore(
        kept routes: [(prefix: IPPrefix, connection: String)]
    ) -> [(prefix: IPPrefix, connection: String, problem: String)] {
        var next = spec
        var unused: [(prefix: IPPrefix, connection: String, problem: String)] = []
        for route in routes {
            let connection = next.connection(named: route.connection)
            let rival = next.owners(of: route.prefix).first {
                next.connection(named: $0)?.metric == connection?.metric
            }
            var problem = connection == nil ? "there is no such connection" : rival.map { "\($0) has it now" }
            do throws(APIError) { try check(route.prefix) } catch { problem = error.message }
            if let problem {
                unused.append((route.prefix, route.connection, problem))
            } else {
                next.add(ConnectionSpec.Route(route.prefix, origin: .kept), to: route.connection)
            }
        }
        adopt(next)
        return unused
    }

    package struct RemovedRoute: Sendable {
        package let route: ConnectionSpec.Route
        package let connection: ConnectionSpec
    }

    /// The route that operators can take out, and whose it is. Nil where no connection has the prefix.
    package func removableRoute(_ prefix: IPPrefix, save: Bool) throws(APIError) -> RemovedRoute? {
        let owners = spec.owners(of: prefix).compactMap { spec.connection(named: $0) }
        guard let first = owners.first else { return nil }
        let found = owners.lazy.compactMap { owner in
            owner.routes[prefix].flatMap { route in
                [.runtime, .kept, .wg].contains(route.origin)
                    ? RemovedRoute(route: route, connection: owner) : nil
            }
        }.first
        guard let found else {
            let isLearned = first.routes[prefix]?.origin != .configured
            throw APIError(
                code: .conflict,
                message: isLearned
                    ? "\(prefix) via \(first.name) is a routing daemon's"
                    : "\(prefix) via \(first.name) is in the configuration file",
                hint: isLearned
                    ? "let its import filter refuse the prefix, then say this again to let go of the guard"
                    : "take it out there and restart vgwd")
        }
        if found.route.origin == .kept, !save {
            throw APIError(
                code: .conflict,
                message:
                    "\(prefix) via \(found.connection.name) was saved, and would be back after a restart",
                hint: "vgwctl route del \(prefix) --save")
        }
        return found
    }

    package mutating func remove(_ removed: RemovedRoute, now: Instant) {
        context.now = now
        var next = spec
        next.takeOut(removed.route.prefix, of: removed.connection.name)
        adopt(next)
    }

    /// Lets go of a prefix that nobody announces now: an operator's word. Returns false if it is not guarded.
    package mutating func release(_ prefix: IPPrefix, by caller: Caller, now: Instant) -> Bool {
        guard guarded.holds(prefix) else { return false }
        context.now = now
        let name = guarded.connection(of: prefix)
        guarded.release(prefix)
        context.areRoutesStale = true
        context.raise(
            .routeRemoved, connection: name, reason: "operator",
            "\(prefix) is guarded no longer, by \(caller.words): any route takes it",
            details: caller.details(adding: ["prefix": "\(prefix)"]))
        return true
    }

    /// Goes back to an earlier spec that differs in routes only.
    package mutating func restore(_ before: GatewaySpec) { adopt(before) }

    package static func prefix(_ text: String) throws(APIError) -> IPPrefix {
        guard text.utf8.count <= 64, let prefix = IPPrefix(text) else {
            throw APIError(
                code: .badRequest, message: "that is no prefix",
                hint: "write 10.20.0.0/16 or 2001:db8:20::/48")
        }
        guard prefix == prefix.network else {
            throw APIError(
                code: .badRequest, message: "\(prefix) has host bits", hint: "write \(prefix.network)")
        }
        return prefix
    }

    /// An event of the shell's, among the gateway's own.
    package mutating func raise(
        _ kind: GatewayEvent.Kind, connection: String? = nil, tunnel: String? = nil, reason: String? = nil,
        _ message: String, details: [String: String] = [:], level: EventLevel = .info, now: Instant
    ) {
        context.now = now
        context.raise(
            kind, connection: connection, tunnel: tunnel, reason: reason, message, details: details,
            level: level)
    }

    // MARK: wg

    /// Brings device and connections to what `next` says, by the steps that made it of the spec.
    package mutating func apply(_ next: GatewaySpec, _ steps: [GatewaySpec.Step], now: Instant) {
        context.now = now
        context.firewallMark = next.firewallMark
        adopt(next)
        var asked: [PublicKey] = []
        for step in steps {
            switch step {
            case .privateKey(let key): context.device.setPrivateKey(key, now: now)
            case .removePeer(let key): removeTunnel(key)
            case .addPeer(let tunnel): addTunnel(tunnel)
            case .presharedKey(let key, let secret):
                if let peer = context.device.peerID(for: key) {
                    context.device.setPresharedKey(secret, for: peer)
                }
            case .endpoint(let key, let endpoint):
                guard let peer = context.device.peerID(for: key) else { continue }
                update(peer) { $0.setEndpoint($1, endpoint, &$2) }
                asked.append(key)
            case .persistentKeepalive(let key, let seconds):
                if let peer = context.device.peerID(for: key) {
                    context.device.setPersistentKeepalive(seconds, for: peer, now: now)
                }
            }
        }
        for key in asked {
            guard let peer = context.device.peerID(for: key), context.device.status(of: peer)?.state == .idle
            else { continue }
            update(peer) { $0.askAhead($1, &$2) }
        }
        settle()
    }

    private mutating func removeTunnel(_ key: PublicKey) {
        guard let peer = context.device.peerID(for: key) else { return }
        context.device.removePeer(peer)
        refusedSources.forget(peer)
        var emptied: Int?
        for index in connections.indices {
            guard let tunnel = connections[index].tunnels.firstIndex(where: { $0.peer == peer }) else {
                continue
            }
            update(connection: index) { connection, _ in
                connection.tunnels.remove(at: tunnel)
                connection.isUndecided = true
            }
            if spec.connection(named: connections[index].name) == nil { emptied = index }
        }
        if let emptied { remove(connection: emptied) } else { index() }
    }

    private mutating func addTunnel(_ tunnel: TunnelSpec) {
        guard let connection = spec.connection(ofTunnel: tunnel.name) else { return }
        guard let index = connections.firstIndex(where: { $0.name == connection.name }) else {
            return add(connection)
        }
        update(connection: index) { $0.add(tunnel, &$1) }
        self.index()
    }

    /// The one way to change the spec: connections follow it.
    mutating func adopt(_ next: GatewaySpec) {
        spec = next
        context.areRoutesStale = true
        for index in connections.indices {
            guard let wanted = next.connection(named: connections[index].name) else { continue }
            update(connection: index) { connection, _ in
                connection.spec = wanted
                for tunnel in connection.tunnels.indices {
                    guard
                        let spec = wanted.tunnels.first(where: { $0.name == connection.tunnels[tunnel].name })
                    else { continue }
                    connection.tunnels[tunnel].spec = spec
                }
            }
        }
    }

    package func wgReport() -> [WgPeerReport] {
        connections.flatMap { connection in
            connection.tunnels.enumerated().compactMap { index, tunnel -> WgPeerReport? in
                // Its language has one private key an interface.
                guard tunnel.spec.privateKey == nil, let status = context.device.status(of: tunnel.peer)
                else { return nil }
                return WgPeerReport(
                    publicKey: tunnel.spec.publicKey, presharedKey: tunnel.spec.presharedKey,
                    endpoint: status.underlay?.endpoint,
                    lastHandshake: status.lastHandshake.map { unixNanoseconds(of: $0) } ?? 0,
                    transmittedBytes: status.transmittedBytes, receivedBytes: status.receivedBytes,
                    persistentKeepalive: tunnel.spec.persistentKeepalive,
                    // A prefix belongs to one peer there.
                    allowedIPs: index == 0 ? connection.spec.prefixes : [])
            }
        }
    }

    /// After a step of the wall clock an age by it is right all the same.
    package func unixNanoseconds(of instant: Instant) -> Int64 {
        WallClock.unixNanoseconds(of: instant, realtimeOffset: context.device.realtimeOffset)
    }
}
