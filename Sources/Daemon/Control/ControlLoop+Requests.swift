internal import ControlAPI
internal import DataPlane
internal import GatewayCore
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What the control API and the `wg` program ask for.
extension ControlLoop {
    func handle(_ command: ControlCommand) {
        switch command {
        case .status(let answer): answer(.success(gatewayStatus()))
        case .routes(let answer): answer(.success(gateway.routeList(hostFacts)))
        case .addRoute(let request, let caller, let answer):
            answer(Result { () throws(APIError) in try addRoute(request, by: caller) })
        case .removeRoute(let prefix, let save, let caller, let answer):
            answer(Result { () throws(APIError) in try removeRoute(prefix, save: save, by: caller) })
        case .explainRoute(let question, let answer):
            answer(Result { () throws(APIError) in try host.explain(question, gateway) })
        case .tunnel(let order, let name, let caller, let answer):
            answer(Result { () throws(APIError) in try self.order(order, tunnel: name, by: caller) })
        case .drill(let connection, let request, let waiter, let caller, let answer):
            startDrill(connection, request, waiter, by: caller, answer)
        case .drillIsAbandoned:
            for (name, drill) in drillWaiters where drill.waiter.hasLeft {
                gateway.handle(.drillAbandoned(name), now: now)
            }
        case .events(let since, let follow, let answer):
            answer(Result { () throws(APIError) in try journal.page(since: since, follow: follow) })
        case .serverIsReady: clients.serverIsReady()
        case .serverHasFailed(let reason, let exitStatus):
            let end = clients.serverHasFailed(reason, exitStatus: exitStatus)
            ending = ending ?? end
        case .resolved(let peer, let host, let port, let answer):
            gateway.handle(.resolved(peer, host: host, port: port, answer.forGateway), now: now)
        case .hookHasFailed(let failure):
            // The runner has logged it, with what the program said.
            gateway.raise(
                .hookFailed, connection: failure.event.connection, tunnel: failure.event.tunnel,
                reason: failure.reason,
                "hook \(failure.program) for \(failure.event.kind.rawValue) \(failure.problem)",
                details: ["program": failure.program, "event": failure.event.kind.rawValue], level: .debug,
                now: now)
        case .forwardingWasSurveyed(let problems):
            host.forwardingWasSurveyed(problems, &gateway, now: now)
        }
    }

    // MARK: Tunnels

    private func order(
        _ order: TunnelOrder, tunnel name: String, by caller: Caller
    ) throws(APIError) -> TunnelStatus {
        try gateway.order(order, tunnel: name, by: caller, now: now)
        // The answer shows what came of it.
        obey()
        guard let status = gateway.tunnelStatus(named: name, hostFacts) else {
            throw APIError(code: .notFound, message: "there is no tunnel \(name)")
        }
        return status
    }

    private func startDrill(
        _ connection: String, _ request: DrillRequest, _ waiter: DrillWaiter, by caller: Caller,
        _ answer: @escaping ControlCommand.Answer<DrillReport>
    ) {
        do throws(APIError) {
            guard !waiter.hasLeft else {
                throw APIError(
                    code: .conflict,
                    message: "no drill of \(connection): its client has closed the connection",
                    hint: "a drill lasts no longer than its client: leave the connection open, both ways")
            }
            try gateway.startDrill(connection, request, by: caller, now: now)
            drillWaiters[connection] = (waiter, answer)
        } catch {
            answer(.failure(error))
        }
    }

    // MARK: Routes

    private func addRoute(_ request: RouteRequest, by caller: Caller) throws(APIError) -> RouteEntry {
        let before = gateway.spec
        let route = try gateway.addRoute(request, now: now)
        obey()
        if let problem = host.routeProblem(route.prefix) {
            restore(before)
            throw APIError(code: .failed, message: "\(route.prefix) cannot be installed: \(problem)")
        }
        if route.origin == .kept {
            try keepRoutes(orBack: before) { () throws(SystemError) in
                try kept.keep(KeptRoutes.Route(route.prefix, connection: request.connection))
            }
        }
        tell(
            .routeAdded, request.connection,
            "\(route.prefix) goes via \(request.connection) now, by \(caller.words)", route.prefix, caller)
        guard let connection = gateway.spec.connection(named: request.connection) else {
            throw APIError(code: .notFound, message: "there is no connection \(request.connection)")
        }
        return gateway.entry(of: route, via: connection, hostFacts)
    }

    private func removeRoute(_ text: String, save: Bool, by caller: Caller) throws(APIError) -> RouteEntry {
        let prefix = try Gateway.prefix(text)
        guard let removed = try gateway.removableRoute(prefix, save: save) else {
            if save, let orphan = kept.routes.first(where: { $0.prefix == prefix }) {
                return try forget(orphan, by: caller)
            }
            let entry = gateway.guardedEntry(of: prefix)
            guard gateway.release(prefix, by: caller, now: now) else {
                throw APIError(code: .notFound, message: "there is no route to \(prefix)")
            }
            return entry
        }
        let before = gateway.spec
        var entry = gateway.entry(of: removed.route, via: removed.connection, hostFacts)
        gateway.remove(removed, now: now)
        obey()
        let name = removed.connection.name
        if removed.route.origin == .kept {
            try keepRoutes(orBack: before) { () throws(SystemError) in
                try kept.forget(prefix, connection: name)
            }
        }
        entry.installed = false
        tell(
            .routeRemoved, name, "\(prefix) goes via \(name) no longer, by \(caller.words)", prefix, caller)
        return entry
    }

    /// One that was kept for a connection that there is no more.
    private func forget(_ route: KeptRoutes.Route, by caller: Caller) throws(APIError) -> RouteEntry {
        try keepRoutes(orBack: gateway.spec) { () throws(SystemError) in
            try kept.forget(route.prefix, connection: route.connection)
        }
        tell(
            .routeRemoved, route.connection,
            "\(route.prefix) is no longer kept for \(route.connection), by \(caller.words)", route.prefix,
            caller)
        return RouteEntry(
            prefix: route.prefix.description, connection: route.connection, origin: .runtime,
            installed: false, reason: "there is no such connection")
    }

    private func tell(
        _ kind: GatewayEvent.Kind, _ connection: String, _ message: String, _ prefix: IPPrefix,
        _ caller: Caller
    ) {
        gateway.raise(
            kind, connection: connection, reason: "operator", message,
            details: caller.details(adding: ["prefix": "\(prefix)"]), now: now)
    }

    /// What cannot be kept is refused as a whole.
    private func keepRoutes(
        orBack before: GatewaySpec, _ keep: () throws(SystemError) -> Void
    ) throws(APIError) {
        do throws(SystemError) {
            try keep()
        } catch {
            restore(before)
            throw APIError(
                code: .failed, message: "the route cannot be kept: \(error)",
                hint: "without --save it holds until vgwd ends")
        }
    }

    private func restore(_ before: GatewaySpec) {
        gateway.restore(before)
        obey()
    }
}

extension ControlLoop: WgHandler {
    func wgReport() -> WgDeviceReport {
        WgDeviceReport(
            privateKey: gateway.spec.privateKey, listenPort: underlays.port,
            firewallMark: gateway.spec.firewallMark, peers: gateway.wgReport())
    }

    /// 1. The whole change is made to a copy of the spec.
    /// 2. What the system may refuse, the sockets, comes first: a refusal leaves everything as it was. Around
    ///    it the rules of another mark change, so that at no time a packet finds none.
    /// 3. Then the gateway follows the copy.
    func wgApply(_ set: WgSet, by client: UnixStream.Credentials?) -> Int32 {
        let before = gateway.spec
        var next = before
        guard let steps = next.apply(set) else { return WgRequest.tooBig }
        // `wg setconf` without FwMark asks for none: where rules hang on the mark, that is the configured
        // one.
        if next.firewallMark == 0 { next.firewallMark = settings.spec.firewallMark }
        do throws(SystemError) {
            let isPortAsked = set.listenPort != nil
            try host.changeMark(to: next.firewallMark, gateway.wantedPrefixes) { () throws(SystemError) in
                try moveSockets(to: next, isPortAsked: isPortAsked)
            }
        } catch {
            log.error("wg set refused", metadata: ["error": "\(error)"])
            return error.code
        }
        journal.hooks?.setFirewallMark(next.firewallMark)
        gateway.apply(next, steps, now: now)
        host.openReturnPath(gateway, underlays)
        obey()
        tellOfWg(from: before, to: next, client)
        return 0
    }

    private func tellOfWg(
        from before: GatewaySpec, to after: GatewaySpec, _ client: UnixStream.Credentials?
    ) {
        guard let (changes, isAsInFile) = wgChanges.note(from: before, to: after) else { return }
        // By number: to look into a directory of users may take long, and control has timers to keep.
        let user = client.map { $0.user == 0 ? "root" : "\($0.user)" } ?? "unknown"
        let words = changes.joined(separator: "; ")
        var details = ["changes": words, "user": user]
        details["process"] = client.map { "\($0.process)" }
        gateway.raise(
            .changedByWg, reason: isAsInFile ? "as-in-file" : "not-in-file",
            "wg, run by user \(user), set: \(words)" + (isAsInFile ? "; now it is as in the file" : ""),
            details: details, level: .notice, now: now)
    }

    private func moveSockets(to next: GatewaySpec, isPortAsked: Bool) throws(SystemError) {
        let spec = gateway.spec
        let isPortNew =
            isPortAsked && next.listenPort != spec.listenPort && next.listenPort != underlays.port
        guard isPortNew || next.firewallMark != spec.firewallMark else { return }
        var moved = underlays
        try moved.move(toPort: isPortNew ? next.listenPort : nil, mark: next.firewallMark)
        if isPortNew { try use(moved) } else { underlays = moved }
    }
}
