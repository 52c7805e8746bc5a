internal import ControlAPI
internal import WireGuard

/// What becomes of each tunnel, and what its machines ask for.
extension Connection {
    mutating func add(_ spec: TunnelSpec, _ context: inout GatewayContext) {
        guard var tunnel = Tunnel(spec, of: self.spec, &context) else { return }
        tunnel.noteUnderlay(context)
        tunnels.append(tunnel)
        isUndecided = true
        endpointChanged(tunnels.count - 1, &context)
    }

    /// The one way to change a tunnel from outside: `body` tells its machines, and what follows is done.
    mutating func update(
        _ index: Int, _ context: inout GatewayContext,
        _ body: (inout Tunnel, borrowing GatewayContext) -> Void
    ) {
        body(&tunnels[index], context)
        settle(index, &context)
    }

    /// The same after a change of where it leads to.
    private mutating func endpointChanged(_ index: Int, _ context: inout GatewayContext) {
        tunnels[index].noteEndpoint(context)
        context.emit(.endpointChanged(tunnels[index].peer))
        settle(index, &context)
    }

    /// Does what the tunnel's machines ask for, until they ask for nothing more.
    mutating func settle(_ index: Int, _ context: inout GatewayContext) {
        while let output = tunnels[index].health.poll() {
            switch output {
            case .probe(let probe): send(probe, by: index, &context)
            case .transition(let transition): follow(transition, of: index, &context)
            case .liveness, .targets: isUndecided = true
            }
        }
        while let output = tunnels[index].endpoints.poll() { perform(output, of: index, &context) }
        if tunnels[index].wantsSession {
            tunnels[index].wantsSession = false
            context.device.initiate(tunnels[index].peer, now: context.now)
        }
        settlePathMTU(index, &context)
    }

    mutating func handleTunnelTimeout(_ index: Int, _ context: inout GatewayContext) {
        tunnels[index].noteHeard(context)
        tunnels[index].health.handleTimeout(now: context.now)
        tunnels[index].endpoints.handleTimeout(now: context.now)
        tunnels[index].handlePathMTUTimeout(context)
        settle(index, &context)
    }

    /// Asks for a session before there is anything to send, so that the first packet need not wait for it. Not for an
    /// interface that `wg` alone sets up: there a packet or a persistent keepalive asks, as in the kernel.
    func askAhead(_ index: Int, _ context: inout GatewayContext) {
        if context.settings.managesLink {
            context.device.initiate(tunnels[index].peer, now: context.now)
        }
    }

    func fields(_ index: Int, _ more: [String: String] = [:]) -> [String: String] {
        more.merging(["connection": name, "tunnel": tunnels[index].name]) { first, _ in first }
    }

    // MARK: Health

    private mutating func follow(
        _ transition: TunnelHealth.Transition, of index: Int, _ context: inout GatewayContext
    ) {
        isUndecided = true
        noteInDrill(.state(of: tunnels[index].name, transition.to), &context)
        switch transition.to {
        case .up: tunnels[index].endpoints.works(now: context.now)
        case .down where transition.reason == .probeTimeout:
            tunnels[index].endpoints.failed(now: context.now)
            // The far end may have lost the session, and cannot say so.
            tunnels[index].wantsSession = true
        default: break
        }
        let tunnel = tunnels[index]
        let caller = transition.reason == .operator ? context.orderer(of: name) : nil
        let why = Diagnosis.cause(
            of: transition, order: caller, underlay: context.underlays[Int(tunnel.socket)],
            sendProblem: tunnel.sendProblem(context))
        context.raise(
            .tunnel(is: transition.to), connection: name, tunnel: tunnel.name,
            from: transition.from.rawValue, to: transition.to.rawValue, reason: transition.reason.name,
            "\(tunnel.name) is \(transition.to.rawValue): \(why)", details: caller?.details() ?? [:],
            isDrill: tunnel.isDrilled, level: transition.to == .down && !tunnel.isDrilled ? .warning : .info)
    }

    private func send(
        _ probe: TunnelHealth.Probe, by index: Int, _ context: inout GatewayContext
    ) {
        let tunnel = tunnels[index]
        guard let inside = tunnel.probedLink else { return }
        if let target = probe.target {
            return ask(target, by: index, sequence: probe.sequence, for: .health, &context)
        }
        let packet = ProbePacket.echo(
            from: inside.local, to: inside.remote, secret: context.probeSecret, peer: tunnel.peer,
            sequence: probe.sequence, silence: tunnel.health.silence(now: context.now))
        if let packet { _ = context.device.sendProbe(packet, to: tunnel.peer, now: context.now) }
    }

    /// Asks a target, by its index in the health settings, through a tunnel.
    func ask(
        _ target: Int, by index: Int, sequence: UInt32, for use: ProbePorts.Use,
        _ context: inout GatewayContext
    ) {
        let tunnel = tunnels[index]
        guard let inside = tunnel.probedLink else { return }
        let source = spec.health.source(by: inside)
        let packet: [UInt8]?
        switch spec.health.targets[target] {
        case .echo(let address):
            packet = ProbePacket.echo(
                from: source, to: address, secret: context.probeSecret, peer: tunnel.peer,
                sequence: sequence, purpose: use == .drill ? .drillTarget : .target(target))
        case .tcp(let address, let port):
            let ports = ProbePorts(ForwardingTable.probePorts, tunnels: tunnels.count)
            packet = ProbePacket.syn(
                from: source, to: address, port: port, secret: context.probeSecret, sequence: sequence,
                ports: ports.ports(of: index, for: use))
        }
        if let packet { _ = context.device.sendProbe(packet, to: tunnel.peer, now: context.now) }
    }

    /// `arrival` is the tunnel that the reply came by, which need not be the one that was asked. Returns false if it
    /// answers nothing: it comes by another connection than the probe went, to another address than that came from, or
    /// from an address that was not asked.
    mutating func probeWasAnswered(
        _ packet: [UInt8], length: Int, by arrival: Int, at: Instant, _ context: inout GatewayContext
    ) -> Bool {
        let peers = tunnels.map(\.peer)
        guard
            let reply = ProbeReply(
                packet, length: length, secret: context.probeSecret, ports: ForwardingTable.probePorts),
            let (index, use) = reply.asked(among: peers), let inside = tunnels[index].probedLink,
            reply.answers(inside: inside, settings: spec.health)
        else { return false }
        switch reply.kind {
        case .echo(_, .health):
            // By another way than the probe it says nothing of this one.
            if index == arrival { noteAnswer(reply.sequence, target: nil, of: index, at: at, &context) }
        case .echo(_, .pathMTU):
            update(index, &context) { tunnel, context in
                tunnel.pathMTU?.probeAnswered(sequence: reply.sequence, now: context.now)
            }
        case .echo(_, .drill): noteInDrill(.probeAnswered(.gateway, sequence: reply.sequence), &context)
        case .echo, .synAck, .reset:
            switch use {
            case .health:
                noteAnswer(
                    reply.sequence, target: spec.health.target(of: reply), of: index, at: at, &context)
            case .drill: noteInDrill(.probeAnswered(.target, sequence: reply.sequence), &context)
            }
            if let reset = ProbePacket.reset(answering: packet, length: length) {
                _ = context.device.sendProbe(reset, to: peers[index], now: context.now)
            }
        }
        return true
    }

    private mutating func noteAnswer(
        _ sequence: UInt32, target: Int?, of index: Int, at: Instant, _ context: inout GatewayContext
    ) {
        update(index, &context) { tunnel, context in
            tunnel.noteHeard(context)
            tunnel.health.handle(
                .probeAnswered(sequence: sequence, target: target, at: at), now: context.now)
        }
    }

    // MARK: Endpoints

    private mutating func perform(
        _ output: EndpointSelector.Output, of index: Int, _ context: inout GatewayContext
    ) {
        let (peer, socket) = (tunnels[index].peer, tunnels[index].socket)
        switch output {
        case .resolve(let host, let port): context.emit(.resolve(peer, host: host, port: port))
        case .use(let endpoint):
            guard context.device.path(of: peer)?.underlay?.endpoint != endpoint else { return }
            context.note(.info, "endpoint chosen", fields(index, ["endpoint": "\(endpoint)"]))
            context.device.setUnderlay(
                UnderlayPath(endpoint: endpoint, socket: socket), for: peer)
            context.emit(.endpointChanged(peer))
            tunnels[index].pathMTU?.pathChanged(now: context.now)
            askAhead(index, &context)
        case .tryPreferred(let endpoint):
            context.note(
                .debug, "preferred endpoint is asked", fields(index, ["endpoint": "\(endpoint)"]))
            _ = context.device.initiate(
                peer, at: UnderlayPath(endpoint: endpoint, socket: socket), now: context.now)
        }
    }

    mutating func resolved(
        _ index: Int, host: String, port: UInt16, _ answer: Result<[ResolvedAddress], ResolutionProblem>,
        stubHint: String?, _ context: inout GatewayContext
    ) {
        switch answer {
        case .success(let addresses):
            tunnels[index].endpoints.resolved(host: host, port: port, addresses, now: context.now)
        case .failure(let problem):
            if tunnels[index].endpoints.problem == nil {
                var more = ["error": problem.description]
                more["hint"] = stubHint
                context.note(.warning, "endpoint does not resolve", fields(index, more))
            }
            tunnels[index].endpoints.resolutionFailed(
                host: host, port: port, problem: problem.description, now: context.now)
        }
        endpointChanged(index, &context)
    }

    /// Where `wg` says that the far end is.
    mutating func setEndpoint(_ index: Int, _ endpoint: Endpoint, _ context: inout GatewayContext) {
        let peer = tunnels[index].peer
        context.device.setUnderlay(UnderlayPath(endpoint: endpoint), for: peer)
        tunnels[index].endpoints = EndpointSelector([.address(endpoint)], now: context.now)
        tunnels[index].pathMTU?.pathChanged(now: context.now)
        endpointChanged(index, &context)
    }

    // MARK: Sessions

    mutating func handle(_ event: PeerEvent, of index: Int, _ context: inout GatewayContext) {
        let (peer, now) = (tunnels[index].peer, context.now)
        switch event {
        case .handshakeStarted:
            if tunnels[index].askingSince == nil { tunnels[index].askingSince = now }
            update(index, &context) { $0.health.handle(.handshakeStarted, now: $1.now) }
        case .handshakeCompleted(let role):
            sessionBegan(index, role: "\(role)", &context)
        case .initiationUnanswered(let failure, let endpoint):
            initiationWasUnanswered(index, failure, endpoint, &context)
        case .handshakeGaveUp(let dropped):
            let isNew = !tunnels[index].hasGivenUp
            tunnels[index].hasGivenUp = true
            let reason = diagnosis(of: index, context).reason ?? "unknown"
            context.emit(
                .gaveUp(
                    peer,
                    LogNote(
                        level: isNew ? .warning : .debug, message: "no answer to handshakes",
                        fields: fields(index, ["reason": reason, "dropped": "\(dropped)"]))))
            // Nobody sends into a connection whose routes say that it is down: so nothing but this would bring it back.
            askAhead(index, &context)
        case .sessionExpired:
            context.note(.info, "session has expired", fields(index))
            sessionEnded(index, &context)
        case .keyMaterialWiped:
            context.note(.debug, "session keys wiped", fields(index))
            sessionEnded(index, &context)
        case .roamed(let underlay):
            tunnels[index].endpoints.roamed(to: underlay.endpoint, now: now)
            tunnels[index].pathMTU?.pathChanged(now: now)
            endpointChanged(index, &context)
            lookForSharedKey(index, &context)
            tellOfRoaming(index, to: underlay.endpoint, &context)
        case .removedAsOurself:
            context.note(.warning, "peer removed: it has our own public key", fields(index))
            tunnels.remove(at: index)
            isUndecided = true
        }
    }

    private mutating func sessionBegan(_ index: Int, role: String, _ context: inout GatewayContext) {
        let isNew = !tunnels[index].isUp
        tunnels[index].isUp = true
        tunnels[index].hasGivenUp = false
        tunnels[index].askingSince = nil
        let endpoint = context.device.path(of: tunnels[index].peer)?.underlay?.endpoint
        context.note(
            isNew ? .info : .debug, isNew ? "session begun" : "session renewed",
            fields(index, ["role": role, "endpoint": endpoint.map { "\($0)" } ?? "unknown"]))
        tunnels[index].health.handle(.sessionBegun, now: context.now)
        if let endpoint { tunnels[index].endpoints.roamed(to: endpoint, now: context.now) }
        lookForSharedKey(index, &context)
        tunnels[index].pathMTU?.sessionBegan(now: context.now)
        endpointChanged(index, &context)
    }

    private mutating func initiationWasUnanswered(
        _ index: Int, _ failure: HandshakeFailure, _ endpoint: Endpoint?, _ context: inout GatewayContext
    ) {
        // One that was tested elsewhere says nothing of the tunnel as it is, nor of the endpoint in use.
        let current = tunnels[index].endpoints.current
        if let endpoint, let current, endpoint != current { return }
        update(index, &context) { tunnel, context in
            // What passes tells more than a rekey that was lost; without probes nothing else has told of it.
            tunnel.noteHeard(context)
            tunnel.health.handle(.handshakeUnanswered(HealthReason(failure)), now: context.now)
            // A rekey that was lost while packets pass says nothing of the endpoint either.
            if endpoint == current, tunnel.health.liveness != .answering {
                tunnel.endpoints.failed(now: context.now)
            }
        }
    }

    /// One that is probed wants the next at once: nobody else asks for it.
    private mutating func sessionEnded(_ index: Int, _ context: inout GatewayContext) {
        tunnels[index].isUp = false
        update(index, &context) { tunnel, context in
            tunnel.health.handle(.sessionEnded, now: context.now)
            tunnel.pathMTU?.sessionEnded()
        }
        if tunnels[index].probedLink != nil { askAhead(index, &context) }
    }

    private static let roamingInterval: Duration = .seconds(1)

    /// A peer that comes from two places in turn would write a line a batch. Of two that share its key all is told.
    private mutating func tellOfRoaming(_ index: Int, to endpoint: Endpoint, _ context: inout GatewayContext)
    {
        guard tunnels[index].sharing.hosts.isEmpty else { return }
        guard context.now >= tunnels[index].roamingQuietUntil ?? context.now else {
            tunnels[index].roamsUnreported += 1
            return
        }
        var more = ["endpoint": "\(endpoint)"]
        if tunnels[index].roamsUnreported > 0 { more["unreported"] = "\(tunnels[index].roamsUnreported)" }
        context.note(.info, "endpoint changed", fields(index, more))
        tunnels[index].roamingQuietUntil = context.now + Self.roamingInterval
        tunnels[index].roamsUnreported = 0
    }

    // MARK: Orders

    mutating func setEnabled(_ isEnabled: Bool, _ index: Int, _ context: inout GatewayContext) {
        let peer = tunnels[index].peer
        if isEnabled {
            context.device.setEnabled(true, for: peer)
            update(index, &context) { $0.health.handle(.enabledByOperator, now: $1.now) }
            context.device.initiate(peer, now: context.now)
        } else {
            update(index, &context) { $0.health.handle(.disabledByOperator, now: $1.now) }
            context.device.setEnabled(false, for: peer)
            tunnels[index].isUp = false
            update(index, &context) { $0.health.handle(.sessionEnded, now: $1.now) }
        }
        isUndecided = true
    }

    /// Nil: the priorities decide.
    mutating func prefer(_ tunnel: String?, by caller: Caller, _ context: inout GatewayContext) {
        let before = preferred
        guard tunnel != before else { return }
        preferred = tunnel
        isUndecided = true
        let words =
            tunnel.map { "\($0) carries \(name) whenever it is healthy" }
            ?? "the priorities decide among the tunnels of \(name) again"
        context.raise(
            tunnel == nil ? .tunnelUnpreferred : .tunnelPreferred, connection: name,
            tunnel: tunnel ?? before, reason: HealthReason.operator.name, "\(words), by \(caller.words)",
            details: caller.details(), level: .notice)
    }

    // MARK: Path MTU

    private mutating func settlePathMTU(_ index: Int, _ context: inout GatewayContext) {
        let peer = tunnels[index].peer
        while let output = tunnels[index].pathMTU?.poll() {
            switch output {
            case .probe(let size, let sequence):
                guard let inside = tunnels[index].probedLink else { continue }
                let packet = ProbePacket.echo(
                    from: inside.local, to: inside.remote, secret: context.probeSecret, peer: peer,
                    sequence: sequence, purpose: .pathMTU, length: size)
                if let packet { _ = context.device.sendProbe(packet, to: peer, now: context.now) }
            case .found(let innerMTU):
                context.device.path(of: peer)?.setInnerMTU(innerMTU)
                context.note(.info, "path MTU found", fields(index, ["inner": "\(innerMTU)"]))
            }
        }
        if let search = tunnels[index].pathMTU {
            context.device.path(of: peer)?.setInnerMTUPassing(search.isSearching)
        }
    }

    // MARK: Keys that two hosts have

    /// After the peer was heard elsewhere, and after each handshake.
    private mutating func lookForSharedKey(_ index: Int, _ context: inout GatewayContext) {
        guard let path = context.device.path(of: tunnels[index].peer),
            let endpoint = path.underlay?.endpoint
        else { return }
        let change = tunnels[index].sharing.note(
            endpoint, roamsUnderOldSession: path.roamsUnderOldSession, now: context.now)
        guard change == .began, let words = tunnels[index].sharedKeyWords else { return }
        context.raise(
            .keyShared, connection: name, tunnel: tunnels[index].name, reason: "two-hosts", words,
            details: [
                "endpoints": tunnels[index].sharing.hosts.map(\.description).joined(separator: " ")
            ], level: .warning)
    }

    // MARK: Once a second

    mutating func check(_ context: inout GatewayContext) {
        for index in tunnels.indices {
            tellOfSendErrors(index, &context)
            if tunnels[index].sharing.look(now: context.now) == .ended {
                context.raise(
                    .keyUnshared, connection: name, tunnel: tunnels[index].name, reason: "one-host",
                    "only one host uses the key of tunnel \(tunnels[index].name) now", level: .notice)
            }
        }
    }

    /// A line when it begins, when it changes and when it ends.
    private mutating func tellOfSendErrors(_ index: Int, _ context: inout GatewayContext) {
        let problem = tunnels[index].sendProblem(context)
        guard tunnels[index].toldSendError != problem?.code else { return }
        tunnels[index].toldSendError = problem?.code
        if let problem {
            context.note(
                .warning, "sending fails",
                fields(index, ["error": problem.error, "hint": problem.remedy]))
        } else {
            context.note(.notice, "sending works again", fields(index))
        }
    }
}

extension Tunnel {
    fileprivate mutating func handlePathMTUTimeout(_ context: borrowing GatewayContext) {
        guard pathMTU != nil else { return }
        if let sent = context.device.path(of: peer)?.lastTrafficSent, sent > trafficSeenAt {
            trafficSeenAt = sent
            if let roundTrip = health.statistics(now: context.now).smoothedRoundTrip {
                pathMTU?.setRoundTrip(roundTrip)
            }
            pathMTU?.dataSent(now: context.now)
        }
        pathMTU?.handleTimeout(now: context.now)
    }
}

/// Why a host name has no address.
package struct ResolutionProblem: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String
    /// A name server on this host was asked, and had no answer.
    package let isOfLocalStub: Bool

    package init(_ description: String, isOfLocalStub: Bool) {
        self.description = description
        self.isOfLocalStub = isOfLocalStub
    }
}

extension GatewayEvent.Kind {
    fileprivate static func tunnel(is state: TunnelState) -> Self {
        switch state {
        case .disabled: .tunnelDisabled
        case .idle: .tunnelIdle
        case .connecting: .tunnelConnecting
        case .up: .tunnelUp
        case .degraded: .tunnelDegraded
        case .down: .tunnelDown
        }
    }
}

extension HealthReason {
    /// Why there is no session, in the words of a tunnel's health.
    fileprivate init(_ failure: HandshakeFailure) {
        self =
            switch failure {
            case .noEndpoint: .endpointUnknown
            case .dropped(.mac1Invalid): .mac1Wrong
            case .dropped(.timestampNotNewer): .timestampNotNewer
            case .dropped: .handshakeRefused
            case .noReply, .noPrivateKey, .noFreeIndex: .noReplyToHandshake
            }
    }
}
