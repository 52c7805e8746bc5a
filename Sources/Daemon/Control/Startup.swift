internal import DataPlane
internal import GatewayCore
internal import Glibc
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What has to be had before a run, in the order in which it is asked for, and what to do where it cannot be had.
enum Startup {
    /// Another daemon answers on one of our sockets: it is named, and this one does not start.
    static func refuseSecond(_ settings: DaemonSettings) throws(DaemonError) {
        var paths = [settings.managesLink ? settings.controlSocket : nil].compactMap { $0 }
        if settings.wgDescriptor == nil { paths.append(WgServer.socket(of: settings.interface)) }
        for path in paths {
            guard UnixListener.isAnswered(path: path) else { continue }
            let other = try? UnixStream.connect(path: path)
            let process = other?.credentials.map { "process \($0.process)" } ?? "another process"
            throw DaemonError(
                "\(settings.interface) is run by \(process), which answers at \(path): end that one first")
        }
    }

    /// What has the interface's name, or stands where a file of this run is to be. A configuration was checked for it
    /// already, but for a state folder that the command line names.
    static func refuseObstacles(_ settings: DaemonSettings) throws(DaemonError) {
        let conflict = settings.tunDescriptor == nil ? InterfaceConflict.find(settings.interface) : nil
        let obstacle = WrittenPath.all(settings).lazy.compactMap { $0.obstacle(SystemFiles()) }.first
        guard let (problem, remedy) = conflict ?? obstacle.map({ ($0.problem, $0.remedy) }) else { return }
        throw DaemonError("\(problem); \(remedy)", exitStatus: ConfigurationErrors.exitStatus)
    }

    /// The sockets of the gateway's own port and of every binding whose device is there.
    static func openSockets(_ settings: DaemonSettings) throws(DaemonError) -> UnderlaySockets {
        let spec = settings.spec
        do throws(SystemError) {
            return try UnderlaySockets(
                port: spec.listenPort, workers: settings.workers, options: socketOptions(settings, spec),
                bindings: spec.connections.flatMap(\.tunnels).map(\.binding))
        } catch {
            throw switch error.code {
            case EACCES:
                DaemonError(
                    "\(error): \(LowPort.remedy(spec.listenPort))", exitStatus: DaemonError.notPermitted)
            case EPERM:
                DaemonError("\(error): \(Self.capability)", exitStatus: DaemonError.notPermitted)
            case EADDRINUSE:
                DaemonError("\(error): \(portTaken(among: ports(of: spec)))")
            default: DaemonError("\(error)")
            }
        }
    }

    private static func ports(of spec: GatewaySpec) -> [UInt16] {
        let own = spec.connections.flatMap(\.tunnels).compactMap(\.binding.listenPort)
        return ([spec.listenPort] + own).filter { $0 != 0 }
    }

    /// Who has one of these ports, as far as this process may see it, and what to do.
    static func portTaken(among ports: [UInt16]) -> String {
        for port in ports {
            let owners = PortOwner.all(ofUDPPort: port).map { "'\($0.name)' (process \($0.process))" }
            guard !owners.isEmpty else { continue }
            return
                "\(owners.joined(separator: " and ")) has UDP port \(port): end it, or write another listen-port"
        }
        let shown = ports.map { "sport = :\($0)" }.joined(separator: " or ")
        return
            "another program has the port: 'ss -ulnp \"\(shown)\"' as root shows which; end it, or write another "
            + "listen-port"
    }

    /// Queues of the TUN device, one for each worker.
    static func openQueues(_ settings: DaemonSettings, count: Int) throws(DaemonError) -> [TunDevice] {
        let name = settings.interface
        do throws(SystemError) {
            if let descriptor = settings.tunDescriptor { return [try TunDevice.adopt(fd: descriptor)] }
            var queues: [TunDevice] = []
            for _ in 0..<count {
                queues.append(
                    try TunDevice.open(name: name, offload: settings.offloads.tun, multiQueue: count > 1))
            }
            return queues
        } catch {
            throw switch error.code {
            case ENOENT, ENODEV:
                DaemonError(
                    "\(error): load it ('modprobe tun'), or give it to the container (--device /dev/net/tun)")
            case EPERM, EACCES:
                DaemonError("\(error): \(Self.capability)", exitStatus: DaemonError.notPermitted)
            case EBUSY:
                DaemonError("\(error): another program has \(name) open: end that one, or take another name")
            case EINVAL where count > 1:
                DaemonError(
                    "\(error): a \(name) that was made before has one queue: remove it ('ip link del \(name)'), or "
                        + "write workers = 1")
            default: DaemonError("\(error)")
            }
        }
    }

    static func socketOptions(_ settings: DaemonSettings, _ spec: GatewaySpec) -> UDPSocketOptions {
        UDPSocketOptions(
            mark: spec.firewallMark, gso: settings.offloads.udpGSO, gro: settings.offloads.udpGRO)
    }

    /// The gateway, with the floor of timestamps that earlier runs left.
    static func gateway(
        _ settings: DaemonSettings, _ keypairs: KeypairTable, _ sockets: UnderlaySockets,
        timestamps: inout TimestampStore, _ log: Logger, now: Instant
    ) -> Gateway {
        var entropy = SystemEntropy()
        let probeSecret = ProbeSecret(using: &entropy)
        let plan = settings.plan
        var device = Device(
            privateKey: settings.spec.privateKey, keypairs: keypairs, entropy: entropy,
            timestampFloor: timestamps.load(unixNanoseconds: SystemClock.unixNanoseconds()))
        device.tracesHandshakes = log.logLevel <= .debug
        return Gateway(
            settings.spec,
            settings: Gateway.Settings(
                name: settings.name, managesLink: settings.managesLink, installsRoutes: plan.table != nil,
                leadsOuterPackets: plan.leadsOuterPackets, routeMetric: plan.metric,
                findsPathMTU: settings.mtu == .automatic,
                errorText: { "\(SystemError.text($0)) (\(SystemError.name($0)))" }),
            device: device, probeSecret: probeSecret, underlays: sockets.states,
            interface: InterfaceState(mtu: 1420, isUp: false), now: now)
    }

    /// Before anything that can fail: from here on a start that does not get far fails closed. What an earlier run
    /// left stays as it is until the routes are reconciled.
    static func layGuard(_ settings: DaemonSettings, _ kept: KeptRoutes, _ log: Logger) {
        var spec = settings.spec
        for route in kept.routes {
            spec.add(ConnectionSpec.Route(route.prefix, origin: .kept), to: route.connection)
        }
        let networks = LocalNetwork.all(except: settings.interface)
        RouteKeeper.layGuard(
            settings.plan, spec.guardPrefixes(metric: settings.plan.metric, networks), log: log)
    }

    /// Nil where this user may not make the socket, and there is a configuration to run without it.
    private static func listenForWg(_ settings: DaemonSettings, _ log: Logger) throws(SystemError)
        -> UnixListener?
    {
        if let descriptor = settings.wgDescriptor { return try UnixListener(adopting: descriptor) }
        do throws(SystemError) {
            return try openWgSocket(settings)
        } catch {
            let isForbidden = [EPERM, ENOENT, EACCES, EROFS].contains(error.code)
            guard settings.managesLink, isForbidden else { throw error }
            log.warning("the wg program cannot be used", metadata: ["error": "\(error)"])
            return nil
        }
    }

    static func wgServer(
        _ settings: DaemonSettings, token: UInt64, _ epoll: borrowing Epoll, drops: DropCounters,
        _ log: Logger
    ) throws(SystemError) -> WgServer? {
        guard let listener = try listenForWg(settings, log) else { return nil }
        return try WgServer(
            listener: listener, listenerToken: token, epoll: epoll, clientLimit: settings.wgClientLimit,
            interfaceIndex: { name in
                guard let netlink = try? Netlink() else { return nil }
                return ((try? netlink.link(name)) ?? nil)?.index
            }, drops: drops, log: log)
    }

    static func openWgSocket(_ settings: DaemonSettings) throws(SystemError) -> UnixListener {
        try AtomicFile.makeDirectory(
            WgServer.directory, mode: 0o755, sharedWith: SystemFiles.serviceUser)
        return try UnixListener(path: WgServer.socket(of: settings.interface), mode: 0o600)
    }

    private static let capability =
        "run vgwd as root, or with CAP_NET_ADMIN and a /dev/net/tun that its user may open, as its unit does"
}
