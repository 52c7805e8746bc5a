internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What the control API asks for.
extension ControlLoop {
    func handle(_ command: ControlCommand) {
        switch command {
        case .status(let answer): answer(.success(gatewayStatus()))
        case .routes(let answer): answer(.success(routeList()))
        case .addRoute(let request, let answer):
            answer(Result { () throws(APIError) in try addRoute(request) })
        case .removeRoute(let prefix, let save, let answer):
            answer(Result { () throws(APIError) in try removeRoute(prefix, save: save) })
        case .explainRoute(let destination, let answer):
            answer(Result { () throws(APIError) in try explainRoute(to: parseAddress(destination)) })
        case .tunnel(let order, let name, let answer):
            answer(Result { () throws(APIError) in try self.order(order, tunnel: name) })
        case .drill(let connection, let request, let answer): startDrill(connection, request, answer)
        case .events(let since, let follow, let answer):
            answer(Result { () throws(APIError) in try eventPage(since: since, follow: follow) })
        case .serverIsReady: serverIsReady()
        case .serverHasFailed(let reason): serverHasFailed(reason)
        case .resolved(let key, let endpoint, let problem): nameWasResolved(key, endpoint, problem: problem)
        case .hookHasFailed(let failure): hookHasFailed(failure)
        }
    }

    private func startDrill(
        _ connection: String, _ request: DrillRequest, _ answer: @escaping ControlCommand.Answer<DrillReport>
    ) {
        guard DrillRequest.durationRange.contains(request.duration ?? DrillRequest.defaultDuration) else {
            return answer(
                .failure(
                    APIError(
                        code: .badRequest, message: "that is no duration of a drill",
                        hint: "a drill takes 1 to 300 seconds: {\"duration\": 10}")))
        }
        drill(connection, request, answer: answer)
    }

    /// Who drives `wg` can do without it.
    private func serverHasFailed(_ reason: String) {
        if settings.managesLink {
            ending = ending ?? .failed("the control socket does not work: \(reason)")
        } else {
            log.warning("vgwctl cannot be used", metadata: ["error": "\(reason)"])
            serverIsReady()
        }
    }

    private func routeList() -> RouteList {
        RouteList(
            routes: state.connections.flatMap { connection in
                connection.routes.map { entry($0, connection.name) }
            })
    }

    private func entry(_ route: Connection.Route, _ connection: String) -> RouteEntry {
        var reason: String?
        if !isTunHere {
            reason = "the interface is in another network namespace"
        } else if keeper.installsRoutes, !isLinkUp {
            reason = "the interface is down"
        } else if let failure = keeper.failures[route.prefix] {
            reason = Self.words(failure)
        }
        return RouteEntry(
            prefix: route.prefix.description, connection: connection,
            origin: route.origin == .configured ? .configured : .runtime,
            installed: keeper.installsRoutes && reason == nil, reason: reason)
    }

    private static func words(_ failure: SystemError) -> String {
        failure.code == 17  // EEXIST
            ? "somebody else's route to the same prefix is in the table" : "\(failure)"
    }

    private func addRoute(_ request: RouteRequest) throws(APIError) -> RouteEntry {
        let prefix = try parse(request.prefix)
        guard state.connection(named: request.connection) != nil else {
            throw APIError(
                code: .notFound, message: "there is no connection \(request.connection)",
                hint: "'vgwctl status' lists them")
        }
        if let owner = state.owner(of: prefix) {
            throw APIError(
                code: .conflict, message: "\(prefix) goes via \(owner) already",
                hint: owner == request.connection ? nil : "delete it there first")
        }
        try check(prefix)
        let before = state
        let route = Connection.Route(prefix, origin: .runtime)
        state.give(route, to: request.connection)
        routesChanged()
        if let failure = keeper.failures[prefix] {
            state = before
            routesChanged()
            throw APIError(code: .failed, message: "\(prefix) cannot be installed: \(Self.words(failure))")
        }
        if request.save == true {
            try keepRoutes(orBack: before) { () throws(APIError) in
                try saveRoutes(adding: route, of: request.connection)
            }
        }
        raise(
            .routeAdded, connection: request.connection, reason: "operator",
            "\(prefix) goes via \(request.connection) now", details: ["prefix": "\(prefix)"])
        return entry(route, request.connection)
    }

    /// As the configuration file is checked.
    private func check(_ prefix: IPPrefix) throws(APIError) {
        guard !prefix.isMulticast else {
            throw APIError(
                code: .badRequest, message: "\(prefix) is multicast",
                hint: "route unicast prefixes: a tunnel carries no multicast")
        }
        guard keeper.leadsOuterPackets else { return }
        for tunnel in state.connections.flatMap(\.tunnels) {
            var addresses: [IPAddress] = []
            if case .address(let endpoint) = tunnel.endpoint { addresses.append(endpoint.address) }
            // It may have moved, or have been given by name.
            if let path = device.peerID(for: tunnel.publicKey).flatMap({ device.path(of: $0) }),
                let underlay = path.underlay
            {
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

    private func removeRoute(_ text: String, save: Bool) throws(APIError) -> RouteEntry {
        let prefix = try parse(text)
        guard let owner = state.owner(of: prefix),
            let route = state.connection(named: owner)?.routes.first(where: { $0.prefix == prefix })
        else { throw APIError(code: .notFound, message: "there is no route to \(prefix)") }
        guard route.origin == .runtime else {
            throw APIError(
                code: .conflict, message: "\(prefix) via \(owner) is in the configuration file",
                hint: "take it out there and restart vgwd")
        }
        let before = state
        var entry = entry(route, owner)
        state.takeOut(prefix)
        routesChanged()
        if save {
            try keepRoutes(orBack: before) { () throws(APIError) in try saveRoutes(removing: prefix) }
        }
        entry.installed = false
        raise(
            .routeRemoved, connection: owner, reason: "operator", "\(prefix) goes via \(owner) no longer",
            details: ["prefix": "\(prefix)"])
        return entry
    }

    /// What cannot be kept is refused as a whole.
    private func keepRoutes(
        orBack before: GatewayState, _ save: () throws(APIError) -> Void
    ) throws(APIError) {
        do throws(APIError) {
            try save()
        } catch {
            state = before
            routesChanged()
            throw error
        }
    }

    private func routesChanged() {
        publishForwarding()
        if isTunHere { keeper.reconcile(kernelPrefixes, now: now) }
    }

    private func parseAddress(_ text: String) throws(APIError) -> IPAddress {
        guard text.utf8.count <= 64, let address = IPAddress(text) else {
            throw APIError(
                code: .badRequest, message: "that is no address", hint: "write 10.20.0.10 or 2001:db8:20::10")
        }
        return address
    }

    private func parse(_ text: String) throws(APIError) -> IPPrefix {
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
}
