package import Logging
package import WireGuard

/// What listens on the control socket: `ControlServer`, in a target of its own, so that programs which only read
/// configurations link no HTTP server. The program hands it in.
package protocol ControlListener: Sendable {
    /// Returns at once; the mailbox hears of success and failure.
    func start()
    /// Listens anew when the socket's file was removed or replaced, or when the server has failed. Requests that are
    /// being answered are finished. Returns true if the file was gone.
    func restoreIfLost() -> Bool
    /// Lets requests that are being answered finish, for a second at most.
    func stop()
}

/// Where a control server listens, and who answers what it is asked.
package struct ControlSocket: Sendable {
    package let path: String
    package let mailbox: Mailbox<ControlCommand>
    /// Clients at a time.
    package let clientLimit: Int
    package let drops: DropCounters
    package let log: Logger

    package init(
        path: String, mailbox: Mailbox<ControlCommand>, clientLimit: Int, drops: DropCounters, log: Logger
    ) {
        self.path = path
        self.mailbox = mailbox
        self.clientLimit = clientLimit
        self.drops = drops
        self.log = log
    }
}
