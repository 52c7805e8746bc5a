internal import ControlAPI
internal import GatewayCore
internal import Glibc
internal import LinuxIO
internal import Logging
internal import WireGuard

/// The kernel's side of a gateway: its addresses, routes and rules, its TUN interface, and the links, routes and packet
/// filters around it. What the gateway has to know of it is handed on.
///
/// Owned by the control thread.
struct HostNetwork: ~Copyable {
    /// A burst of changes is looked at once.
    private static let settleTime: Duration = .milliseconds(250)
    /// Nobody's site (a.root-servers.net): the way to it is that to far ends which speak first. Nothing is sent there.
    private static let somewhere = IPAddress(v4: 0xc629_0004)

    private let settings: DaemonSettings
    private let log: Logger
    private let resolver: NameResolver
    /// The first queue of the device, where there are several.
    let tun: TunDevice
    private var monitor: NetlinkMonitor
    private(set) var routes: RouteKeeper
    /// Nil where outer packets look at the same routes as others.
    private var returnPath: ReturnPath?
    /// Nil where no connection is dynamic.
    private var learned: LearnedRouteWatch?
    private var foreign: ForeignRouteWatch
    private(set) var forwarding = ForwardingWatch()
    private var waysOut = WayOutWatch()
    /// Index of the interface in this namespace; 0 while it is in another one.
    private(set) var tunIndex: UInt32
    /// When to see whether outer packets go another way than before; nil while no route has changed.
    private var routesCheckAt: Instant?
    /// Links or addresses have changed: sockets that are bound to one may have to follow.
    var areUnderlaysStale = false
    private var areLocalNetworksStale = false
    private(set) var isTunDeleted = false

    /// `settings` are those without a spec. `learns` is for dynamic connections.
    init(
        _ settings: DaemonSettings, tun: TunDevice, learns: Bool, resolver: NameResolver, log: Logger
    ) throws(SystemError) {
        let monitor = try NetlinkMonitor()
        let routes = try RouteKeeper(plan: settings.plan, interface: tun.index, log: log)
        try routes.keepQuiet(monitor)
        self.settings = settings
        self.tun = tun
        self.resolver = resolver
        self.log = log
        self.monitor = monitor
        self.routes = routes
        tunIndex = tun.index
        foreign = ForeignRouteWatch(tun: tun.index)
        learned = learns ? LearnedRouteWatch(tun: tun.index) : nil
    }

    /// Readable when the kernel has news.
    var descriptor: Int32 { monitor.fd }

    // MARK: Start

    /// 1. Takes over what runs before this one have guarded: before anything that can fail, and before routes are
    ///    reconciled, as what is not wanted then is taken out.
    /// 2. Brings the interface up.
    mutating func begin(_ gateway: inout Gateway, now: Instant) throws(SystemError) {
        if gateway.spec.connections.contains(where: \.guardsLearned) {
            do throws(SystemError) {
                gateway.adoptGuards(try routes.learnedGuards())
            } catch {
                log.error(
                    "learned prefixes of an earlier run are not guarded", metadata: ["error": "\(error)"])
            }
        }
        routes.makeNoAddresses()
        var mtu = gateway.interface.mtu
        if settings.tunDescriptor == nil {
            switch settings.mtu {
            case .bytes(let bytes): mtu = bytes
            case .automatic: mtu = routes.automaticMTU(to: gateway.spec.addressEndpoints)
            }
            try routes.setMTU(mtu)
        } else if let link = routes.link() {
            mtu = link.mtu
        }
        if settings.managesLink { try routes.bringUp() }
        let isUp = routes.link()?.isUp ?? false
        gateway.handle(.interface(InterfaceState(mtu: mtu, isUp: isUp)), now: now)
    }

    /// Once the guard is there under the numbers of this run, those of earlier ones go; then what is around is looked at.
    mutating func finishStart(
        _ gateway: inout Gateway, _ underlays: UnderlaySockets, now: Instant
    ) throws(SystemError) {
        removeLeftovers()
        try makeReturnPath(gateway, underlays)
        learn(&gateway, now: now)
        lookAtForeignRoutes(&gateway, now)
        if settings.managesLink, !gateway.connections.isEmpty { forwarding.start(now: now) }
    }

    private func removeLeftovers() {
        guard settings.managesLink, let marks = settings.earlierMarks else { return }
        let (count, refusal) = routes.removeLeftovers(marks: marks)
        if count > 0 {
            log.notice(
                "removed the rules and routes of an earlier run, which had another mark or table",
                metadata: ["count": "\(count)"])
        }
        if let refusal { log.error("kernel refused", metadata: ["error": "\(refusal)"]) }
    }

    // MARK: Time

    /// When `handleTimeout` has something to do; nil while nothing is awaited.
    var deadline: Instant? {
        [routes.deadline, routesCheckAt, learned?.deadline, forwarding.deadline].compactMap(\.self).min()
    }

    /// Whether routes have changed, and a while has passed: call `lookAtRoutes`.
    func haveRoutesSettled(at now: Instant) -> Bool { routesCheckAt.map { $0 <= now } ?? false }

    /// `report` gets what a survey found, on another thread: hand it to `forwardingWasSurveyed`.
    mutating func handleTimeout(
        _ gateway: inout Gateway, now: Instant, report: @escaping @Sendable ([ForwardingProblem]) -> Void
    ) {
        if let deadline = routes.deadline, deadline <= now { reconcile(gateway.wantedPrefixes, now: now) }
        if let deadline = learned?.deadline, deadline <= now { learn(&gateway, now: now) }
        if let deadline = forwarding.deadline, deadline <= now {
            forwarding.look(gateway, interface: tun.name, now: now, report: report)
        }
    }

    mutating func forwardingWasSurveyed(
        _ found: [ForwardingProblem], _ gateway: inout Gateway, now: Instant
    ) {
        forwarding.found(found, &gateway, now: now)
    }

    mutating func reconcile(_ prefixes: [WantedPrefix], now: Instant) {
        routes.reconcile(prefixes, now: now)
    }

    private mutating func learn(_ gateway: inout Gateway, now: Instant) {
        guard gateway.interface.isHere else { return }
        learned?.learn(&gateway, routes, now: now, log)
    }

    // MARK: The kernel's news

    /// What has come so far, up to some dozens: the descriptor stays readable while there is more, and a burst must not
    /// keep the timers waiting.
    mutating func read(_ gateway: inout Gateway, _ underlays: UnderlaySockets, now: Instant) {
        var mayHaveMoved = false
        var hasLearned = false
        do throws(SystemError) {
            for event in try monitor.next() {
                if routes.concerns(event) { routes.noteDisturbance(now: now) }
                if learned?.handle(event) ?? false { hasLearned = true }
                if foreign.handle(event) { mayHaveMoved = true }
                mayHaveMoved = handle(event, &gateway, underlays, now) || mayHaveMoved
            }
        } catch {
            log.error("kernel events are lost", metadata: ["error": "\(error)"])
            routes.noteDisturbance(now: now)
            mayHaveMoved = true
        }
        if areLocalNetworksStale { lookAtLocalNetworks(&gateway, now: now) }
        learned?.schedule(hasChanged: hasLearned, now: now)
        // Once for all of a burst: a routing daemon may change thousands.
        if mayHaveMoved, routesCheckAt == nil { routesCheckAt = now + Self.settleTime }
    }

    /// Returns true if outer packets may leave by another way from now on.
    private mutating func handle(
        _ event: NetlinkEvent, _ gateway: inout Gateway, _ underlays: UnderlaySockets, _ now: Instant
    ) -> Bool {
        let isHere = gateway.interface.isHere
        switch event {
        case .linkChanged(let link) where link.index == tunIndex && isHere: tunChanged(&gateway, now)
        case .linkRemoved(let index, _) where index == tunIndex && isHere:
            tunHasLeft(&gateway, underlays, now)
        case .linkChanged where !isHere && tun.presence == .here: tunHasReturned(&gateway, underlays, now)
        // The kernel does not tell of the routes that an IPv4 link takes along when it goes down.
        case .linkChanged, .linkRemoved:
            areUnderlaysStale = true
            areLocalNetworksStale = true
            return true
        case .addressRemoved(let address):
            areLocalNetworksStale = true
            gateway.handle(.addressRemoved(address.prefix.address), now: now)
        case .addressAdded:
            areUnderlaysStale = true
            areLocalNetworksStale = true
        case .routeAdded(let route), .routeRemoved(let route):
            // By its own route an address is of this host, or no longer: the event of the address itself may come before.
            // The kernel tells of an IPv4 route before it takes it out: so sources are looked for once more when the
            // routes have settled.
            if route.kind == .local, underlays.isBound(to: route.destination.address) {
                areUnderlaysStale = true
                return true
            }
            return route.protocol != NetlinkRoute.ownProtocol && route.table != NetlinkRoute.localTable
        case .ruleAdded(let rule), .ruleRemoved(let rule): return rule.protocol != NetlinkRoute.ownProtocol
        case .overflow:
            areLocalNetworksStale = true
            lookForTun(&gateway, underlays, now)
            return true
        }
        return false
    }

    // MARK: The interface

    /// Looks anew: the event may tell of a state that was left since.
    private func tunChanged(_ gateway: inout Gateway, _ now: Instant) {
        guard let link = routes.link() else { return }
        let before = gateway.interface
        gateway.handle(.interface(InterfaceState(mtu: link.mtu, isUp: link.isUp)), now: now)
        if link.isUp != before.isUp {
            log.notice(
                link.isUp ? "interface is up" : "interface is down", metadata: ["interface": "\(link.name)"])
        }
        if link.mtu != before.mtu {
            log.info(
                "interface MTU changed", metadata: ["interface": "\(link.name)", "mtu": "\(link.mtu)"])
        }
    }

    /// The TUN was moved to another network namespace, where it works on over the sockets of this one.
    ///
    /// 1. It leaves: its addresses and routes go with it, and are somebody else's there. Here the guard stays, so that
    ///    nothing that belongs in a tunnel leaves in clear.
    /// 2. It is back, maybe under another index, without addresses and routes, and down: all of it is set again.
    ///
    /// The kernel says the same of a deleted link, of one that was moved, and of one that was moved and is back already.
    private mutating func tunHasLeft(
        _ gateway: inout Gateway, _ underlays: UnderlaySockets, _ now: Instant
    ) {
        let presence = tun.presence
        guard presence != .deleted else {
            isTunDeleted = true
            return
        }
        // Its number may be another link's here.
        followTun(0)
        returnPath = nil
        gateway.handle(
            .interface(InterfaceState(mtu: gateway.interface.mtu, isUp: false, isHere: false)), now: now)
        gateway.raise(
            .interfaceMoved, reason: "other-namespace",
            "interface \(settings.interface) was moved to another network namespace: \(elsewhere)",
            details: ["interface": "\(settings.interface)"], level: .warning, now: now)
        if presence == .here { tunHasReturned(&gateway, underlays, now) }
    }

    private mutating func tunHasReturned(
        _ gateway: inout Gateway, _ underlays: UnderlaySockets, _ now: Instant
    ) {
        guard let link = (try? (try? Netlink())?.link(tun.name)) ?? nil else { return }
        followTun(link.index)
        do throws(SystemError) {
            routes.makeNoAddresses()
            if settings.managesLink {
                try routes.setMTU(gateway.interface.mtu)
                try routes.bringUp()
            }
            try makeReturnPath(gateway, underlays)
        } catch {
            log.error("kernel refused", metadata: ["error": "\(error)"])
        }
        tunChanged(&gateway, now)
        reconcile(gateway.wantedPrefixes, now: now)
        learn(&gateway, now: now)
        lookAtForeignRoutes(&gateway, now)
        gateway.raise(
            .interfaceReturned, reason: "this-namespace",
            "interface \(link.name) is back in this network namespace"
                + (settings.managesLink ? ": its addresses and routes are set" : ""),
            details: ["interface": "\(link.name)"], level: .notice, now: now)
    }

    /// After events that were lost.
    private mutating func lookForTun(
        _ gateway: inout Gateway, _ underlays: UnderlaySockets, _ now: Instant
    ) {
        let isHere = tun.presence == .here
        if gateway.interface.isHere, !isHere { tunHasLeft(&gateway, underlays, now) }
        if !gateway.interface.isHere, isHere { tunHasReturned(&gateway, underlays, now) }
    }

    private mutating func followTun(_ index: UInt32) {
        tunIndex = index
        routes.follow(interface: index)
        foreign.follow(tun: index)
        learned?.follow(tun: index)
    }

    private var elsewhere: String {
        "its addresses and routes are managed there"
            + (routes.installsRoutes ? ", and its prefixes are unreachable here until it is back" : "")
    }

    // MARK: Routes and networks around

    /// After links, addresses or routes have changed, once they have settled, and after the sockets have followed them.
    mutating func lookAtRoutes(_ gateway: inout Gateway, _ underlays: UnderlaySockets, now: Instant) {
        routesCheckAt = nil
        forwarding.lookSoon(now: now)
        openReturnPath(gateway, underlays)
        lookAtForeignRoutes(&gateway, now)
        lookAtLocalNetworks(&gateway, now: now)
        lookAtWaysOut(&gateway, underlays, now)
    }

    private mutating func lookAtWaysOut(
        _ gateway: inout Gateway, _ underlays: UnderlaySockets, _ now: Instant
    ) {
        let mark = gateway.spec.firewallMark
        let peers = gateway.peersToLookFor
        waysOut.forget(allBut: Set(peers.map(\.peer)))
        for (peer, underlay) in peers {
            let device = underlays.interface(of: underlay.socket) ?? 0
            let interface = routes.wayOut(underlay, device: device, mark: mark)
            var way = waysOut.look(at: peer, underlay, leavesBy: interface)
            // A router's own address on lo, say, is right by any link.
            if let left = way.left, let source = underlay.source?.address,
                routes.isLocal(source, elsewhereThan: left)
            {
                way.left = nil
            }
            gateway.handle(.wayOut(peer, way), now: now)
        }
    }

    private mutating func lookAtForeignRoutes(_ gateway: inout Gateway, _ now: Instant) {
        guard settings.managesLink, gateway.interface.isHere, routes.installsRoutes, routes.makesRules
        else { return }
        foreign.look(&gateway, now: now, log)
    }

    /// After links or addresses came or went, and after the ways of outer packets have changed.
    mutating func lookAtLocalNetworks(_ gateway: inout Gateway, now: Instant) {
        areLocalNetworksStale = false
        guard settings.managesLink else { return }
        let networks = LocalNetwork.all(except: tun.name)
        gateway.handle(.localNetworks(networks, sources: sources(gateway, networks)), now: now)
    }

    /// What this host itself sends to each far site from (`PreferredSource`).
    private func sources(
        _ gateway: borrowing Gateway, _ networks: [LocalNetwork]
    ) -> [String: [IPAddress]] {
        guard routes.installsRoutes else { return [:] }
        let spec = gateway.spec
        let own = routes.ownAddresses()
        let isGuessing = spec.connections.contains { $0.sources.isEmpty && !$0.routes.isEmpty }
        let outer =
            isGuessing
            ? PreferredSource.outerInterfaces(
                to: gateway.possibleEndpoints, boundTo: gateway.underlays.compactMap(\.binding.device),
                mark: spec.firewallMark) : []
        return Dictionary(
            uniqueKeysWithValues: spec.connections.map { connection in
                guard connection.sources.isEmpty else {
                    // The kernel refuses a route that prefers an address which is not there.
                    return (connection.name, connection.sources.filter(own.contains))
                }
                let guesses = PreferredSource.guesses(
                    from: networks, outerInterfaces: outer, translations: connection.translations
                ) { !spec.owners(of: $0).isEmpty }
                return (connection.name, guesses.map(\.address))
            })
    }

    /// Outer packets to an endpoint are led into the tunnel by a learned route.
    func isLooping(_ endpoint: IPAddress, mark: UInt32) -> Bool {
        routes.leadsIntoTunnel(endpoint, mark: mark)
    }

    // MARK: The way back

    /// What far ends and name servers send must reach our sockets, whatever routes are carried. Only where rules keep outer
    /// packets out of the tunnel: elsewhere nobody looks for a way by the mark.
    private mutating func makeReturnPath(
        _ gateway: borrowing Gateway, _ underlays: UnderlaySockets
    ) throws(SystemError) {
        guard settings.managesLink, routes.installsRoutes, !routes.leadsOuterPackets else { return }
        returnPath = try ReturnPath(interface: tun.name, tun: tunIndex, log: log)
        openReturnPath(gateway, underlays)
    }

    /// After changes of the mark, of ports, of links and of routes.
    mutating func openReturnPath(_ gateway: borrowing Gateway, _ underlays: UnderlaySockets) {
        guard returnPath != nil else { return }
        let mark = gateway.spec.firewallMark
        returnPath?.mark(mark, ports: underlays.ports, serverPorts: resolver.serverPorts)
        returnPath?.forgetInterfaces()
        for interface in underlays.interfaces { returnPath?.expect(on: interface) }
        if gateway.awaitsStrangers { expectAnswers(from: Self.somewhere, mark: mark) }
        for address in gateway.endpoints { expectAnswers(from: address, mark: mark) }
    }

    /// Before anything is sent there.
    mutating func expectAnswers(from address: IPAddress, mark: UInt32) {
        guard returnPath != nil, address.family == .v4,
            let interface = routes.interface(towards: address, mark: mark)
        else { return }
        returnPath?.expect(on: interface)
    }

    /// Before name servers are asked.
    mutating func expectAnswersOfNameServers(mark: UInt32) {
        guard returnPath != nil else { return }
        for address in resolver.serverAddresses { expectAnswers(from: address, mark: mark) }
    }

    /// Why what a far end sends may not reach us; nil where nothing is known to be in the way.
    func returnProblem(
        of peer: PeerID, _ gateway: borrowing Gateway, _ underlays: UnderlaySockets
    ) -> String? {
        guard let path = gateway.path(of: peer), let address = path.underlay?.endpoint.address else {
            return nil
        }
        let bound = underlays.interface(of: path.socket)
        let interface =
            bound ?? routes.interface(towards: address, mark: gateway.spec.firewallMark)
        return interface.flatMap { returnPath?.problem(from: address, by: $0) }.map {
            "\($0): \($0.remedy)"
        }
    }

    /// Another firewall mark: `body` changes the sockets' while rules for both marks are there, so that at no time a packet
    /// finds none.
    mutating func changeMark(
        to mark: UInt32, _ prefixes: [WantedPrefix], _ body: () throws(SystemError) -> Void
    ) throws(SystemError) {
        try routes.changeMark(to: mark, prefixes: prefixes, mark: body)
    }

    // MARK: The end

    mutating func finish(_ ending: Ending, _ gateway: borrowing Gateway, now: Instant) {
        if ending.keepsGuard {
            routes.reconcile(gateway.guardPrefixes, now: now)
        } else if let refusal = routes.removeAll().refusal {
            log.error(
                "the last resort is left behind: 'vgwd unguard' takes it away",
                metadata: ["error": "\(refusal)"])
        }
    }

    // MARK: Status

    func notices(_ gateway: borrowing Gateway) -> [String] {
        let moved =
            gateway.interface.isHere
            ? [] : ["interface \(settings.interface) is in another network namespace: \(elsewhere)"]
        return moved + foreign.ruleNotices + forwarding.notices
    }

    func foreignNotices(of connection: String, _ spec: GatewaySpec) -> [String] {
        foreign.notices(of: connection, spec)
    }

    /// Why the kernel has not a route of ours to a prefix.
    func routeProblem(_ prefix: IPPrefix) -> String? {
        routes.failures[prefix].map { words($0, of: prefix.family) }
    }

    var missingAddresses: [MissingAddress] {
        routes.missingAddresses.map { address, failure in
            MissingAddress(address: address.description, reason: words(failure, of: address.family))
        }.sorted { $0.address < $1.address }
    }

    /// Why the kernel has not an address or a route of ours.
    private func words(_ failure: SystemError, of family: IPAddress.Family) -> String {
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

    var learns: Bool { learned != nil }
}
