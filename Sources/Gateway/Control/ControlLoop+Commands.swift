internal import ControlAPI
internal import Glibc
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What the control API asks for.
extension ControlLoop {
    func handle(_ command: ControlCommand) {
        switch command {
        case .status(let answer): answer(.success(gatewayStatus()))
        case .routes(let answer): answer(.success(routeList()))
        case .addRoute(let request, let caller, let answer):
            answer(Result { () throws(APIError) in try addRoute(request, by: caller) })
        case .removeRoute(let prefix, let save, let caller, let answer):
            answer(Result { () throws(APIError) in try removeRoute(prefix, save: save, by: caller) })
        case .explainRoute(let question, let answer):
            answer(Result { () throws(APIError) in try explainRoute(question) })
        case .tunnel(let order, let name, let caller, let answer):
            answer(Result { () throws(APIError) in try self.order(order, tunnel: name, by: caller) })
        case .drill(let connection, let request, let waiter, let caller, let answer):
            startDrill(connection, request, waiter, by: caller, answer)
        case .drillIsAbandoned: endAbandonedDrills()
        case .events(let since, let follow, let answer):
            answer(Result { () throws(APIError) in try eventPage(since: since, follow: follow) })
        case .serverIsReady: serverIsReady()
        case .serverHasFailed(let reason, let exitStatus): serverHasFailed(reason, exitStatus)
        case .resolved(let peer, let host, let port, let answer):
            nameWasResolved(host, port: port, answer, for: peer)
        case .hookHasFailed(let failure): hookHasFailed(failure)
        case .forwardingWasSurveyed(let problems): forwardingWasSurveyed(problems)
        }
    }

    private func startDrill(
        _ connection: String, _ request: DrillRequest, _ waiter: DrillWaiter, by caller: Caller,
        _ answer: @escaping ControlCommand.Answer<DrillReport>
    ) {
        guard DrillRequest.durationRange.contains(request.duration ?? DrillRequest.defaultDuration) else {
            return answer(
                .failure(
                    APIError(
                        code: .badRequest, message: "that is no duration of a drill",
                        hint: "a drill takes 1 to 300 seconds: {\"duration\": 10}")))
        }
        drill(connection, request, waiter, by: caller, answer: answer)
    }

    private func routeList() -> RouteList {
        RouteList(
            routes: state.connections.flatMap { connection in
                connection.routes.map { entry($0, connection) }
            } + guardedPrefixes.map { guardedEntry($0) })
    }

    /// A learned prefix that nobody announces now.
    private func guardedEntry(_ prefix: IPPrefix) -> RouteEntry {
        var entry = RouteEntry(
            prefix: prefix.description, connection: guarded.connection(of: prefix) ?? "", origin: .learned,
            installed: false,
            reason: "guarded, as nobody announces it now: 'vgwctl route del \(prefix)' lets go of it")
        entry.isGuarded = true
        return entry
    }

    private func entry(_ route: Connection.Route, _ connection: Connection) -> RouteEntry {
        var reason: String?
        if !isTunHere {
            reason = "the interface is in another network namespace"
        } else if keeper.installsRoutes, !isLinkUp {
            reason = "the interface is down"
        } else if let local = leftOut[route.prefix] {
            reason = Self.words(local, route.prefix)
        } else if let failure = keeper.failures[route.prefix] {
            reason = words(failure, of: route.prefix.family)
        } else if !isUsable(connection) {
            reason = "the connection is down"
        }
        let isLearned = route.origin == .learned
        var entry = RouteEntry(
            prefix: route.prefix.description, connection: connection.name, origin: Self.origin(of: route),
            installed: (isLearned || keeper.installsRoutes) && reason == nil && !route.prefix.isMulticast,
            reason: reason ?? (route.prefix.isMulticast ? "multicast has no kernel route" : nil))
        entry.isSaved = route.origin == .kept
        entry.metric = connection.metric ?? route.metric
        return entry
    }

    private static func origin(of route: Connection.Route) -> RouteEntry.Origin {
        switch route.origin {
        case .configured: .configured
        case .runtime, .kept, .wg: .runtime
        case .learned: .learned
        }
    }

    /// Why the kernel has not an address or a route of ours.
    func words(_ failure: SystemError, of family: IPAddress.Family) -> String {
        switch failure.code {
        case EEXIST:
            "somebody else's route to the same prefix is in the table"
        case EACCES where family == .v6:
            "IPv6 is off on the interface: 'sysctl net.ipv6.conf.\(tun.name).disable_ipv6=0' turns it on"
        case EAFNOSUPPORT where family == .v6:
            "this kernel has no IPv6"
        default: "\(failure)"
        }
    }

    private func addRoute(_ request: RouteRequest, by caller: Caller) throws(APIError) -> RouteEntry {
        let prefix = try parse(request.prefix)
        guard let connection = state.connection(named: request.connection) else {
            throw APIError(
                code: .notFound, message: "there is no connection \(request.connection)",
                hint: "'vgwctl status' lists them")
        }
        let owners = state.owners(of: prefix).compactMap { state.connection(named: $0) }
        if let owner = owners.first(where: { $0.metric == connection.metric || $0.name == connection.name }) {
            throw APIError(
                code: .conflict, message: "\(prefix) goes via \(owner.name) already",
                hint: owner.name == connection.name
                    ? nil : "delete it there first, or give one of the two connections a metric")
        }
        guard request.save != true || settings.managesLink else {
            throw APIError(
                code: .conflict, message: "routes of an interface that wg sets up are not kept",
                hint: "keep them in the file that wg reads")
        }
        try check(prefix)
        if settings.managesLink, !connection.isExclusive, let local = localNetworks.inUse(holding: prefix) {
            throw APIError(
                code: .conflict,
                message: "\(prefix) cannot go via \(connection.name): \(Self.words(local, prefix))",
                hint: "where both sites need it, let both translate theirs by nat")
        }
        let before = state
        let route = Connection.Route(prefix, origin: request.save == true ? .kept : .runtime)
        state.add(route, to: connection.name)
        routesChanged()
        if let failure = keeper.failures[prefix] {
            state = before
            routesChanged()
            throw APIError(
                code: .failed, message: "\(prefix) cannot be installed: \(words(failure, of: prefix.family))")
        }
        if request.save == true {
            try keepRoutes(orBack: before) { () throws(SystemError) in
                try kept.keep(KeptRoutes.Route(prefix, connection: connection.name))
            }
        }
        raise(
            .routeAdded, connection: connection.name, reason: "operator",
            "\(prefix) goes via \(connection.name) now, by \(caller.words)",
            details: caller.details(adding: ["prefix": "\(prefix)"]))
        return entry(route, connection)
    }

    /// As the configuration file is checked.
    func check(_ prefix: IPPrefix) throws(APIError) {
        guard keeper.leadsOuterPackets else { return }
        for tunnel in state.connections.flatMap(\.tunnels) {
            guard let peer = tunnels.peer(named: tunnel.name) else { continue }
            var addresses = tunnels[peer]?.endpoints.candidates.map(\.address) ?? []
            // It may have moved.
            if let underlay = device.path(of: peer)?.underlay { addresses.append(underlay.endpoint.address) }
            guard let covered = addresses.first(where: { prefix.contains($0) }) else { continue }
            throw APIError(
                code: .conflict,
                message: "\(prefix) covers \(covered) of tunnel \(tunnel.name), which would run into itself",
                hint: "leave firewall-mark and table out of [gateway], so that outer packets take a table "
                    + "without that route")
        }
    }

    private func removeRoute(_ text: String, save: Bool, by caller: Caller) throws(APIError) -> RouteEntry {
        let prefix = try parse(text)
        let owners = state.owners(of: prefix).compactMap { state.connection(named: $0) }
        guard let first = owners.first else {
            if save, let orphan = kept.routes.first(where: { $0.prefix == prefix }) {
                return try forget(orphan, by: caller)
            }
            if guarded.holds(prefix) {
                let entry = guardedEntry(prefix)
                release(prefix, by: caller)
                return entry
            }
            throw APIError(code: .notFound, message: "there is no route to \(prefix)")
        }
        let found = owners.lazy.compactMap { owner in
            owner.routes[prefix].flatMap { [.runtime, .kept, .wg].contains($0.origin) ? (owner, $0) : nil }
        }.first
        guard let (owner, route) = found else {
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
        if route.origin == .kept, !save {
            throw APIError(
                code: .conflict,
                message: "\(prefix) via \(owner.name) was saved, and would be back after a restart",
                hint: "vgwctl route del \(prefix) --save")
        }
        let before = state
        var entry = entry(route, owner)
        state.takeOut(prefix, of: owner.name)
        routesChanged()
        if route.origin == .kept {
            try keepRoutes(orBack: before) { () throws(SystemError) in
                try kept.forget(prefix, connection: owner.name)
            }
        }
        entry.installed = false
        raise(
            .routeRemoved, connection: owner.name, reason: "operator",
            "\(prefix) goes via \(owner.name) no longer, by \(caller.words)",
            details: caller.details(adding: ["prefix": "\(prefix)"]))
        return entry
    }

    /// One that was kept for a connection that there is no more.
    private func forget(_ route: KeptRoutes.Route, by caller: Caller) throws(APIError) -> RouteEntry {
        try keepRoutes(orBack: state) { () throws(SystemError) in
            try kept.forget(route.prefix, connection: route.connection)
        }
        raise(
            .routeRemoved, connection: route.connection, reason: "operator",
            "\(route.prefix) is no longer kept for \(route.connection), by \(caller.words)",
            details: caller.details(adding: ["prefix": "\(route.prefix)"]))
        return RouteEntry(
            prefix: route.prefix.description, connection: route.connection, origin: .runtime,
            installed: false, reason: "there is no such connection")
    }

    /// What cannot be kept is refused as a whole.
    private func keepRoutes(
        orBack before: GatewayState, _ keep: () throws(SystemError) -> Void
    ) throws(APIError) {
        do throws(SystemError) {
            try keep()
        } catch {
            state = before
            routesChanged()
            throw APIError(
                code: .failed, message: "the route cannot be kept: \(error)",
                hint: "without --save it holds until vgwd ends")
        }
    }

    private func routesChanged() {
        publishForwarding()
        reconcileRoutes()
    }

    func parseAddress(_ text: String) throws(APIError) -> IPAddress {
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
