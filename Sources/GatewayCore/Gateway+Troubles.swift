internal import ControlAPI
internal import WireGuard

/// A trouble that is told of, each kind for itself (`ToldNews`).
enum Trouble: Hashable {
    case handshake(DropReason, key: PublicKey?, IPAddress)
    case source(PeerID, IPAddress)
    case lostAnswers(PeerID)
}

/// Troubles that strangers and far ends make: looked at once a second, told of by event, and shown by the status while they
/// last.
extension Gateway {
    mutating func tellOfTroubles() {
        tellOfRefusals()
        tellOfSources()
        tellOfLostAnswers()
    }

    /// In the status: what a tunnel's own row does not say.
    package var troubleNotices: [String] {
        recentRefusals.map { words($0, count: $0.count) } + recentSources.map { words($0) }
            + lostAnswers.map { words($0) }
    }

    // MARK: Handshakes that were refused

    /// Whoever has a wrong key hears nothing: this end says who spoke, and why it was not let in.
    private mutating func tellOfRefusals() {
        for refusal in recentRefusals {
            let trouble = Trouble.handshake(refusal.reason, key: refusal.key, refusal.address)
            guard let count = toldTroubles.news(of: trouble, count: refusal.count, now: context.now) else {
                continue
            }
            let tunnel = refusal.key.flatMap { knownTunnel(of: $0) }
            var details = ["endpoint": "\(refusal.endpoint)", "count": "\(count)"]
            details["key"] = refusal.key?.base64
            context.raise(
                .handshakeRefused, connection: tunnel.flatMap { spec.connection(ofTunnel: $0.name)?.name },
                tunnel: tunnel?.name, reason: refusal.reason.name, words(refusal, count: count),
                details: details, level: .warning)
        }
    }

    /// A network may deliver an initiation twice: that is no sign of a clock that was set back.
    private static let repeatedTimestamps: UInt64 = 3
    /// Handshakes are tried every 5 s for 90 s (WireGuard, section 6.4): who is not heard for so long has given up.
    private static let refusalAge: Duration = .seconds(120)

    /// The latest last.
    private var recentRefusals: [RefusedHandshakes.Refusal] {
        context.device.refusedHandshakes.all.filter { refusal in
            context.now - refusal.last < Self.refusalAge
                && (refusal.reason != .timestampNotNewer || refusal.count >= Self.repeatedTimestamps)
        }
    }

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

    private func knownTunnel(of key: PublicKey) -> TunnelSpec? {
        spec.connections.lazy.flatMap(\.tunnels).first { $0.publicKey == key }
    }

    // MARK: Packets from where nothing may come

    /// Whoever sends no more for so long has stopped.
    private static let sourceAge: Duration = .seconds(60)

    private var recentSources: [RefusedSources.Source] {
        refusedSources.all.filter { context.now - $0.last < Self.sourceAge && tunnel(of: $0.peer) != nil }
    }

    private mutating func tellOfSources() {
        for source in recentSources {
            guard let (connection, index) = tunnel(of: source.peer),
                let count = toldTroubles.news(
                    of: .source(source.peer, source.address), count: source.count, now: context.now)
            else { continue }
            context.raise(
                .sourceRefused, connection: connection.name, tunnel: connection.tunnels[index].name,
                reason: DropReason.innerSourceNotAllowed.name, words(source),
                details: [
                    "source": "\(source.address)", "destination": "\(source.destination)",
                    "count": "\(count)",
                ], level: .warning)
        }
    }

    private func words(_ source: RefusedSources.Source) -> String {
        let found = tunnel(of: source.peer)
        let owners = spec.connections.filter { connection in
            connection.name != found?.connection.name
                && connection.routes.contains { $0.prefix.contains(source.address) }
        }
        let tunnel = found.map { $0.connection.tunnels[$0.index] }
        return source.words(
            tunnel: tunnel?.name ?? "", connection: found?.connection.name ?? "",
            inside: tunnel?.probedLink, owners: owners.map(\.name))
    }

    // MARK: Answers that are lost

    /// A far end that asks for a session again and again, and never uses what it is answered.
    private struct LostAnswers {
        let peer: PeerID
        let connection: String
        let tunnel: String
        let count: Int
        let endpoint: Endpoint?
    }

    /// One answer may be lost, and two may have crossed.
    private static let lostAnswersNeeded = 3
    /// A handshake is tried every 5 s (WireGuard, section 6.1).
    private static let answerAge: Duration = .seconds(20)

    private var lostAnswers: [LostAnswers] {
        var found: [LostAnswers] = []
        for connection in connections {
            for tunnel in connection.tunnels {
                guard let answers = context.device.unconfirmedAnswers(of: tunnel.peer),
                    answers.count >= Self.lostAnswersNeeded, context.now - answers.last < Self.answerAge
                else { continue }
                found.append(
                    LostAnswers(
                        peer: tunnel.peer, connection: connection.name, tunnel: tunnel.name,
                        count: answers.count,
                        endpoint: context.device.path(of: tunnel.peer)?.underlay?.endpoint))
            }
        }
        return found
    }

    private mutating func tellOfLostAnswers() {
        for lost in lostAnswers {
            let count = UInt64(lost.count)
            guard toldTroubles.news(of: .lostAnswers(lost.peer), count: count, now: context.now) != nil else {
                continue
            }
            var details = ["count": "\(count)"]
            details["endpoint"] = lost.endpoint.map { "\($0)" }
            context.raise(
                .answersLost, connection: lost.connection, tunnel: lost.tunnel, reason: "answers-lost",
                words(lost), details: details, level: .warning)
        }
    }

    private func words(_ lost: LostAnswers) -> String {
        let who = lost.endpoint.map { " at \($0)" } ?? ""
        return
            "tunnel \(lost.tunnel): the far end\(who) asked for a session \(lost.count) times, and used none of "
            + "the answers: they do not get there (a firewall or NAT between), or it cannot read them (another "
            + "pre-shared key)"
    }

    // MARK: LOG_LEVEL=debug

    /// Each message of a handshake, at both ends.
    mutating func note(_ trace: HandshakeTrace) {
        var fields = ["endpoint": "\(trace.endpoint)"]
        let message: String
        switch trace.step {
        case .initiationSent(let number):
            fields["number"] = "\(number)"
            message = "handshake initiation sent"
        case .initiationReceived: message = "handshake initiation received"
        case .responseSent: message = "handshake response sent"
        case .responseReceived: message = "handshake response received"
        case .cookieSent: message = "handshake cookie sent: this end is under load"
        case .cookieReceived: message = "handshake cookie received: the far end is under load"
        case .refused(let reason, let key):
            fields["reason"] = reason.name
            fields["key"] = key?.base64
            message = "handshake message refused"
        }
        if let (connection, index) = trace.peer.flatMap({ tunnel(of: $0) }) {
            fields = connection.fields(index, fields)
        }
        context.note(.debug, message, fields)
    }
}
