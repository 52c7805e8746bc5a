internal import ControlAPI
internal import Logging
internal import WireGuard

/// What the log and the events have said of refused handshakes: of each kind from each sender once a minute, and of all
/// together no more than a flood of made-up senders may write.
struct ToldRefusals {
    private struct Kind: Hashable {
        let reason: DropReason
        let key: PublicKey?
        let address: IPAddress
    }

    private static let interval: Duration = .seconds(60)
    private static let limitInInterval = 10

    private var told: [Kind: (count: UInt64, at: Instant)] = [:]
    private var budget = Self.limitInInterval
    private var budgetSince: Instant?

    /// How many of these handshakes are to be told of now; nil is none.
    mutating func news(of refusal: RefusedHandshakes.Refusal, now: Instant) -> UInt64? {
        let kind = Kind(reason: refusal.reason, key: refusal.key, address: refusal.address)
        let before = told[kind]
        // One that was pushed out and came again counts from the beginning.
        let count =
            before.map { $0.count <= refusal.count ? refusal.count - $0.count : refusal.count }
            ?? refusal.count
        guard count > 0, before.map({ now - $0.at >= Self.interval }) ?? true else { return nil }
        if budgetSince.map({ now - $0 >= Self.interval }) ?? true {
            (budget, budgetSince) = (Self.limitInInterval, now)
            told = told.filter { now - $0.value.at < Self.interval * 10 }
        }
        guard budget > 0 else { return nil }
        budget -= 1
        told[kind] = (refusal.count, now)
        return count
    }
}

/// Whoever has a wrong key hears nothing: this end says who spoke, and why it was not let in.
extension ControlLoop {
    /// A network may deliver an initiation twice: that is no sign of a clock that was set back.
    private static let repeatedTimestamps: UInt64 = 3
    /// Handshakes are tried every 5 s for 90 s (WireGuard, section 6.4): who is not heard for so long has given up.
    private static let refusalAge: Duration = .seconds(120)

    func tellOfRefusals() {
        for refusal in recentRefusals {
            guard let count = toldRefusals.news(of: refusal, now: now) else { continue }
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
