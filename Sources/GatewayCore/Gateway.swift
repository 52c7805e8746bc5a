package import ControlAPI
package import WireGuard

/// All that a gateway decides. It does no input and no output, and the time comes in with each call.
///
///     1. tell it what happened   `handle`, `handleTimeout`, an operator's order
///     2. do what it asks for     `poll` until nil
///     3. come back               at `nextTimeout`, or when something happens
///
/// The gateway owns the protocol's `Device` and its connections; a connection owns its tunnels, and alone changes them; a
/// tunnel owns its machines. Whatever changes a tunnel leaves its connection undecided, and `poll` lets each of those decide
/// before it gives anything out: so nobody has to remember to tell anybody, and whatever became of the tunnels since
/// the last `poll` is one change.
///
/// A failover, step by step: `TunnelHealth` says that a tunnel is down (`Connection.settle`); `Connection.decide` chooses
/// another; `Gateway.settle` stores its index in the forwarding table, which the data threads read with each batch.
package struct Gateway: ~Copyable {
    /// What does not change in a run.
    package struct Settings: Sendable {
        package var name: String
        /// False for an interface that somebody sets up with `wg`.
        package var managesLink: Bool
        /// Routes into the tunnels are ours to make.
        package var installsRoutes: Bool
        /// Outer packets take the same routes: one over an endpoint would send the tunnel into itself.
        package var leadsOuterPackets: Bool
        /// The metric of routes whose connection has none of its own.
        package var routeMetric: UInt32
        /// The MTU of each path is searched for, and not given.
        package var findsPathMTU: Bool
        /// An errno in words, with its name: `Operation not permitted (EPERM)`.
        package var errorText: @Sendable (Int32) -> String

        package init(
            name: String, managesLink: Bool = true, installsRoutes: Bool = true,
            leadsOuterPackets: Bool = false, routeMetric: UInt32 = 0, findsPathMTU: Bool = true,
            errorText: @escaping @Sendable (Int32) -> String = { "error \($0)" }
        ) {
            self.name = name
            self.managesLink = managesLink
            self.installsRoutes = installsRoutes
            self.leadsOuterPackets = leadsOuterPackets
            self.routeMetric = routeMetric
            self.findsPathMTU = findsPathMTU
            self.errorText = errorText
        }
    }

    package enum Input: Sendable {
        /// A message of a handshake, from wherever.
        case datagram([UInt8], from: UnderlayPath)
        case dataplane(DatapathEvent)
        /// How much of the room for handshakes is taken, 0 to 1.
        case handshakeQueue(fill: Double)
        /// What became of an `Output.transmit` to the peer.
        case transmitted(PeerID?, Transmission)
        /// The answer to an `Output.resolve`.
        case resolved(
            PeerID, host: String, port: UInt16, Result<[ResolvedAddress], ResolutionProblem>)
        /// In the order of socket numbers.
        case underlays([UnderlayState])
        case interface(InterfaceState)
        /// An address is no longer this host's.
        case addressRemoved(IPAddress)
        /// How outer packets to a peer leave now.
        case wayOut(PeerID, WayOut)
        /// The networks that this host is on, and what it sends to each connection's far site from.
        case localNetworks([LocalNetwork], sources: [String: [IPAddress]])
        /// The wall clock less boot time, in nanoseconds.
        case clock(realtimeOffset: Int64)
        /// This machine may be a copy of another, or have gone back in time: for this reason.
        case cloned(String)
        /// Nobody waits for a connection's drill any more.
        case drillAbandoned(String)
    }

    package enum Transmission: Hashable, Sendable {
        case sent
        /// The source address is no longer this host's; it was sent without.
        case sentWithoutSource
        case tooBig
        /// For this errno; 0 where there is no socket.
        case failed(Int32)
    }

    package enum Output: Sendable {
        case transmit([UInt8], UnderlayPath, Device.Kind, PeerID?)
        case resolve(PeerID, host: String, port: UInt16)
        /// Answers to this peer's outer packets may come by another interface now.
        case endpointChanged(PeerID)
        /// The data threads forward by this table from now on.
        case publish(ForwardingTable)
        /// Whether the outer packets of a socket number go whole or not at all.
        case dontFragment(UInt8, Bool)
        /// What the kernel shall do with each prefix.
        case reconcile([WantedPrefix])
        case raise(GatewayEvent, EventLevel)
        case note(LogNote)
        /// Handshakes with a peer were given up. The shell may know more on why.
        case gaveUp(PeerID, LogNote)
        /// A learned prefix holds the peer's endpoint: outer packets may be led into the tunnel.
        case learnedOverEndpoint(PeerID, IPPrefix, IPAddress)
        case drillEnded(connection: String, Result<DrillReport, APIError>)
    }

    static let checkInterval: Duration = .seconds(1)

    /// What it is to be; changed by `adopt` alone.
    package internal(set) var spec: GatewaySpec
    /// In the order of the spec, and of the forwarding table.
    package internal(set) var connections: [Connection] = []
    var context: GatewayContext

    /// By connection: what `nextTimeout` of each was when it was last touched. A thousand are scanned in less time than a
    /// heap would take to keep in order.
    private var deadlines: [Instant] = []
    /// Connections of which a tunnel may have changed since they decided.
    private var undecided: Set<Int> = []
    private var places: [PeerID: Place] = [:]
    private var checkAt: Instant
    private var clocks = ClockContinuity()

    // Forwarding (`Gateway+Forwarding.swift`).

    /// What the data threads forward by.
    var forwarding = ForwardingTable.empty
    var limiters = RateLimiters()
    package internal(set) var localNetworks: [LocalNetwork] = []
    /// By connection: what this host sends to the far site from.
    var sources: [String: [IPAddress]] = [:]
    /// Prefixes of connections that are also local now, and are not carried.
    var leftOut: [IPPrefix: LocalNetwork] = [:]
    var guarded: LearnedGuard
    /// The latest choice and what it was made of: forwarding and routes ask for the same one.
    var latestChoice: (candidates: [PrefixChoice.Candidate], guarded: Set<IPPrefix>, choice: PrefixChoice)?
    /// What the kernel was last asked to do with each prefix.
    var routeStates: [IPPrefix: WantedPrefix.State] = [:]
    /// By socket number: whether outer packets go whole or not at all.
    var dontFragment: [Bool] = []

    // Troubles that strangers and far ends make (`Gateway+Troubles.swift`).

    var toldTroubles = ToldNews<Trouble>()
    var refusedSources = RefusedSources()

    private struct Place {
        let connection: Int
        let tunnel: Int
    }

    /// Nothing is asked for before `start`.
    package init(
        _ spec: GatewaySpec, settings: Settings, device: consuming Device, probeSecret: ProbeSecret,
        underlays: [UnderlayState], interface: InterfaceState, now: Instant
    ) {
        self.spec = spec
        guarded = LearnedGuard(connections: spec.connections.count(where: \.guardsLearned))
        checkAt = now + Self.checkInterval
        context = GatewayContext(
            device: device, settings: settings, probeSecret: probeSecret, firewallMark: spec.firewallMark,
            underlays: underlays, interface: interface, now: now)
        context.device.mtu = interface.mtu
    }

    /// Adds what the spec has; the first `poll` then makes the forwarding table and says what the kernel shall route.
    package mutating func start(now: Instant) {
        context.now = now
        for connection in spec.connections { add(connection) }
        context.areRoutesStale = true
    }

    // MARK: What happened

    package mutating func handle(_ input: Input, now: Instant) {
        context.now = now
        switch input {
        case .datagram(let message, let underlay): context.device.receive(message, from: underlay, now: now)
        case .dataplane(let event): handle(event)
        case .handshakeQueue(let fill): context.device.noteQueue(fill: fill, now: now)
        case .transmitted(let peer, let transmission): note(transmission, to: peer)
        case .resolved(let peer, let host, let port, let answer):
            if case .failure(let problem) = answer {
                context.hasLocalStubFailed = problem.isOfLocalStub
            } else {
                context.hasLocalStubFailed = false
            }
            let hint = stubHint
            update(peer) {
                $0.resolved($1, host: host, port: port, answer, stubHint: hint, &$2)
            }
        case .underlays(let underlays):
            context.underlays = underlays
            updateAll { connection, index, context in
                connection.update(index, &context) { $0.noteUnderlay($1) }
            }
        case .interface(let interface): follow(interface)
        case .addressRemoved(let address):
            for peer in context.device.peers {
                guard let path = context.device.path(of: peer),
                    path.underlay?.source?.address == address
                else { continue }
                path.forgetSource()
            }
        case .wayOut(let peer, let way): follow(peer, way)
        case .localNetworks(let networks, let sources): follow(networks, sources)
        case .clock(let offset):
            context.device.realtimeOffset = offset
            if let parting = clocks.parting(realtimeOffset: offset) {
                retireSessions("the wall clock was set by \(parting.signedSeconds)")
            }
        case .cloned(let reason): retireSessions(reason)
        case .drillAbandoned(let name):
            guard let index = connections.firstIndex(where: { $0.name == name }),
                connections[index].drill != nil
            else { return }
            context.note(.notice, "a drill ends, as nobody waits for it", ["connection": name])
            update(connection: index) { $0.noteInDrill(.abort, &$1) }
        }
    }

    private mutating func handle(_ event: DatapathEvent) {
        switch event {
        case .probeReply(let peer, let packet, let length, let at):
            var isExpected = false
            update(peer) {
                isExpected = $0.probeWasAnswered(packet, length: length, by: $1, at: at, &$2)
            }
            if !isExpected { context.device.dropCounters.add(.probeReplyUnexpected) }
        case .sendTooBig(let peer): sendWasTooBig(peer)
        case .sourceRefused(let peer, let packet, let length):
            refusedSources.note(packet, length: length, by: peer, now: context.now)
        default: context.device.handle(event, now: context.now)
        }
    }

    private mutating func note(_ transmission: Transmission, to peer: PeerID?) {
        switch transmission {
        case .sent: break
        case .sentWithoutSource:
            if let peer { context.device.path(of: peer)?.forgetSource() }
        case .tooBig:
            context.device.dropCounters.add(.sendTooBig)
            if let peer { sendWasTooBig(peer) }
            return
        case .failed(let code):
            context.device.dropCounters.add(.sendFailed)
            if code != 0, let peer {
                update(peer) { connection, index, _ in connection.tunnels[index].sendError = code }
            }
            return
        }
        // Most messages tell nothing new.
        if let peer, hasSendProblem(peer) { update(peer) { $0.tunnels[$1].noteSent($2) } }
    }

    private func hasSendProblem(_ peer: PeerID) -> Bool {
        guard let place = places[peer] else { return false }
        return connections[place.connection].tunnels[place.tunnel].sendError != nil
            || context.device.path(of: peer)?.sendFailure != nil
    }

    /// EMSGSIZE: an interface of this host is smaller than the path was.
    private mutating func sendWasTooBig(_ peer: PeerID) {
        update(peer) { connection, index, context in
            connection.update(index, &context) { $0.pathMTU?.sendTooBig(now: $1.now) }
        }
    }

    /// Nil where the questions of a name server on this host are not led into a tunnel.
    package var stubHint: String? {
        guard context.hasLocalStubFailed, spec.firewallMark != 0, context.settings.installsRoutes else {
            return nil
        }
        return LocalStub.problem(prefixes: spec.connections.flatMap(\.prefixes)).map {
            "\($0); \(LocalStub.remedy)"
        }
    }

    private mutating func follow(_ interface: InterfaceState) {
        let before = context.interface
        context.interface = interface
        if before.isHere != interface.isHere { context.areRoutesStale = true }
        guard before.mtu != interface.mtu else { return }
        context.device.mtu = interface.mtu
        updateAll { connection, index, context in
            connection.update(index, &context) { tunnel, context in
                tunnel.pathMTU?.maximumChanged(to: interface.mtu, now: context.now)
            }
        }
        context.isTableStale = true
    }

    /// A source is left with its interface, and who was given up while there was no way is asked again.
    private mutating func follow(_ peer: PeerID, _ way: WayOut) {
        guard way.isThere else {
            context.device.path(of: peer)?.forgetSource()
            return
        }
        if let interface = way.left {
            context.device.path(of: peer)?.leaveSource(of: interface, until: context.now + Self.sourceLeftFor)
            // The peer answers to where it was last heard from: to the new source from here on.
            context.device.sendKeepalive(to: peer, now: context.now)
        }
        guard hasGivenUp(peer) else { return }
        update(peer) { $0.askAhead($1, &$2) }
    }

    /// Longer than a round trip by any link.
    private static let sourceLeftFor: Duration = .seconds(3)

    /// Peers whose way out matters when the kernel's routes have changed, with their underlays.
    package var peersToLookFor: [(peer: PeerID, underlay: UnderlayPath)] {
        context.device.peers.compactMap { peer in
            guard let underlay = context.device.path(of: peer)?.underlay,
                underlay.source != nil || hasGivenUp(peer)
            else { return nil }
            return (peer, underlay)
        }
    }

    private func hasGivenUp(_ peer: PeerID) -> Bool {
        guard let place = places[peer] else { return false }
        return connections[place.connection].tunnels[place.tunnel].hasGivenUp
            && context.device.status(of: peer)?.state == .idle
    }

    private mutating func retireSessions(_ reason: String) {
        let count = context.device.retireSessions(now: context.now)
        context.note(
            .notice, "sessions replaced: this machine may have been restored from a snapshot or cloned",
            ["reason": reason, "sessions": "\(count)"])
    }

    // MARK: Time and output

    /// When `handleTimeout` has something to do.
    package var nextTimeout: Instant? {
        var next = checkAt
        if let deadline = context.device.nextTimeout, deadline < next { next = deadline }
        if let deadline = deadlines.min(), deadline < next { next = deadline }
        return next
    }

    package mutating func handleTimeout(now: Instant) {
        context.now = now
        context.device.handleTimeout(now: now)
        for index in deadlines.indices where deadlines[index] <= now {
            update(connection: index) { $0.handleTimeout(&$1) }
        }
        guard checkAt <= now else { return }
        checkAt = now + Self.checkInterval
        tellOfTroubles()
        for index in connections.indices { update(connection: index) { $0.check(&$1) } }
    }

    package mutating func poll() -> Output? {
        if let output = context.takeOutput() { return output }
        settle()
        return context.takeOutput()
    }

    /// Takes everything out of the device, and lets connections decide until nothing moves any more; then brings the
    /// forwarding table, and what the kernel shall route, to what they say.
    mutating func settle() {
        var moved: Set<Int> = []
        var isMoving = true
        while isMoving {
            isMoving = false
            while let output = context.device.poll() {
                isMoving = true
                take(output)
            }
            while let index = undecided.min() {
                isMoving = true
                undecided.remove(index)
                let decision = decide(index)
                if decision.movesTraffic { moved.insert(index) }
                if decision.changesUsability { context.areRoutesStale = true }
            }
        }
        if context.areRoutesStale {
            forward()
            reconcile()
        } else if context.isTableStale {
            forward()
        } else {
            for index in moved { apply(connections[index].selection, of: index) }
        }
    }

    private mutating func decide(_ index: Int) -> Connection.Decision {
        var decision = Connection.Decision()
        update(connection: index) { decision = $0.decide(&$1) }
        return decision
    }

    private mutating func take(_ output: Device.Output) {
        switch output {
        case .transmit(let bytes, let underlay, let kind, let peer):
            if let peer, context.device.path(of: peer)?.isCut == true {
                return context.device.dropCounters.add(.drilled)
            }
            context.emit(.transmit(bytes, underlay, kind, peer))
        case .event(let peer, let event):
            update(peer) { $0.handle(event, of: $1, &$2) }
            if case .removedAsOurself = event { dropConnections() }
        case .trace(let trace): note(trace)
        }
    }

    // MARK: Owning

    /// The one way to change a connection.
    mutating func update(
        connection index: Int, _ body: (inout Connection, inout GatewayContext) -> Void
    ) {
        body(&connections[index], &context)
        touched(index)
    }

    private mutating func touched(_ index: Int) {
        deadlines[index] = connections[index].nextTimeout ?? Self.never
        if connections[index].isUndecided { undecided.insert(index) }
    }

    /// The same, for the tunnel of a peer. Nothing happens where that is gone.
    mutating func update(
        _ peer: PeerID, _ body: (inout Connection, Int, inout GatewayContext) -> Void
    ) {
        guard let place = places[peer] else { return }
        update(connection: place.connection) { body(&$0, place.tunnel, &$1) }
    }

    private mutating func updateAll(_ body: (inout Connection, Int, inout GatewayContext) -> Void) {
        for index in connections.indices {
            update(connection: index) { connection, context in
                for tunnel in connection.tunnels.indices { body(&connection, tunnel, &context) }
            }
        }
    }

    private static let never = Instant(nanoseconds: .max)

    mutating func add(_ connection: ConnectionSpec) {
        let added = Connection(connection, &context)
        for (tunnel, peer) in added.tunnels.lazy.map(\.peer).enumerated() {
            places[peer] = Place(connection: connections.count, tunnel: tunnel)
        }
        connections.append(added)
        deadlines.append(Self.never)
        touched(connections.count - 1)
        context.areRoutesStale = true
    }

    mutating func remove(connection index: Int) {
        update(connection: index) { $0.breakOffDrill(because: "the connection was removed", &$1) }
        connections.remove(at: index)
        deadlines.remove(at: index)
        undecided = Set(connections.indices.filter { connections[$0].isUndecided })
        self.index()
        context.areRoutesStale = true
    }

    /// Those that the spec no longer has.
    private mutating func dropConnections() {
        index()
        for index in connections.indices.reversed()
        where spec.connection(named: connections[index].name) == nil { remove(connection: index) }
    }

    /// After tunnels came or went.
    mutating func index() {
        places.removeAll(keepingCapacity: true)
        for (index, connection) in connections.enumerated() {
            for (tunnel, peer) in connection.tunnels.lazy.map(\.peer).enumerated() {
                places[peer] = Place(connection: index, tunnel: tunnel)
            }
        }
    }

    package func tunnel(of peer: PeerID) -> (connection: Connection, index: Int)? {
        places[peer].map { (connections[$0.connection], $0.tunnel) }
    }

    func index(ofTunnel name: String) -> (connection: Int, tunnel: Int)? {
        for (index, connection) in connections.enumerated() {
            if let tunnel = connection.tunnel(named: name) { return (index, tunnel) }
        }
        return nil
    }

    // MARK: What the shell needs of the device

    /// The greatest timestamp of a handshake that was sent; nil before the first.
    package var lastTimestamp: TAI64N? { context.device.lastTimestamp }
    package var peers: [PeerID] { context.device.peers }
    package func path(of peer: PeerID) -> TunnelPath? { context.device.path(of: peer) }
    package var dropCounters: DropCounters { context.device.dropCounters }
    package var interface: InterfaceState { context.interface }
    package var underlays: [UnderlayState] { context.underlays }

    /// At the end of a run.
    package mutating func end() {
        for index in connections.indices {
            update(connection: index) { $0.breakOffDrill(because: "vgwd is stopping", &$1) }
        }
    }
}

extension Duration {
    /// In seconds, with the sign: "+86400 s".
    fileprivate var signedSeconds: String {
        let half: Int64 = self < .zero ? -500_000_000 : 500_000_000
        return "\(self < .zero ? "" : "+")\((wholeNanoseconds &+ half) / 1_000_000_000) s"
    }
}
