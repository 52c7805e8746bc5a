internal import ControlAPI
internal import Logging
internal import WireGuard

/// Two hosts that have one key (``KeySharing``).
extension ControlLoop {
    /// After the peer was heard elsewhere, and after each handshake.
    func lookForSharedKey(_ peer: PeerID) {
        guard let path = device.path(of: peer), let endpoint = path.underlay?.endpoint else { return }
        let change = tunnels[peer]?.sharing.note(
            endpoint, roamsUnderOldSession: path.roamsUnderOldSession, now: now)
        if change == .began { tellOfSharedKey(peer) }
    }

    /// Once a second.
    func lookForSharedKeysEnded() {
        for peer in tunnels.peers where tunnels[peer]?.sharing.look(now: now) == .ended {
            guard let record = tunnels[peer] else { continue }
            raise(
                .keyUnshared, connection: record.connection, tunnel: record.name, reason: "one-host",
                "only one host uses the key of tunnel \(record.name) now", level: .notice)
        }
    }

    private func tellOfSharedKey(_ peer: PeerID) {
        guard let record = tunnels[peer], let words = sharedKeyWords(of: peer) else { return }
        raise(
            .keyShared, connection: record.connection, tunnel: record.name, reason: "two-hosts", words,
            details: ["endpoints": record.sharing.hosts.map(\.description).joined(separator: " ")],
            level: .warning)
    }

    /// Nil where nothing says that the key is shared.
    func sharedKeyWords(of peer: PeerID) -> String? {
        guard let record = tunnels[peer], !record.sharing.hosts.isEmpty else { return nil }
        let hosts = record.sharing.hosts.map(\.description)
        return "\(hosts.count == 2 ? "two" : "\(hosts.count)") hosts use the key of tunnel \(record.name): "
            + "\(hosts.joined(separator: " and ")); give each a key of its own"
    }
}
