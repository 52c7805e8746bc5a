internal import ControlAPI
internal import DataPlane
internal import LinuxIO
package import Logging
internal import WireGuard

/// The control thread: one epoll loop that owns every peer, timer, connection and route.
///
/// A round of it:
/// 1. wait for the mailbox, the data threads, a signal, a client of `wg`, the kernel's news or the next
///    deadline;
/// 2. hand each to its owner (`Device`, `GatewayState`, `RouteKeeper`, `WgServer`), all with one `now`;
/// 3. let what is due happen, send what the device has to send, log what happened, keep the timestamp floor;
/// 4. let go of keys and sockets that no data thread holds any more.
///
/// Concurrency: made and run on one thread. Others reach it through `mailbox` alone.
package final class ControlLoop {
    enum Token {
        static let mailbox: UInt64 = 1
        static let dataPlane: UInt64 = 2
        static let signals: UInt64 = 3
        static let netlink: UInt64 = 4
        static let timer: UInt64 = 5
        static let generation: UInt64 = 6
        /// This one and those above, up to the next.
        static let wg: UInt64 = 16
        /// This one and all above: two a socket group.
        static let handshakes: UInt64 = 1 << 32
    }

    private static let keypairCapacity = GatewayState.peerLimit * KeypairTable.indicesPerPeer
    static let socketCheckInterval: Duration = .seconds(1)
    /// Without the state that the run began with: that had keys.
    let settings: DaemonSettings
    let viewSalt: SecretBytes
    /// What the configuration file says of what `wg` can change; nil where there is no file.
    let fileView: WgView?
    /// In words, what `wg` has made different from the file.
    var changedByWg: [String] = []
    let log: Logger
    package let mailbox: Mailbox<ControlCommand>

    let epoll: Epoll
    let signals: SignalFD
    private let timer: TimerFD
    private let commandWake: EventFD
    private let dataWake: EventFD
    var monitor: NetlinkMonitor
    /// Nil where the kernel refuses it.
    let generation: GenerationMonitor?
    var clocks = ClockContinuity()

    /// The first queue of the device, where there are several.
    let tun: TunDevice
    let keypairs: KeypairTable
    let dataPlane: DataPlane
    var underlays: Underlays
    /// Datagrams that were dropped by sockets which others have taken the place of.
    var queueDropsBefore: UInt64 = 0
    /// For what comes by the sockets that handshakes have for themselves.
    var handshakeReceiver = DatagramReceiver(capacity: 8)
    var device: Device
    var keeper: RouteKeeper
    /// Nil where outer packets look at the same routes as others.
    var returnPath: ReturnPath?
    /// Nil where no connection is dynamic.
    var learned: LearnedRoutes?
    var guarded: LearnedGuard
    var learnInterval = ControlLoop.shortestLearnInterval
    /// Some learned prefixes are past a limit, and the log says so.
    var isLearningFull = false
    var wg: WgServer?
    /// Why the `wg` socket cannot be put back; nil when it is there.
    var wgSocketProblem: SystemError?
    /// Why the control socket cannot be used; nil when it can.
    var serverProblem: String?
    /// Nil where there is none. `Daemon.run` sets it before `run`.
    var controlServer: ControlServer?
    var timestamps: TimestampStore
    let resolver: NameResolver
    /// A name server on this host was asked for an endpoint's name, and had no answer.
    var hasLocalStubFailed = false
    /// Requests that the `wg` socket and the control server refused.
    let requestDrops = DropCounters()
    var eventLog = EventLog()
    let events = EventHub()
    /// Nil where no hook is configured.
    let hooks: HookRunner?

    var state: GatewayState
    var now: Instant
    let startedAt: Instant
    var mtu = 1420
    /// False once the TUN is in another namespace: its addresses and routes are then somebody else's.
    var isTunHere = true
    /// Index of the interface in this namespace; 0 while it is in another one.
    var tunIndex: UInt32
    var isLinkUp = false
    var ending: Ending?
    var tunnels = TunnelRecords()
    var connections: [String: ConnectionRecord] = [:]
    /// A tunnel of theirs may have changed since they chose one.
    var staleConnections: Set<String> = []
    var drills: [String: DrillRun] = [:]
    /// Whose order is being followed, and for which connection; nil outside of `order`.
    var order: (connection: String, by: Caller)?
    var kept: KeptRoutes
    var limiters = RateLimiters()
    /// Those that this host is on, but by the TUN.
    var localNetworks: [LocalNetwork] = []
    /// Prefixes of connections that are also local now, and are not carried.
    var leftOut: [IPPrefix: LocalNetwork] = [:]
    var foreign: ForeignRoutes
    /// Routes of others that lead past the tunnels.
    var pastTunnels: Set<NetlinkRoute> = []
    /// Rules of others that come before ours.
    var rulesBefore: Set<NetlinkRule> = []
    /// What the data threads forward by.
    var forwarding = ForwardingTable.empty
    /// What the kernel was last asked to do with each prefix.
    var routeStates: [IPPrefix: RoutePlan.Prefix.State] = [:]
    /// The latest choice and what it was made of: forwarding and routes ask for the same one.
    var latestChoice: (candidates: [PrefixChoice.Candidate], guarded: Set<IPPrefix>, choice: PrefixChoice)?
    let probeSecret: ProbeSecret
    /// When to see whether outer packets go another way than before; nil while no route has changed.
    var routesCheckAt: Instant?
    /// When to take over what others have routed to us; nil while nothing has changed.
    var learnAt: Instant?
    /// Links or addresses have changed: sockets that are bound to one may have to follow.
    var areUnderlaysStale = false
    var areLocalNetworksStale = false
    var toldTroubles = ToldNews<Trouble>()
    var refusedSources = RefusedSources()
    /// By connection: what this host sends to the far site from.
    var sources: [String: [IPAddress]] = [:]
    /// What keeps this host from forwarding between its networks and the tunnels.
    var forwardingProblems: [ForwardingProblem] = []
    /// Nil where nobody is to look.
    var surveyAt: Instant?
    var isSurveying = false
    private var socketCheckAt: Instant
    var isServerReady: Bool
    /// Both sockets have answered once, and whoever waited for that was told.
    private(set) var isAnnounced = false
    /// It was said that keys are in memory that is not locked.
    var hasToldOfUnlockedKeys = false

    /// Makes everything that can fail at start; nothing is sent before `run`.
    /// `descriptors` is how many the process may have.
    package init(settings given: consuming DaemonSettings, descriptors: Int, log: Logger) throws(DaemonError)
    {
        var settings = given
        self.log = log
        var random = SystemEntropy()
        viewSalt = .random(PublicKey.count, from: &random)
        try Self.refuseSecond(settings)
        try Self.refuseObstacles(settings)
        let lock = NamespaceLock()
        try settings.takeNumbers(log)
        fileView = settings.managesLink ? WgView(settings.state, salt: viewSalt) : nil
        self.settings = settings.withoutState
        var kept = KeptRoutes(
            directory: settings.stateDirectory, interface: settings.interface, log: log)
        if settings.managesLink { kept.load() }
        self.kept = kept
        Self.layGuard(settings, kept, log)
        lock.release()
        try settings.refuseTooFewDescriptors(limit: descriptors)
        try settings.refuseTooFewThreads()
        let sockets = try Self.openSockets(settings)
        let queues = try Self.openQueues(settings, count: sockets.workers)
        do throws(SystemError) {
            signals = try SignalFD(Signal.allCases.map(\.rawValue))
            epoll = try Epoll()
            timer = try TimerFD()
            commandWake = try EventFD()
            dataWake = try EventFD()
            mailbox = Mailbox(wake: commandWake)
            monitor = try NetlinkMonitor()
            generation = try? GenerationMonitor()
            state = settings.state
            underlays = sockets
            let workers = underlays.workers
            if underlays.groups[0]?.handshakes == nil {
                log.warning(
                    "one worker, and handshakes behind data: this kernel cannot steer datagrams among sockets"
                )
            }
            tun = queues[0]
            tunIndex = tun.index
            foreign = ForeignRoutes(tun: tun.index)
            keeper = try RouteKeeper(plan: settings.plan, interface: tun.index, log: log)
            try keeper.keepQuiet(monitor)
            learned =
                state.connections.contains(where: \.isDynamic) ? LearnedRoutes(interface: tun.index) : nil
            guarded = LearnedGuard(connections: state.connections.count(where: \.guardsLearned))
            keypairs = KeypairTable(capacity: Self.keypairCapacity, workers: workers)
            dataPlane = try DataPlane(
                queues: queues, sockets: underlays.groups, keypairs: keypairs, wake: dataWake,
                isSingleThreaded: Processors.count == 1)
            timestamps = TimestampStore(
                directory: settings.stateDirectory, interface: settings.interface, log: log)
            resolver = NameResolver(servers: settings.nameServers)
            var entropy = SystemEntropy()
            probeSecret = ProbeSecret(using: &entropy)
            device = Device(
                privateKey: state.privateKey, keypairs: keypairs, entropy: entropy,
                timestampFloor: timestamps.load(unixNanoseconds: SystemClock.unixNanoseconds()))
            hooks =
                settings.hooks.isEmpty
                ? nil
                : try HookRunner(
                    settings.hooks, gateway: settings.name, firewallMark: state.firewallMark, log: log
                ) { [mailbox] failure in
                    mailbox.post(.hookHasFailed(failure))
                }
            device.tracesHandshakes = log.logLevel <= .debug
            now = SystemClock.now()
            startedAt = now
            socketCheckAt = now + Self.socketCheckInterval
            isServerReady = settings.controlSocket == nil
            if let listener = try Self.listen(settings, log) {
                wg = try WgServer(
                    listener: listener, listenerToken: Token.wg, epoll: epoll,
                    clientLimit: settings.wgClientLimit,
                    interfaceIndex: { name in
                        guard let netlink = try? Netlink() else { return nil }
                        return ((try? netlink.link(name)) ?? nil)?.index
                    }, drops: requestDrops, log: log)
            } else {
                wg = nil
            }
            try epoll.add(fd: commandWake.fd, token: Token.mailbox)
            try epoll.add(fd: dataWake.fd, token: Token.dataPlane)
            try epoll.add(fd: signals.fd, token: Token.signals)
            try epoll.add(fd: monitor.fd, token: Token.netlink)
            try epoll.add(fd: timer.fd, token: Token.timer)
            if let generation { try epoll.add(fd: generation.fd, token: Token.generation) }
            try watchHandshakes(of: underlays.groups, instead: nil)
        } catch {
            throw DaemonError("\(error)")
        }
    }

    static func socketOptions(_ settings: DaemonSettings, _ state: GatewayState) -> UDPSocketOptions {
        UDPSocketOptions(
            mark: state.firewallMark, gso: settings.offloads.udpGSO, gro: settings.offloads.udpGRO)
    }

    // MARK: Running

    /// Until asked to end, or until going on makes no sense. What is left of the kernel's state then is the ending's
    /// to say.
    package func run() -> Ending {
        do throws(SystemError) {
            try begin()
            while ending == nil {
                arm()
                let events = try epoll.wait(timeout: nil)
                refreshClock()
                for event in events { handle(event) }
                settle()
            }
        } catch {
            ending = .failed("\(error)")
        }
        let ending = ending ?? .failed("the run was broken off")
        finish(ending)
        return ending
    }

    private func begin() throws(SystemError) {
        refreshClock()
        adoptLearnedGuards()
        let endpoints = state.connections.flatMap(\.tunnels).flatMap(\.endpoints).compactMap {
            if case .address(let endpoint) = $0 { endpoint.address } else { nil }
        }
        keeper.makeNoAddresses()
        if settings.tunDescriptor == nil {
            switch settings.mtu {
            case .bytes(let bytes): mtu = bytes
            case .automatic: mtu = keeper.automaticMTU(to: endpoints)
            }
            try keeper.setMTU(mtu)
        } else if let link = keeper.link() {
            mtu = link.mtu
        }
        device.mtu = mtu
        if settings.managesLink { try keeper.bringUp() }
        isLinkUp = keeper.link()?.isUp ?? false
        log.info(
            "started",
            metadata: [
                "interface": "\(tun.name)", "port": "\(underlays.port)", "mtu": "\(mtu)",
                "connections": "\(state.connections.count)",
            ])
        for connection in state.connections { addConnection(connection) }
        if settings.managesLink {
            restoreRoutes()
            localNetworks = LocalNetwork.all(except: tun.name)
            chooseSources()
        }
        publishForwarding()
        // Before the first packet can pass, so that nothing that belongs in a tunnel goes another way.
        reconcileRoutes()
        removeLeftovers()
        try makeReturnPath()
        learnRoutes()
        lookAtForeignRoutes()
        if settings.managesLink, !state.connections.isEmpty { surveyAt = now }
        try hooks?.start()
        try dataPlane.start()
        settle()
    }

    /// Those that were kept in earlier runs, as far as there still are such connections.
    private func restoreRoutes() {
        for route in kept.routes {
            let connection = state.connection(named: route.connection)
            let rival = state.owners(of: route.prefix).first {
                state.connection(named: $0)?.metric == connection?.metric
            }
            var problem = connection == nil ? "there is no such connection" : rival.map { "\($0) has it now" }
            do throws(APIError) { try check(route.prefix) } catch { problem = error.message }
            guard let problem else {
                state.add(Connection.Route(route.prefix, origin: .kept), to: route.connection)
                continue
            }
            log.warning(
                "a kept route is not used: 'vgwctl route del --save' forgets it",
                metadata: [
                    "prefix": "\(route.prefix)", "connection": "\(route.connection)", "reason": "\(problem)",
                ])
        }
    }

    private func handle(_ event: Epoll.Event) {
        switch event.token {
        case Token.mailbox:
            commandWake.drain()
            for command in mailbox.take() { handle(command) }
        case Token.dataPlane:
            dataWake.drain()
            device.noteQueue(fill: dataPlane.handshakeQueueFill, now: now)
            let isMore = dataPlane.drainEvents { handle($0) }
            if isMore { dataWake.signal() }
            if dataPlane.isDeviceGone { tunIsGone() }
        case Token.signals:
            while let signal = signals.next() { handle(signal: signal) }
        case Token.netlink: readNetlink()
        case Token.timer: timer.drain()
        case Token.generation: readGeneration()
        case Token.handshakes...: receiveHandshakes(event.token)
        default: wg?.handle(event, epoll: epoll, handler: self, now: now)
        }
    }

    /// What has fallen due, and what came of everything else.
    private func settle() {
        device.handleTimeout(now: now)
        handleTunnelTimeouts()
        handleDrillTimeouts()
        if let deadline = keeper.deadline, deadline <= now { reconcileRoutes() }
        if let routesCheckAt, routesCheckAt <= now { underlayHasChanged() }
        if let learnAt, learnAt <= now { learnRoutes() }
        if let surveyAt, surveyAt <= now { surveyForwarding() }
        if socketCheckAt <= now {
            socketCheckAt = now + Self.socketCheckInterval
            keepSockets()
            tellOfUnlockedKeys()
            tellOfTroubles()
            tellOfSendErrors()
            lookForSharedKeysEnded()
        }
        flush()
        settleConnections()
        handleSettling()
        keypairs.reclaim()
        underlays.letGo(upTo: dataPlane.socketGeneration)
        announce()
    }

    private func arm() {
        var next = socketCheckAt
        for deadline in [
            device.nextTimeout, keeper.deadline, tunnels.earliest, drillDeadline,
            settlingDeadline, routesCheckAt, learnAt, surveyAt,
        ] {
            if let deadline, deadline < next { next = deadline }
        }
        timer.arm(at: next)
    }

    /// Once, when both sockets answer.
    private func announce() {
        guard isServerReady, !isAnnounced, ending == nil else { return }
        isAnnounced = true
        ServiceNotification.send("READY=1")
        if let descriptor = settings.readyDescriptor { Detachment.reportReady(descriptor) }
        log.info("ready", metadata: ["interface": "\(settings.interface)"])
        tellOfStart()
    }
}
