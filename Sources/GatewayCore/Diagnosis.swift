package import ControlAPI
package import WireGuard

/// What keeps a tunnel from carrying packets, and what to do about it, in words: from facts alone. Nothing else words
/// an outage.
///
/// The first row that applies:
///
/// | what is so | reason | hint |
/// |---|---|---|
/// | an operator took it down | that | |
/// | the wire that it leaves by is down | the wire's problem | the wire's remedy |
/// | this host does not let packets out | the send error | its remedy |
/// | probes are answered again | how long it is held down | |
/// | probes are not answered | for how long | |
/// | targets, loss, round trip | the limit that is passed | |
/// | no name of the endpoint resolves | the resolver's problem | another name server |
/// | no private key | that | |
/// | another cipher at the far end | both names | the same at both |
/// | no endpoint | it is looked up, or must speak first | a stranger who was refused |
/// | no answer to handshakes | from where, for how long | what drops answers here, or what to look at there |
/// | a handshake was refused | its drop reason | by the drop reason |
package struct Diagnosis: Hashable, Sendable {
    /// What is known of a tunnel. Durations are ages.
    package struct Facts: Sendable {
        package var state: TunnelState
        package var cause: HealthReason
        package var inState: Duration
        package var liveness: Liveness
        package var holdDownLeft: Duration?
        package var isHoldDownInterrupted = false
        package var farInside: IPAddress?
        package var underlay: UnderlayState
        package var sendProblem: SendProblem?
        package var hasPrivateKey = true
        package var endpoint: Endpoint?
        /// Why the endpoint's names do not resolve.
        package var nameProblem: String?
        package var awaitedNames: String?
        /// What to do where this host's own name server does not answer.
        package var stubHint: String?
        package var cipher: Cipher
        package var foreignCipher: Cipher?
        package var failure: HandshakeFailure?
        package var isHandshaking = false
        /// Since the first unanswered initiation, and since anything was heard.
        package var asking: Duration?
        package var silent: Duration?
        /// Why answers may not reach this end, with what to do about it.
        package var returnProblem: String?
        /// The latest handshake that was refused, of a sender that no tunnel is for.
        package var stranger: RefusedHandshakes.Refusal?

        package init(
            state: TunnelState, cause: HealthReason, inState: Duration, liveness: Liveness,
            underlay: UnderlayState, cipher: Cipher
        ) {
            self.state = state
            self.cause = cause
            self.inState = inState
            self.liveness = liveness
            self.underlay = underlay
            self.cipher = cipher
        }

        /// It carries packets, and nothing is known to be wrong.
        package var isFine: Bool { state == .up && sendProblem == nil }
    }

    /// As a clause; nil where nothing is known to be wrong.
    package let reason: String?
    /// What to look at; nil where that cannot be said.
    package let hint: String?

    package init(_ facts: Facts) {
        reason = Self.reason(facts)
        hint = Self.hint(facts)
    }

    private static func reason(_ facts: Facts) -> String? {
        switch facts.cause {
        case .operator where facts.state == .disabled: return "an operator took it down"
        case .interfaceDown where facts.state == .down: return facts.underlay.problem ?? facts.cause.words
        default: break
        }
        if let problem = facts.sendProblem { return problem.description }
        switch facts.cause {
        case .probeTimeout where facts.liveness == .answering: return heldDown(facts)
        case .probeTimeout where facts.state == .down:
            let remote = facts.farInside.map { " by \($0)" } ?? ""
            let silence = "probes are not answered\(remote) for \(span(facts.inState))"
            guard facts.liveness == .heard else { return silence }
            return silence + ", though the far end is heard: what this end sends may be lost"
        case .targetUnreachable, .lossTooHigh, .roundTripTooLong: return facts.cause.words
        default: return handshakes(facts)
        }
    }

    private static func heldDown(_ facts: Facts) -> String {
        guard let left = facts.holdDownLeft?.seconds else {
            return "probes are answered again, but fewer in a row than bring it up"
        }
        let seconds = max(1, Int(left.rounded(.up)))
        guard !facts.isHoldDownInterrupted else {
            return
                "probes are answered again, but for some that are lost; it has flapped, and is used only where no "
                + "other tunnel is up until each is answered for \(seconds) s"
        }
        return
            "probes are answered again; it has flapped, and for \(seconds) s more it is used only where no other "
            + "tunnel is up"
    }

    private static func handshakes(_ facts: Facts) -> String? {
        if let problem = facts.nameProblem, facts.endpoint == nil { return problem }
        if !facts.hasPrivateKey { return "this gateway has no private key" }
        // It spoke, though this end may not know from where.
        if case .dropped(.cipherMismatch) = facts.failure {
            let theirs = facts.foreignCipher?.rawValue ?? "another"
            return "the far end uses cipher \(theirs), this end \(facts.cipher.rawValue)"
        }
        guard let endpoint = facts.endpoint else {
            if let names = facts.awaitedNames { return "looking up \(names)" }
            return "the far end's endpoint is not known: it must speak first"
        }
        switch facts.failure {
        case .noReply:
            let waiting = facts.asking.map { " for \(span($0))" } ?? ""
            // Its handshakes began only some time after it had fallen silent.
            let silence = facts.silent.map { ", and nothing heard for \(span($0))" } ?? ""
            return "no answer from \(endpoint)\(waiting)\(silence)"
        case .noPrivateKey: return "this gateway has no private key"
        case .noFreeIndex: return "too many sessions"
        case .dropped(let reason): return "a handshake with \(endpoint) was refused: \(reason.name)"
        // It was not known then, and is now.
        case .noEndpoint, nil: return facts.isHandshaking ? "waiting for an answer from \(endpoint)" : nil
        }
    }

    private static func hint(_ facts: Facts) -> String? {
        if facts.cause == .interfaceDown, let remedy = facts.underlay.remedy { return remedy }
        if let problem = facts.sendProblem { return problem.remedy }
        // Handshakes that have failed before say nothing of one that works.
        guard facts.liveness != .answering else { return nil }
        if facts.nameProblem != nil, let hint = facts.stubHint { return hint }
        if facts.failure == .noReply, let problem = facts.returnProblem { return problem }
        if facts.endpoint == nil, let stranger = facts.stranger {
            let key = stranger.key.map { ": its key \($0.base64) is not the one that is configured here" }
            return "is the far end the one at \(stranger.endpoint), which is refused"
                + (key ?? ", as it has another public key for this gateway") + "?"
        }
        return switch facts.failure {
        case .noReply where facts.cipher != .chacha20Poly1305:
            "is the far end a running vgwd with cipher \(facts.cipher.rawValue) too, does UDP get there, and does it "
                + "know this gateway's public key?"
        case .noReply:
            "is the far end running, does UDP get there, and does it know this gateway's public key?"
        case .dropped(.cipherMismatch): "nothing is negotiated: write the same cipher at both ends"
        case .dropped(.handshakeDecryptionFailed):
            "the keys, or the pre-shared keys, of the two ends do not match"
        case .dropped(.mac1Invalid): "the far end has another public key for this gateway"
        case .dropped(.timestampNotNewer): "the far end's clock was set back, or its handshake was replayed"
        case .dropped(.peerUnknown): "the far end's public key is not configured here"
        default: nil
        }
    }

    /// Why a tunnel has gone over into a state, for its event.
    static func cause(
        of transition: TunnelHealth.Transition, order: Caller?, underlay: UnderlayState,
        sendProblem: SendProblem?
    ) -> String {
        var why = order.map { "\($0.words) said so" } ?? transition.reason.words
        guard transition.to == .down else { return why }
        if transition.reason == .interfaceDown { why = underlay.problem ?? why }
        return sendProblem.map { "\(why); \($0)" } ?? why
    }

    private static func span(_ duration: Duration) -> String { TimeText.span(duration.seconds) }
}

extension Connection {
    /// `returnProblem`, `stubHint` and `stranger` are the shell's and the gateway's to know.
    func facts(of index: Int, _ context: borrowing GatewayContext) -> Diagnosis.Facts {
        let tunnel = tunnels[index]
        let now = context.now
        let status = context.device.status(of: tunnel.peer)
        func age(_ instant: Instant) -> Duration { now > instant ? now - instant : .zero }
        var facts = Diagnosis.Facts(
            state: tunnel.health.state, cause: tunnel.health.reason, inState: age(tunnel.health.since),
            liveness: tunnel.health.liveness, underlay: context.underlays[Int(tunnel.socket)],
            cipher: tunnel.spec.cipher)
        facts.holdDownLeft = tunnel.health.holdDownLeft(now: now)
        facts.isHoldDownInterrupted = tunnel.health.isHoldDownInterrupted
        facts.farInside = tunnel.probedLink?.remote
        facts.sendProblem = tunnel.sendProblem(context)
        facts.hasPrivateKey = context.device.privateKey != nil
        facts.endpoint = status?.underlay?.endpoint
        facts.nameProblem = tunnel.endpoints.problem
        facts.awaitedNames = tunnel.endpoints.awaitedNames
        facts.foreignCipher = status?.foreignCipher
        facts.failure = status?.lastFailure
        if case .handshaking = status?.state { facts.isHandshaking = true }
        facts.asking = tunnel.askingSince.map(age)
        facts.silent = context.device.path(of: tunnel.peer)?.lastReceived.map(age)
        return facts
    }

    func diagnosis(of index: Int, _ context: borrowing GatewayContext) -> Diagnosis {
        Diagnosis(facts(of: index, context))
    }
}
