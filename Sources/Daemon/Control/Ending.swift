/// How a run ends, and so what of the kernel's state outlives it.
///
/// The guard, that is the rules and the routes of type unreachable (`RoutePlan`), keeps packets that belong in a tunnel
/// from leaving in clear. Only the operator's own stop takes it away. After every other end it stays, like after
/// `kill -9`, and the next start adopts it.
package enum Ending: Sendable {
    /// The operator's stop (SIGTERM, SIGINT, SIGQUIT); without a configuration also the removal of the `wg` socket or of the
    /// interface. Nothing is left behind.
    case stopped(String)
    /// SIGUSR1, which systemd sends for a restart: another run follows.
    case handedOver(String)
    /// `exitStatus` is the process's: `DaemonError` names them.
    case failed(String, exitStatus: Int32 = DaemonError.failure)

    /// For its event: the reason, and what it was.
    var words: (reason: String, what: String) {
        switch self {
        case .stopped(let text): ("asked", text)
        case .handedOver(let text): ("restart", text)
        case .failed(let text, _): ("failure", text)
        }
    }

    package var keepsGuard: Bool {
        switch self {
        case .stopped: false
        case .handedOver, .failed: true
        }
    }
}

/// Signals that the control thread takes, by their Linux numbers.
enum Signal: Int32, CaseIterable {
    case hangUp = 1
    case interrupt = 2
    case quit = 3
    case user1 = 10
    case terminate = 15
}
