internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What routing daemons have routed to the far ends of dynamic connections.
extension ControlLoop {
    /// A routing daemon may lay thousands of routes, one by one.
    static let shortestLearnInterval: Duration = .milliseconds(50)
    /// After it has learned, the control thread does something else for so many times as long: a far gateway may make
    /// many routes come and go fast.
    private static let restFactor = 8

    /// Takes over what runs before this one have guarded: before anything that can fail and before routes are
    /// reconciled, as what is not wanted then is taken out.
    func adoptLearnedGuards() {
        guard learned != nil, state.connections.contains(where: \.guardsLearned) else { return }
        do throws(SystemError) {
            guarded.adopt(try keeper.learnedGuards())
        } catch {
            log.error("learned prefixes of an earlier run are not guarded", metadata: ["error": "\(error)"])
        }
    }

    /// Gives dynamic connections the prefixes that others have routed to their far ends.
    func learnRoutes() {
        learnAt = nil
        guard isTunHere, learned != nil else { return }
        let begin = SystemClock.now()
        if learned?.needsDump ?? false {
            do throws(SystemError) {
                _ = learned?.replace(try keeper.routesIntoTunnel())
            } catch {
                log.error("kernel routes cannot be read", metadata: ["error": "\(error)"])
            }
        }
        let guardCount = guarded.count
        var hasChanged = false
        var isFull = learned?.isTruncated ?? false
        let ends = state.insideEnds
        for connection in state.connections where connection.isDynamic {
            let (routes, hasRoom) = learnedRoutes(of: connection, without: ends)
            if !hasRoom { isFull = true }
            let before = Set(connection.prefixes)
            guard state.learn(routes, for: connection.name) else { continue }
            hasChanged = true
            let after = Set(state.connection(named: connection.name)?.prefixes ?? [])
            report(after.subtracting(before), areLearned: true, of: connection)
            report(before.subtracting(after), areLearned: false, of: connection)
        }
        if hasChanged || guarded.count != guardCount {
            reconcileRoutes()
            publishForwarding()
        }
        if isFull, !isLearningFull {
            log.warning(
                "too many routes lead into the interface: those past the limit are not carried",
                metadata: ["limit": "\(LearnedRoutes.limit)"])
        }
        isLearningFull = isFull
        learnInterval = max(Self.shortestLearnInterval, (SystemClock.now() - begin) * Self.restFactor)
    }

    /// The routes by its far ends; of those that are to be guarded, the ones that there is room for: `hasRoom` is
    /// false if some are missing. A route to a far end itself, which a routing daemon may need for its next hops,
    /// is no prefix behind it.
    private func learnedRoutes(
        of connection: Connection, without ends: Set<IPPrefix>
    ) -> (routes: [LearnedRoutes.Route], hasRoom: Bool) {
        let remotes = connection.tunnels.compactMap(\.inside?.remote)
        let routes = (learned?.prefixes(via: remotes) ?? []).filter { !ends.contains($0.prefix) }
        guard connection.guardsLearned else { return (routes, true) }
        let held = routes.filter { !$0.isInMainTable || guarded.hold($0.prefix, for: connection.name) }
        return (held, held.count == routes.count)
    }

    /// Lets go of a prefix that nobody announces now: an operator's word.
    func release(_ prefix: IPPrefix, by caller: Caller) {
        let name = guarded.connection(of: prefix)
        guarded.release(prefix)
        reconcileRoutes()
        raise(
            .routeRemoved, connection: name, reason: "operator",
            "\(prefix) is guarded no longer, by \(caller.words): any route takes it",
            details: caller.details(adding: ["prefix": "\(prefix)"]))
    }

    /// Those that no connection has now.
    var guardedPrefixes: [IPPrefix] {
        guarded.prefixes.filter { state.owners(of: $0).isEmpty }.sorted {
            ($0.family.rawValue, $0.first, $0.length) < ($1.family.rawValue, $1.first, $1.length)
        }
    }

    private func report(_ prefixes: Set<IPPrefix>, areLearned: Bool, of connection: Connection) {
        guard prefixes.count > Self.routeEventLimit else {
            for prefix in prefixes { report(prefix, isLearned: areLearned, of: connection) }
            return
        }
        raise(
            areLearned ? .routeAdded : .routeRemoved, connection: connection.name, reason: "learned",
            "\(prefixes.count) prefixes \(areLearned ? "go" : "no longer go") via \(connection.name): the kernel's routes say so",
            details: ["count": "\(prefixes.count)"])
    }

    private func report(_ prefix: IPPrefix, isLearned: Bool, of connection: Connection) {
        raise(
            isLearned ? .routeAdded : .routeRemoved, connection: connection.name, reason: "learned",
            "\(prefix) \(isLearned ? "goes" : "no longer goes") via \(connection.name): the kernel's routes say so",
            details: ["prefix": "\(prefix)"])
        if isLearned, keeper.installsRoutes, state.firewallMark != 0 { warnOfLoop(prefix, of: connection) }
    }

    /// Outer packets look at the main table, where a routing daemon's routes are.
    private func warnOfLoop(_ prefix: IPPrefix, of connection: Connection) {
        for peer in tunnels.peers {
            guard let endpoint = device.path(of: peer)?.underlay?.endpoint.address, prefix.contains(endpoint),
                keeper.leadsIntoTunnel(endpoint, mark: state.firewallMark)
            else { continue }
            log.warning(
                "a learned route leads an endpoint into its own tunnel: filter it in the routing daemon",
                metadata: names(of: peer, adding: ["prefix": "\(prefix)", "endpoint": "\(endpoint)"]))
        }
    }
}
