internal import ControlAPI
internal import Logging
internal import WireGuard

/// A trouble that is told of, each kind for itself (`ToldNews`).
enum Trouble: Hashable {
    case handshake(DropReason, key: PublicKey?, IPAddress)
    case source(PeerID, IPAddress)
    case lostAnswers(PeerID)
}

/// Whoever has a wrong key hears nothing: this end says who spoke, and why it was not let in.
extension ControlLoop {
    /// A network may deliver an initiation twice: that is no sign of a clock that was set back.
    private static let repeatedTimestamps: UInt64 = 3
    /// Handshakes are tried every 5 s for 90 s (WireGuard, section 6.4): who is not heard for so long has given up.
    private static let refusalAge: Duration = .seconds(120)

    func tellOfTroubles() {
        tellOfRefusals()
        tellOfSources()
        tellOfLostAnswers()
    }

    private func tellOfRefusals() {
        for refusal in recentRefusals {
            let trouble = Trouble.handshake(refusal.reason, key: refusal.key, refusal.address)
            guard let count = toldTroubles.news(of: trouble, count: refusal.count, now: now) else { continue }
            let tunnel = refusal.key.flatMap { knownTunnel(of: $0) }
            var details = ["endpoint": "\(refusal.endpoint)", "count": "\(count)"]
            details["key"] = refusal.key?.base64
            raise(
                .handshakeRefused, connection: tunnel.flatMap { state.connection(ofTunnel: $0.name)?.name },
                tunnel: tunnel?.name, reason: refusal.reason.name, words(refusal, count: count),
                details: details,
                level: .warning)
        }
    }

    /// The latest last.
    var recentRefusals: [RefusedHandshakes.Refusal] {
        device.refusedHandshakes.all.filter { refusal in
            now - refusal.last < Self.refusalAge
                && (refusal.reason != .timestampNotNewer || refusal.count >= Self.repeatedTimestamps)
        }
    }

    /// In the status: what a tunnel's own row does not say.
    var refusalNotices: [String] { recentRefusals.map { words($0, count: $0.count) } }

    /// The latest refusal of a sender that no tunnel is for.
    var latestStranger: RefusedHandshakes.Refusal? {
        recentRefusals.last { $0.reason == .peerUnknown || $0.reason == .mac1Invalid }
    }

    private func words(_ refusal: RefusedHandshakes.Refusal, count: UInt64) -> String {
        let tunnel = refusal.key.flatMap { knownTunnel(of: $0) }
        let why =
            switch refusal.reason {
            case .peerUnknown: "key \(refusal.key?.base64 ?? "") is of no tunnel"
            case .mac1Invalid: "they are for another public key than this gateway's"
            case .cipherMismatch:
                "tunnel \(tunnel?.name ?? "") has cipher \(tunnel?.cipher.rawValue ?? ""), the far end another"
            case .timestampNotNewer:
                "the clock of tunnel \(tunnel?.name ?? "")'s far end is behind its last handshake's"
            default: refusal.reason.name
            }
        return "\(count) handshake\(count == 1 ? "" : "s") from \(refusal.endpoint) refused: \(why)"
    }

    private func knownTunnel(of key: PublicKey) -> Tunnel? {
        state.connections.lazy.flatMap(\.tunnels).first { $0.publicKey == key }
    }
}

/// What comes by a tunnel from where nothing may come.
extension ControlLoop {
    /// Whoever sends no more for so long has stopped.
    private static let sourceAge: Duration = .seconds(60)

    func sourceWasRefused(_ packet: [UInt8], length: Int, by peer: PeerID) {
        refusedSources.note(packet, length: length, by: peer, now: now)
    }

    var sourceNotices: [String] { recentSources.map(words) }

    private var recentSources: [RefusedSources.Source] {
        refusedSources.all.filter { now - $0.last < Self.sourceAge && tunnels[$0.peer] != nil }
    }

    private func tellOfSources() {
        for source in recentSources {
            guard let record = tunnels[source.peer],
                let count = toldTroubles.news(
                    of: .source(source.peer, source.address), count: source.count, now: now)
            else { continue }
            raise(
                .sourceRefused, connection: record.connection, tunnel: record.name,
                reason: DropReason.innerSourceNotAllowed.name, words(source),
                details: [
                    "source": "\(source.address)", "destination": "\(source.destination)",
                    "count": "\(count)",
                ], level: .warning)
        }
    }

    private func words(_ source: RefusedSources.Source) -> String {
        let record = tunnels[source.peer]
        let owners = state.connections.filter { connection in
            connection.name != record?.connection
                && connection.routes.contains { $0.prefix.contains(source.address) }
        }
        return source.words(
            tunnel: record?.name ?? "", connection: record?.connection ?? "", inside: record?.inside,
            owners: owners.map(\.name))
    }
}

/// A far end that asks for a session again and again, and never uses what it is answered.
extension ControlLoop {
    /// One answer may be lost, and two may have crossed.
    private static let lostAnswers = 3
    /// A handshake is tried every 5 s (WireGuard, section 6.1).
    private static let answerAge: Duration = .seconds(20)

    var lostAnswerNotices: [String] { lostAnswerCounts.map { words($0, $1, $2) } }

    private var lostAnswerCounts: [(PeerID, Int, Endpoint?)] {
        tunnels.peers.compactMap { peer in
            guard let answers = device.unconfirmedAnswers(of: peer), answers.count >= Self.lostAnswers,
                now - answers.last < Self.answerAge
            else { return nil }
            return (peer, answers.count, device.path(of: peer)?.underlay?.endpoint)
        }
    }

    private func tellOfLostAnswers() {
        for (peer, count, endpoint) in lostAnswerCounts {
            guard toldTroubles.news(of: .lostAnswers(peer), count: UInt64(count), now: now) != nil else {
                continue
            }
            var details = ["count": "\(count)"]
            details["endpoint"] = endpoint.map { "\($0)" }
            raise(
                .answersLost, connection: tunnels[peer]?.connection, tunnel: tunnels[peer]?.name,
                reason: "answers-lost", words(peer, count, endpoint), details: details, level: .warning)
        }
    }

    private func words(_ peer: PeerID, _ count: Int, _ endpoint: Endpoint?) -> String {
        let who = endpoint.map { " at \($0)" } ?? ""
        return
            "tunnel \(tunnels[peer]?.name ?? ""): the far end\(who) asked for a session \(count) times, and used none of "
            + "the answers: they do not get there (a firewall or NAT between), or it cannot read them (another "
            + "pre-shared key)"
    }
}
