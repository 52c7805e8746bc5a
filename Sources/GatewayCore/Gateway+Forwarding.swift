internal import ControlAPI
package import WireGuard

/// What the data threads forward by, and what the kernel shall route.
extension Gateway {
    /// Events that one change of routes makes: what is more is one event for all.
    private static let routeEventLimit = 20

    // MARK: The forwarding table

    /// Makes a new table of what connections carry now.
    mutating func forward() {
        context.isTableStale = false
        chooseLeftOut()
        let choice = prefixChoice
        let (mtu, now) = (context.interface.mtu, context.now)
        var rows: [ForwardingTable.Connection] = []
        rows.reserveCapacity(connections.count)
        for (index, connection) in connections.enumerated() {
            let spec = connection.spec
            let limiter = limiters.limiter(
                of: .connection(spec.name), rate: spec.rateLimit, mtu: mtu, now: now)
            var paths: [TunnelPath] = []
            var pathLimiters: [RateLimiter?] = []
            for tunnel in connection.tunnels {
                guard let path = context.device.path(of: tunnel.peer) else { continue }
                paths.append(path)
                pathLimiters.append(
                    limiters.limiter(
                        of: .tunnel(tunnel.name), rate: tunnel.spec.rateLimit, mtu: mtu, now: now))
            }
            rows.append(
                ForwardingTable.Connection(
                    prefixes: choice.prefixes[index], paths: paths, isBalanced: spec.policy == .balance,
                    watched: spec.health.isOn ? spec.health.targets.map(\.address) : [],
                    probeSource: spec.health.source, sources: choice.sources[index], active: nil,
                    translation: Self.translation(spec.translations), copiesDSCP: spec.copiesDSCP,
                    limiter: limiter, pathLimiters: pathLimiters))
        }
        let names = Set(connections.map(\.name))
        let tunnels = Set(connections.lazy.flatMap(\.tunnels).map(\.name))
        limiters.keep { owner in
            switch owner {
            case .connection(let name): names.contains(name)
            case .tunnel(let name): tunnels.contains(name)
            }
        }
        forwarding = ForwardingTable(connections: rows, mtu: mtu)
        for index in connections.indices { apply(connections[index].selection, of: index) }
        context.emit(.publish(forwarding))
        chooseFragmentation()
    }

    /// One store: the data threads read it with their next batch.
    func apply(_ selection: TunnelSelection, of index: Int) {
        if selection.isBalanced {
            forwarding.assign(selection.buckets, of: index)
        } else {
            forwarding.activate(selection.active, of: index)
        }
    }

    private static func translation(_ pairs: [PrefixTranslationSpec]) -> PrefixTranslation? {
        pairs.isEmpty
            ? nil
            : PrefixTranslation(
                pairs.compactMap { PrefixTranslation.Pair(inside: $0.inside, outside: $0.outside) })
    }

    /// Outer packets go whole where vgwd finds out what passes: on the sockets whose tunnels are all probed. The
    /// others' are fragmented, as ever.
    private mutating func chooseFragmentation() {
        guard context.settings.findsPathMTU else { return }
        for number in context.underlays.indices {
            let users = connections.lazy.flatMap(\.tunnels).filter { Int($0.socket) == number }
            let isWhole = !users.isEmpty && users.allSatisfy { $0.probedLink != nil }
            if number >= dontFragment.count { dontFragment.append(false) }
            guard dontFragment[number] != isWhole else { continue }
            dontFragment[number] = isWhole
            context.emit(.dontFragment(UInt8(number), isWhole))
        }
    }

    // MARK: Who carries what

    var prefixChoice: PrefixChoice {
        mutating get {
            let candidates = connections.map { candidate($0) }
            let guarded = guarded.prefixes.filter { localNetworks.inUse(holding: $0) == nil }
            if let latest = latestChoice, latest.candidates == candidates, latest.guarded == guarded {
                return latest.choice
            }
            let choice = PrefixChoice(candidates, guarded: guarded)
            latestChoice = (candidates, guarded, choice)
            return choice
        }
    }

    func candidate(_ connection: Connection) -> PrefixChoice.Candidate {
        let spec = connection.spec
        return PrefixChoice.Candidate(
            spec.routes.filter { leftOut.isEmpty || leftOut[$0.prefix] == nil }.map { route in
                PrefixChoice.Claim(
                    route.prefix, metric: spec.metric ?? route.metric ?? context.settings.routeMetric,
                    isLearned: route.origin == .learned)
            }, health: health(of: connection), onDown: spec.onDown)
    }

    /// Settled once its far end, too, must have noticed what there was to notice.
    private func health(of connection: Connection) -> PrefixChoice.Health {
        // AllowedIPs that `wg` gave to a peer are nobody else's, whatever becomes of the peer.
        guard context.settings.managesLink else { return .settled }
        return switch connection.selection.usability {
        case .dead: .dead
        case .heard: .heard
        case .usable: connection.settlesAt == nil ? .settled : .usable
        }
    }

    // MARK: The kernel's routes

    /// What the kernel of this namespace shall do with each prefix. While the interface is in another one, nothing is led
    /// into it, and nothing past it.
    package var wantedPrefixes: [WantedPrefix] {
        mutating get { context.interface.isHere ? carriedPrefixes : guardPrefixes }
    }

    /// The guard alone: for the end of a run.
    package var guardPrefixes: [WantedPrefix] {
        spec.guardPrefixes(
            metric: context.settings.routeMetric, learned: guarded.prefixes, localNetworks)
    }

    /// What connections carry, what is guarded, and the far ends of the inside links, which are there whatever becomes of
    /// the connection, so that who speaks to them comes back by himself.
    private var carriedPrefixes: [WantedPrefix] {
        mutating get {
            let ends = spec.insideEnds
            let choice = prefixChoice
            let kernel = withSources(choice.kernel.filter { !ends.contains($0.prefix) }, choice)
            return ends.map { WantedPrefix($0) } + spec.exclusively(kernel) + leftOutGuards
        }
    }

    /// Each with the source of the connection that takes its packets now.
    private func withSources(_ prefixes: [WantedPrefix], _ choice: PrefixChoice) -> [WantedPrefix] {
        let byConnection = connections.map { sources[$0.name] ?? [] }
        guard byConnection.contains(where: { !$0.isEmpty }) else { return prefixes }
        let isOneForAll = byConnection.allSatisfy { $0 == byConnection[0] }
        let takers =
            isOneForAll
            ? nil
            : PrefixTable(
                choice.prefixes.enumerated().flatMap { index, prefixes in
                    prefixes.map { (prefix: $0, value: Int32(index)) }
                })
        return prefixes.map { prefix in
            // One that is covered goes where the shorter prefix around it goes.
            let taker = takers.map { Int($0.lookup(prefix.prefix.address)) } ?? 0
            guard taker >= 0 else { return prefix }
            var prefix = prefix
            prefix.source = byConnection[taker].first { $0.family == prefix.prefix.family }
            return prefix
        }
    }

    mutating func reconcile() {
        context.areRoutesStale = false
        let prefixes = wantedPrefixes
        if context.interface.isHere { tellOfRoutes(prefixes) }
        context.emit(.reconcile(prefixes))
    }

    /// What becomes of a prefix by health; one that comes or goes is told of by who adds it or takes it out.
    private mutating func tellOfRoutes(_ prefixes: [WantedPrefix]) {
        guard context.settings.installsRoutes else { return }
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
        ] as [(GatewayEvent.Kind, String)] { tell(changed[kind] ?? [], as: kind, words) }
    }

    private mutating func tell(_ prefixes: [IPPrefix], as kind: GatewayEvent.Kind, _ words: String) {
        func owner(_ prefix: IPPrefix) -> String? {
            spec.owners(of: prefix).first ?? guarded.connection(of: prefix)
        }
        guard prefixes.count > Self.routeEventLimit else {
            for prefix in prefixes {
                context.raise(
                    kind, connection: owner(prefix), reason: "on-down", "\(prefix) is \(words)",
                    details: ["prefix": "\(prefix)"], level: .notice)
            }
            return
        }
        let owners = Set(prefixes.map(owner))
        context.raise(
            kind, connection: owners.count == 1 ? owners.first ?? nil : nil, reason: "on-down",
            "\(prefixes.count) prefixes are \(words)", details: ["count": "\(prefixes.count)"],
            level: .notice)
    }

    // MARK: Prefixes that are also local here

    mutating func follow(_ networks: [LocalNetwork], _ sources: [String: [IPAddress]]) {
        let before = self.sources
        localNetworks = networks
        self.sources = sources
        if leftOutNow != leftOut || sources != before { context.areRoutesStale = true }
    }

    /// After every change of prefixes or of local networks, before what is carried is chosen.
    private mutating func chooseLeftOut() {
        let before = leftOut
        leftOut = leftOutNow
        for (prefix, local) in leftOut where before[prefix] == nil {
            context.raise(
                .routeRemoved, connection: spec.owners(of: prefix).first, reason: "local-network",
                "\(prefix) is left out: \(local.words(holding: prefix))",
                details: ["prefix": "\(prefix)", "link": local.interface], level: .warning)
        }
        for prefix in before.keys where leftOut[prefix] == nil && !spec.owners(of: prefix).isEmpty {
            context.raise(
                .routeAdded, connection: spec.owners(of: prefix).first, reason: "local-network",
                "\(prefix) is carried again: it is no longer local here", details: ["prefix": "\(prefix)"],
                level: .notice)
        }
    }

    private var leftOutNow: [IPPrefix: LocalNetwork] {
        guard localNetworks.contains(where: \.isInUse) else { return [:] }
        var found: [IPPrefix: LocalNetwork] = [:]
        // An exclusive connection's prefix is its own, whatever a link says that it is: a stranger may have said so.
        for connection in spec.connections where !connection.isExclusive {
            for route in connection.routes {
                found[route.prefix] = localNetworks.inUse(holding: route.prefix)
            }
        }
        return found
    }

    /// Behind a link's own route to the very same prefix there is the last resort, as behind another router's: it goes
    /// nowhere else when the link goes. What is inside a link's network must be left to the shorter route.
    private var leftOutGuards: [WantedPrefix] {
        leftOut.compactMap { prefix, local in
            local.network == prefix ? WantedPrefix(prefix, state: .unreachable) : nil
        }
    }

    // MARK: Learned prefixes

    /// Takes over what runs before this one have guarded: before `start`.
    package mutating func adoptGuards(_ prefixes: [IPPrefix]) { guarded.adopt(prefixes) }

    /// Gives dynamic connections the prefixes that others have routed to their far ends: `routes` returns those by any of
    /// some gateways. Returns false if there is no room for some of those that are to be guarded.
    package mutating func learn(
        now: Instant, _ routes: (_ gateways: [IPAddress]) -> [LearnedRoute]
    ) -> Bool {
        context.now = now
        let guardCount = guarded.count
        var hasRoom = true
        let ends = spec.insideEnds
        var next = spec
        var learned: [(name: String, before: Set<IPPrefix>, after: Set<IPPrefix>)] = []
        for connection in spec.connections where connection.isDynamic {
            // A route to a far end itself, which a routing daemon may need for its next hops, is no prefix behind it.
            let found = routes(connection.tunnels.compactMap(\.inside?.remote)).filter {
                !ends.contains($0.prefix)
            }
            let held = found.filter {
                !connection.guardsLearned || !$0.isInMainTable
                    || guarded.hold($0.prefix, for: connection.name)
            }
            if held.count < found.count { hasRoom = false }
            guard next.learn(held, for: connection.name) else { continue }
            learned.append(
                (
                    connection.name, Set(connection.prefixes),
                    Set(next.connection(named: connection.name)?.prefixes ?? [])
                ))
        }
        if guarded.count != guardCount { context.areRoutesStale = true }
        guard !learned.isEmpty else { return hasRoom }
        adopt(next)
        for change in learned {
            tell(learned: change.after.subtracting(change.before), isNew: true, of: change.name)
            tell(learned: change.before.subtracting(change.after), isNew: false, of: change.name)
        }
        return hasRoom
    }

    private mutating func tell(learned prefixes: Set<IPPrefix>, isNew: Bool, of connection: String) {
        let kind: GatewayEvent.Kind = isNew ? .routeAdded : .routeRemoved
        guard prefixes.count > Self.routeEventLimit else {
            for prefix in prefixes {
                context.raise(
                    kind, connection: connection, reason: "learned",
                    "\(prefix) \(isNew ? "goes" : "no longer goes") via \(connection): the kernel's routes say so",
                    details: ["prefix": "\(prefix)"])
                if isNew { lookForLoop(prefix) }
            }
            return
        }
        context.raise(
            kind, connection: connection, reason: "learned",
            "\(prefixes.count) prefixes \(isNew ? "go" : "no longer go") via \(connection): the kernel's routes say so",
            details: ["count": "\(prefixes.count)"])
    }

    /// Outer packets look at the main table, where a routing daemon's routes are.
    private mutating func lookForLoop(_ prefix: IPPrefix) {
        guard context.settings.installsRoutes, spec.firewallMark != 0 else { return }
        for peer in context.device.peers {
            guard let endpoint = context.device.path(of: peer)?.underlay?.endpoint.address,
                prefix.contains(endpoint)
            else { continue }
            context.emit(.learnedOverEndpoint(peer, prefix, endpoint))
        }
    }

    /// Guarded prefixes that no connection has now, in order.
    package var guardedPrefixes: [IPPrefix] {
        guarded.prefixes.filter { spec.owners(of: $0).isEmpty }.sorted {
            ($0.family.rawValue, $0.first, $0.length) < ($1.family.rawValue, $1.first, $1.length)
        }
    }
}

extension LocalNetwork {
    package func words(holding prefix: IPPrefix) -> String {
        network == prefix
            ? "it is also the network of \(interface) here"
            : "it is also in \(network), the network of \(interface) here"
    }
}

/// What the shell asks to know of the host for.
extension Gateway {
    /// Prefixes that routes of others may take past the tunnels.
    package var openPrefixes: Set<IPPrefix> {
        Set(spec.connections.lazy.filter { !$0.isExclusive }.flatMap(\.prefixes)).subtracting(leftOut.keys)
    }

    /// Where outer packets go now.
    package var endpoints: Set<IPAddress> {
        Set(context.device.peers.compactMap { context.device.path(of: $0)?.underlay?.endpoint.address })
    }

    /// Where they may go.
    package var possibleEndpoints: Set<IPAddress> {
        endpoints.union(connections.lazy.flatMap(\.tunnels).flatMap(\.endpoints.candidates).map(\.address))
    }

    /// A far end must speak first, and may come from anywhere.
    package var awaitsStrangers: Bool {
        context.device.peers.contains { context.device.path(of: $0)?.underlay == nil }
    }
}
