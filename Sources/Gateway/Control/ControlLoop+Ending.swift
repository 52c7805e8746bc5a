internal import ControlAPI
internal import DataPlane
internal import Glibc
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What may end a run, and what is done at its end.
extension ControlLoop {
    func handle(signal number: Int32) {
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

    func tunIsGone() {
        guard ending == nil else { return }
        let text = "interface \(settings.interface) was deleted"
        ending = settings.managesLink ? .failed(text) : .stopped(text)
    }

    /// Before anything that can fail: from here on a start that does not get far fails closed. What an earlier run
    /// left stays as it is until the routes are reconciled.
    static func layGuard(_ settings: DaemonSettings, _ kept: KeptRoutes, _ log: Logger) {
        var state = settings.state
        for route in kept.routes {
            state.add(Connection.Route(route.prefix, origin: .kept), to: route.connection)
        }
        let networks = LocalNetwork.all(except: settings.interface)
        RouteKeeper.layGuard(
            settings.plan, state.guardPrefixes(metric: settings.plan.metric, networks), log: log)
    }

    /// Once the guard is there under the numbers of this run, those of earlier ones go.
    func removeLeftovers() {
        guard settings.managesLink, let marks = settings.earlierMarks else { return }
        let (count, refusal) = keeper.removeLeftovers(marks: marks)
        if count > 0 {
            log.notice(
                "removed the rules and routes of an earlier run, which had another mark or table",
                metadata: ["count": "\(count)"])
        }
        if let refusal { log.error("kernel refused", metadata: ["error": "\(refusal)"]) }
    }

    func finish(_ ending: Ending) {
        ServiceNotification.send("STOPPING=1")
        endDrills()
        if isAnnounced { tellOfEnd() }
        dataPlane.stop()
        timestamps.end(device.lastTimestamp)
        if ending.keepsGuard {
            keeper.reconcile(guardedOnly(), now: now)
        } else if let refusal = keeper.removeAll().refusal {
            log.error(
                "the last resort is left behind: 'vgwd unguard' takes it away",
                metadata: ["error": "\(refusal)"])
        }
        events.end()
        hooks?.stop()
        resolver.stop()
        for command in mailbox.take() { command.refuse() }
    }

    // MARK: Sockets

    func serverIsReady() {
        if serverProblem != nil { log.notice("vgwctl can be used again") }
        serverProblem = nil
        isServerReady = true
    }

    /// At start a configured gateway does not go on without its control socket. Later on, and for who drives `wg`, its
    /// loss is no reason to stop traffic: the server tries again.
    func serverHasFailed(_ reason: String, _ exitStatus: Int32) {
        if settings.managesLink, !isServerReady {
            let text = "the control socket does not work: \(reason)"
            ending = ending ?? .failed(text, exitStatus: exitStatus)
        } else {
            if reason != serverProblem {
                log.warning("vgwctl cannot be used", metadata: ["error": "\(reason)"])
            }
            serverProblem = reason
            isServerReady = true
        }
    }

    /// Somebody may have removed a socket's file.
    func keepSockets() {
        if controlServer?.restoreIfLost() ?? false {
            log.warning("the control socket was removed: it is put back")
        }
        guard let isPresent = wg?.isPresent, !isPresent else { return }
        guard settings.managesLink else {
            ending = ending ?? .stopped("the wg socket was removed")
            return
        }
        do throws(SystemError) {
            try wg?.listen(at: try Self.openWgSocket(settings), epoll: epoll)
            wgSocketProblem = nil
            log.warning("the wg socket was removed: it is put back")
        } catch {
            if error != wgSocketProblem {
                log.warning("the wg program cannot be used", metadata: ["error": "\(error)"])
            }
            wgSocketProblem = error
        }
    }

    /// Nil where this user may not make the socket, and there is a configuration to run without it.
    static func listen(_ settings: DaemonSettings, _ log: Logger) throws(SystemError) -> UnixListener? {
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

    private static func openWgSocket(_ settings: DaemonSettings) throws(SystemError) -> UnixListener {
        try AtomicFile.makeDirectory(
            WgServer.directory, mode: 0o755, sharedWith: SystemFiles.serviceUser)
        return try UnixListener(path: WgServer.socket(of: settings.interface), mode: 0o600)
    }
}
