internal import ControlAPI
internal import DataPlane
internal import GatewayCore
internal import LinuxIO
package import Logging
internal import WireGuard

/// The control thread: one epoll loop around the gateway.
///
/// A round of it:
/// 1. wait for the mailbox, the data threads, a signal, a client of `wg`, the kernel's news or the next
///    deadline;
/// 2. hand each to its owner, all with one `now`: the gateway, the host's network, the sockets of clients;
/// 3. let what is due happen, and do what the gateway asks for;
/// 4. let go of keys and sockets that no data thread holds any more.
///
/// Concurrency: made and run on one thread. Others reach it through `mailbox` alone.
package final class ControlLoop {
    private enum Token {
        static let mailbox: UInt64 = 1
        static let dataPlane: UInt64 = 2
        static let signals: UInt64 = 3
        static let netlink: UInt64 = 4
        static let timer: UInt64 = 5
        static let generation: UInt64 = 6
        /// This one and those above, up to `HandshakeSockets.firstToken`.
        static let wg: UInt64 = 16
    }

    private static let keypairCapacity = GatewaySpec.peerLimit * KeypairTable.indicesPerPeer
    private static let socketCheckInterval: Duration = .seconds(1)

    /// Without the spec that the run began with: that had keys.
    let settings: DaemonSettings
    let log: Logger
    package let mailbox: Mailbox<ControlCommand>

    private let epoll: Epoll
    private let signals: SignalFD
    private let timer: TimerFD
    private let commandWake: EventFD
    private let dataWake: EventFD
    /// Nil where the kernel refuses it.
    private let generation: GenerationMonitor?

    var host: HostNetwork
    var underlays: UnderlaySockets
    private var handshakes = HandshakeSockets()
    private let keypairs: KeypairTable
    let dataPlane: DataPlane
    let resolver: NameResolver
    var clients: ClientSockets
    /// Requests that the `wg` socket and the control server refused.
    let requestDrops = DropCounters()
    var journal: EventJournal
    private var timestamps: TimestampStore
    var kept: KeptRoutes
    var wgChanges: WgChanges
    /// By connection: who waits for the report of its drill.
    var drillWaiters: [String: (waiter: DrillWaiter, answer: ControlCommand.Answer<DrillReport>)] = [:]

    var now: Instant
    let startedAt: Instant
    private var socketCheckAt: Instant
    var ending: Ending?
    /// Both sockets have answered once, and whoever waited for that was told.
    private(set) var isAnnounced = false
    /// It was said that keys are in memory that is not locked.
    private var hasToldOfUnlockedKeys = false

    /// The last property, and so the last to be destroyed: with 100,000 routes that takes a while, and the next run must
    /// find the ports free by then.
    var gateway: Gateway

    /// Makes everything that can fail at start; nothing is sent before `run`.
    /// `descriptors` is how many the process may have.
    package init(settings given: consuming DaemonSettings, descriptors: Int, log: Logger) throws(DaemonError)
    {
        var settings = given
        self.log = log
        try Startup.refuseSecond(settings)
        try Startup.refuseObstacles(settings)
        let lock = NamespaceLock()
        try settings.takeNumbers(log)
        wgChanges = WgChanges(settings)
        kept = KeptRoutes(directory: settings.stateDirectory, interface: settings.interface, log: log)
        if settings.managesLink { kept.load() }
        Startup.layGuard(settings, kept, log)
        lock.release()
        try settings.refuseTooFewDescriptors(limit: descriptors)
        try settings.refuseTooFewThreads()
        let sockets = try Startup.openSockets(settings)
        let queues = try Startup.openQueues(settings, count: sockets.workers)
        self.settings = settings.withoutSpec
        do throws(SystemError) {
            signals = try SignalFD(Signal.allCases.map(\.rawValue))
            epoll = try Epoll()
            timer = try TimerFD()
            commandWake = try EventFD()
            dataWake = try EventFD()
            mailbox = Mailbox(wake: commandWake)
            generation = try? GenerationMonitor()
            underlays = sockets
            if sockets.groups[0]?.handshakes == nil {
                log.warning(
                    "one worker, and handshakes behind data: this kernel cannot steer datagrams among sockets"
                )
            }
            resolver = NameResolver(servers: settings.nameServers)
            host = try HostNetwork(
                self.settings, tun: queues[0], learns: settings.spec.connections.contains(where: \.isDynamic),
                resolver: resolver, log: log)
            keypairs = KeypairTable(capacity: Self.keypairCapacity, workers: sockets.workers)
            dataPlane = try DataPlane(
                queues: queues, sockets: sockets.groups, keypairs: keypairs, wake: dataWake,
                isSingleThreaded: Processors.count == 1)
            timestamps = TimestampStore(
                directory: settings.stateDirectory, interface: settings.interface, log: log)
            now = SystemClock.now()
            gateway = Startup.gateway(
                settings, keypairs, sockets, timestamps: &timestamps, log, now: now)
            let hooks =
                settings.hooks.isEmpty
                ? nil
                : try HookRunner(
                    settings.hooks, gateway: settings.name, firewallMark: settings.spec.firewallMark, log: log
                ) { [mailbox] failure in
                    mailbox.post(.hookHasFailed(failure))
                }
            journal = EventJournal(log: log, hooks: hooks)
            startedAt = now
            socketCheckAt = now + Self.socketCheckInterval
            clients = ClientSockets(
                self.settings,
                wg: try Startup.wgServer(settings, token: Token.wg, epoll, drops: requestDrops, log), log: log
            )
            try epoll.add(fd: commandWake.fd, token: Token.mailbox)
            try epoll.add(fd: dataWake.fd, token: Token.dataPlane)
            try epoll.add(fd: signals.fd, token: Token.signals)
            try epoll.add(fd: host.descriptor, token: Token.netlink)
            try epoll.add(fd: timer.fd, token: Token.timer)
            if let generation { try epoll.add(fd: generation.fd, token: Token.generation) }
            try HandshakeSockets.watch(underlays.groups, insteadOf: nil, epoll)
        } catch {
            throw DaemonError("\(error)")
        }
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
                readClocks()
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
        readClocks()
        try host.begin(&gateway, now: now)
        log.info(
            "started",
            metadata: [
                "interface": "\(host.tun.name)", "port": "\(underlays.port)",
                "mtu": "\(gateway.interface.mtu)", "connections": "\(gateway.spec.connections.count)",
            ])
        gateway.start(now: now)
        if settings.managesLink {
            restoreRoutes()
            host.lookAtLocalNetworks(&gateway, now: now)
        }
        // Before the first packet can pass, so that nothing that belongs in a tunnel goes another way.
        obey()
        try host.finishStart(&gateway, underlays, now: now)
        try journal.hooks?.start()
        try dataPlane.start()
        settle()
    }

    private func restoreRoutes() {
        let unused = gateway.restore(kept: kept.routes.map { ($0.prefix, $0.connection) })
        for (prefix, connection, problem) in unused {
            log.warning(
                "a kept route is not used: 'vgwctl route del --save' forgets it",
                metadata: [
                    "prefix": "\(prefix)", "connection": "\(connection)", "reason": "\(problem)",
                ])
        }
    }

    private func readClocks() {
        now = SystemClock.now()
        let offset = SystemClock.unixNanoseconds() &- Int64(truncatingIfNeeded: now.nanoseconds)
        gateway.handle(.clock(realtimeOffset: offset), now: now)
    }

    private func handle(_ event: Epoll.Event) {
        switch event.token {
        case Token.mailbox:
            commandWake.drain()
            for command in mailbox.take() { handle(command) }
        case Token.dataPlane:
            dataWake.drain()
            gateway.handle(.handshakeQueue(fill: dataPlane.handshakeQueueFill), now: now)
            let isMore = dataPlane.drainEvents { handle($0) }
            if isMore { dataWake.signal() }
            if dataPlane.isDeviceGone { tunIsGone() }
        case Token.signals:
            while let signal = signals.next() { handle(signal: signal) }
        case Token.netlink:
            host.read(&gateway, underlays, now: now)
            if host.areUnderlaysStale { followUnderlays() }
            if host.isTunDeleted { tunIsGone() }
        case Token.timer: timer.drain()
        case Token.generation:
            if generation?.next() ?? false {
                let reason = "the kernel says so (NEW_VMGENID), or events of its were lost"
                gateway.handle(.cloned(reason), now: now)
            }
        case HandshakeSockets.firstToken...:
            handshakes.receive(event.token, of: underlays.groups, &gateway, dataPlane, now: now)
        default: clients.wg?.handle(event, epoll: epoll, handler: self, now: now)
        }
    }

    private func handle(_ event: DatapathEvent) {
        guard case .stray(let message, let underlay, let tos) = event else {
            return gateway.handle(.dataplane(event), now: now)
        }
        do throws(DropReason) {
            try dataPlane.passOn(message, from: underlay, tos: tos)
        } catch {
            gateway.dropCounters.add(error)
        }
    }

    /// What has fallen due, and what came of everything else.
    private func settle() {
        gateway.handleTimeout(now: now)
        if host.haveRoutesSettled(at: now) {
            followUnderlays()
            host.lookAtRoutes(&gateway, underlays, now: now)
        }
        host.handleTimeout(&gateway, now: now) { [mailbox] in mailbox.post(.forwardingWasSurveyed($0)) }
        if socketCheckAt <= now {
            socketCheckAt = now + Self.socketCheckInterval
            ending = ending ?? clients.restore(epoll)
            tellOfUnlockedKeys()
        }
        obey()
        keypairs.reclaim()
        underlays.letGo(upTo: dataPlane.socketGeneration)
        announce()
    }

    private func arm() {
        var next = socketCheckAt
        for deadline in [gateway.nextTimeout, host.deadline] {
            if let deadline, deadline < next { next = deadline }
        }
        timer.arm(at: next)
    }

    /// Once, when both sockets answer.
    private func announce() {
        guard clients.isServerReady, !isAnnounced, ending == nil else { return }
        isAnnounced = true
        ServiceNotification.send("READY=1")
        if let descriptor = settings.readyDescriptor { Detachment.reportReady(descriptor) }
        log.info("ready", metadata: ["interface": "\(settings.interface)"])
        // The log has this in words of its own, and so the end of the run.
        gateway.raise(.started, "gateway \(settings.name) has started", level: .debug, now: now)
        obey()
    }

    /// Once: memory for keys is taken as they come.
    private func tellOfUnlockedKeys() {
        guard !SecretPool.isLocked, !hasToldOfUnlockedKeys else { return }
        hasToldOfUnlockedKeys = true
        log.warning(
            "keys may get into swap, as this process may lock no more memory: raise LimitMEMLOCK in the unit (ulimit -l)"
        )
    }

    // MARK: What the gateway asks for

    /// Does all that the gateway asks for by now.
    func obey() {
        while let output = gateway.poll() {
            switch output {
            case .transmit(let bytes, let underlay, let kind, let peer):
                let outcome = transmit(bytes, underlay, kind)
                gateway.handle(.transmitted(peer, outcome), now: now)
            case .resolve(let peer, let host, let port):
                self.host.expectAnswersOfNameServers(mark: gateway.spec.firewallMark)
                resolver.resolve(host, mark: gateway.spec.firewallMark) { [mailbox] answer in
                    mailbox.post(.resolved(peer, host: host, port: port, answer))
                }
            case .endpointChanged(let peer):
                if let endpoint = gateway.path(of: peer)?.underlay?.endpoint {
                    host.expectAnswers(from: endpoint.address, mark: gateway.spec.firewallMark)
                }
            case .publish(let table): dataPlane.publish(table)
            case .dontFragment(let number, let isWhole):
                do throws(SystemError) {
                    try underlays.setDontFragment(isWhole, of: number)
                } catch {
                    log.warning("outer packets may be fragmented", metadata: ["error": "\(error)"])
                }
            case .reconcile(let prefixes): host.reconcile(prefixes, now: now)
            case .raise(let event, let level): journal.raise(event, level)
            case .note(let note): journal.note(note)
            case .gaveUp(let peer, let note):
                journal.note(note, hint: host.returnProblem(of: peer, gateway, underlays))
            case .learnedOverEndpoint(let peer, let prefix, let endpoint):
                guard host.isLooping(endpoint, mark: gateway.spec.firewallMark),
                    let (connection, tunnel) = gateway.tunnel(of: peer)
                else { continue }
                log.warning(
                    "a learned route leads an endpoint into its own tunnel: filter it in the routing daemon",
                    metadata: [
                        "connection": "\(connection.name)", "tunnel": "\(connection.tunnels[tunnel].name)",
                        "prefix": "\(prefix)", "endpoint": "\(endpoint)",
                    ])
            case .drillEnded(let connection, let result):
                drillWaiters.removeValue(forKey: connection)?.answer(result)
            }
        }
    }

    /// AF41, for what must not wait behind data (RFC 2597).
    private static let handshakeTOS: UInt8 = 0x88

    /// Handshakes go to the wire only after the floor on disk covers them.
    private func transmit(
        _ bytes: [UInt8], _ underlay: UnderlayPath, _ kind: Device.Kind
    ) -> Gateway.Transmission {
        guard let socket = underlays.groups.controlSocket(for: underlay) else { return .failed(0) }
        if kind == .handshake {
            timestamps.keep(gateway.lastTimestamp, unixNanoseconds: SystemClock.unixNanoseconds())
        }
        let tos = kind == .handshake ? Self.handshakeTOS : 0
        return switch socket.send(bytes, to: underlay, tos: tos) {
        case .sent: .sent
        case .sourceInvalid: .sentWithoutSource
        case .tooBig: .tooBig
        case .failed(let code): .failed(code)
        }
    }

    // MARK: Sockets

    /// A link or an address came or went: tunnels that are bound to it follow at once.
    private func followUnderlays() {
        host.areUnderlaysStale = false
        guard underlays.bindings.count > 1 else { return }
        var next = underlays
        if next.followLinks() {
            do throws(SystemError) {
                try use(next)
            } catch {
                log.error("sockets cannot be watched", metadata: ["error": "\(error)"])
            }
        } else {
            underlays = next
        }
        gateway.handle(.underlays(underlays.states), now: now)
    }

    /// Other sockets from here on.
    func use(_ next: UnderlaySockets) throws(SystemError) {
        try HandshakeSockets.watch(next.groups, insteadOf: underlays.groups, epoll)
        underlays.replace(by: next)
        underlays.keepLeaving(until: dataPlane.replaceSockets(next.groups))
    }

    // MARK: The end

    private func handle(signal number: Int32) {
        switch Signal(rawValue: number) {
        case .hangUp: log.notice("reload is not in this version: the running configuration stays")
        // A stop that comes on top of a restart is a stop.
        case .interrupt: ending = .stopped("SIGINT")
        case .quit: ending = .stopped("SIGQUIT")
        case .terminate: ending = .stopped("SIGTERM")
        case .user1: ending = ending ?? .handedOver("SIGUSR1: for a restart")
        case nil: break
        }
    }

    private func tunIsGone() {
        let text = "interface \(settings.interface) was deleted"
        ending = ending ?? (settings.managesLink ? .failed(text) : .stopped(text))
    }

    private func finish(_ ending: Ending) {
        ServiceNotification.send("STOPPING=1")
        gateway.end()
        if isAnnounced {
            let (reason, why) = ending.words
            gateway.raise(
                .stopping, reason: reason, "gateway \(settings.name) ends: \(why)", details: ["why": why],
                level: .debug, now: now)
        }
        obey()
        dataPlane.stop()
        timestamps.end(gateway.lastTimestamp)
        host.finish(ending, gateway, now: now)
        journal.end()
        resolver.stop()
        // Who asks at it is told from here on that nobody runs the interface.
        clients.wg = nil
        for command in mailbox.take() { command.refuse() }
    }
}
