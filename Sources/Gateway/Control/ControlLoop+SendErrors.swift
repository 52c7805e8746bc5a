internal import LinuxIO
internal import Logging
internal import WireGuard

/// What this host does not let out, told within a second, whoever found it: control or a data thread.
extension ControlLoop {
    /// A data thread that has nothing to send cannot find that it could again: control's own messages show it, once the
    /// data thread's failure is not of the same moment.
    private static let dataFailureAge: Duration = .seconds(2)

    func noteSent(by peer: PeerID?) {
        guard let peer else { return }
        tunnels[peer]?.sendError = nil
        guard let path = device.path(of: peer), let failure = path.sendFailure else { return }
        if now - failure.at > Self.dataFailureAge { path.sendWorks() }
    }

    /// Nil while sending works.
    func sendProblem(of peer: PeerID) -> SendProblem? {
        guard let record = tunnels[peer], let path = device.path(of: peer),
            let endpoint = path.underlay?.endpoint,
            let code = record.sendError ?? path.sendFailure?.code
        else { return nil }
        return SendProblem(
            code, to: endpoint, by: underlays.bindings[Int(record.socket)], mark: state.firewallMark)
    }

    /// Once a second: a line when it begins, when it changes and when it ends.
    func tellOfSendErrors() {
        for peer in tunnels.peers {
            let problem = sendProblem(of: peer)
            guard tunnels[peer]?.toldSendError != problem?.code else { continue }
            tunnels[peer]?.toldSendError = problem?.code
            if let problem {
                log.warning(
                    "sending fails",
                    metadata: names(
                        of: peer, adding: ["error": "\(problem.error)", "hint": "\(problem.remedy)"]))
            } else {
                log.notice("sending works again", metadata: names(of: peer))
            }
        }
    }
}
