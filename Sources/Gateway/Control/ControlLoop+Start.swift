internal import Glibc
internal import LinuxIO
internal import WireGuard

/// What may keep a run from starting, and what to do about it.
extension ControlLoop {
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
    static func openSockets(_ settings: DaemonSettings) throws(DaemonError) -> Underlays {
        let state = settings.state
        do throws(SystemError) {
            return try Underlays(
                port: state.listenPort, workers: settings.workers, options: socketOptions(settings, state),
                bindings: state.connections.flatMap(\.tunnels).map(\.binding))
        } catch {
            throw switch error.code {
            case EACCES:
                DaemonError(
                    "\(error): \(LowPort.remedy(state.listenPort))", exitStatus: DaemonError.notPermitted)
            case EPERM:
                DaemonError("\(error): \(Self.capability)", exitStatus: DaemonError.notPermitted)
            case EADDRINUSE:
                DaemonError("\(error): \(portTaken(among: ports(of: state)))")
            default: DaemonError("\(error)")
            }
        }
    }

    private static func ports(of state: GatewayState) -> [UInt16] {
        let own = state.connections.flatMap(\.tunnels).compactMap(\.binding.listenPort)
        return ([state.listenPort] + own).filter { $0 != 0 }
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

    private static let capability =
        "run vgwd as root, or with CAP_NET_ADMIN and a /dev/net/tun that its user may open, as its unit does"
}
