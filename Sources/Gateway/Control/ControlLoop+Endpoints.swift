internal import Logging
internal import WireGuard

/// Endpoints given by name: resolved off this thread, again while they do not resolve, and again while a
/// tunnel gets no answer, as the name may lead elsewhere by now.
extension ControlLoop {
    private static let retryInterval: Duration = .seconds(10)
    /// How long a tunnel may go without an answer before its name is looked at again.
    private static let patience: Duration = .seconds(10)
    private static let refreshInterval: Duration = .seconds(30)

    var endpointDeadline: Instant? { notes.values.lazy.compactMap(\.resolveAt).min() }

    func handleEndpointTimeouts() {
        guard let deadline = endpointDeadline, deadline <= now else { return }
        for (peer, note) in notes {
            guard let due = note.resolveAt, due <= now else { continue }
            notes[peer]?.resolveAt = now + Self.refreshInterval
            guard let status = device.status(of: peer),
                case .name(let host, let port) = state.tunnel(of: status.publicKey)?.endpoint,
                !note.isResolving, isWanting(status, note)
            else { continue }
            notes[peer]?.isResolving = true
            let key = status.publicKey
            let mailbox = mailbox
            resolver.resolve(host, port: port) { endpoint, problem in
                mailbox.post(.resolved(key, endpoint, problem: problem))
            }
        }
    }

    func nameWasResolved(_ key: PublicKey, _ endpoint: Endpoint?, problem: String?) {
        guard let peer = device.peerID(for: key), let note = notes[peer] else { return }
        notes[peer]?.isResolving = false
        guard let tunnel = state.tunnel(of: key), case .name(let host, _) = tunnel.endpoint else {
            notes[peer]?.resolveAt = nil
            return
        }
        guard let endpoint else {
            notes[peer]?.resolveAt = now + Self.retryInterval
            if note.nameProblem == nil {
                log.warning(
                    "endpoint does not resolve",
                    metadata: names(
                        of: peer, adding: ["host": "\(host)", "error": "\(problem ?? "unknown")"]))
            }
            notes[peer]?.nameProblem = problem ?? "\(host) does not resolve"
            return
        }
        notes[peer]?.nameProblem = nil
        guard let status = device.status(of: peer), isWanting(status, note),
            status.underlay?.endpoint != endpoint
        else { return }
        log.info(
            "endpoint resolved",
            metadata: names(of: peer, adding: ["host": "\(host)", "endpoint": "\(endpoint)"]))
        device.setUnderlay(UnderlayPath(endpoint: endpoint), for: peer, now: now)
        device.initiate(peer, now: now)
    }

    /// No session, or one at whose other end nobody answers any more.
    private func isWanting(_ status: PeerStatus, _ note: PeerNotes) -> Bool {
        status.state != .established || note.askingSince.map { now - $0 >= Self.patience } ?? false
    }
}
