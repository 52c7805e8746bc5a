internal import LinuxIO
internal import Logging

/// The sockets that operators' programs use: the control API's, and that of the `wg` program. Whoever removes the file of
/// one finds it put back.
struct ClientSockets: ~Copyable {
    private let settings: DaemonSettings
    private let log: Logger
    /// Nil where this user may not make the socket.
    var wg: WgServer?
    /// Nil where there is none.
    var controlServer: (any ControlListener)?
    /// Why the `wg` socket cannot be put back; nil when it is there.
    private var wgProblem: SystemError?
    /// Why the control socket cannot be used; nil when it can.
    private var serverProblem: String?
    private(set) var isServerReady: Bool

    init(_ settings: DaemonSettings, wg: consuming WgServer?, log: Logger) {
        self.settings = settings
        self.wg = wg
        self.log = log
        isServerReady = settings.controlSocket == nil
    }

    mutating func serverIsReady() {
        if serverProblem != nil { log.notice("vgwctl can be used again") }
        serverProblem = nil
        isServerReady = true
    }

    /// At start a configured gateway does not go on without its control socket. Later on, and for who drives `wg`, its
    /// loss is no reason to stop traffic: the server tries again. Returns how the run ends, if it does.
    mutating func serverHasFailed(_ reason: String, exitStatus: Int32) -> Ending? {
        guard !settings.managesLink || isServerReady else {
            return .failed("the control socket does not work: \(reason)", exitStatus: exitStatus)
        }
        if reason != serverProblem {
            log.warning("vgwctl cannot be used", metadata: ["error": "\(reason)"])
        }
        serverProblem = reason
        isServerReady = true
        return nil
    }

    /// Somebody may have removed a socket's file. Returns how the run ends, if it does.
    mutating func restore(_ epoll: borrowing Epoll) -> Ending? {
        if controlServer?.restoreIfLost() ?? false {
            log.warning("the control socket was removed: it is put back")
        }
        guard let isPresent = wg?.isPresent, !isPresent else { return nil }
        guard settings.managesLink else { return .stopped("the wg socket was removed") }
        do throws(SystemError) {
            try wg?.listen(at: try Startup.openWgSocket(settings), epoll: epoll)
            wgProblem = nil
            log.warning("the wg socket was removed: it is put back")
        } catch {
            if error != wgProblem {
                log.warning("the wg program cannot be used", metadata: ["error": "\(error)"])
            }
            wgProblem = error
        }
        return nil
    }
}
