internal import LinuxIO
internal import Logging
internal import WireGuard

/// Tunnels as control keeps them: in the device, on a wire, towards an endpoint.
extension ControlLoop {
    func addTunnel(_ tunnel: Tunnel, of connection: Connection) {
        guard let socket = underlays.number(of: tunnel.binding) else {
            return log.error(
                "tunnel cannot be added: too many ports, devices and source addresses",
                metadata: ["tunnel": "\(tunnel.name)", "limit": "\(UDPSocketGroups.limit)"])
        }
        let peer = device.addPeer(
            PeerConfiguration(
                publicKey: tunnel.publicKey, privateKey: tunnel.privateKey,
                presharedKey: tunnel.presharedKey, cipher: tunnel.cipher,
                persistentKeepalive: tunnel.persistentKeepalive, socket: socket, inside: tunnel.inside),
            now: now)
        guard let peer else {
            return log.error(
                "tunnel cannot be added: its public key is our own, or there are too many",
                metadata: ["tunnel": "\(tunnel.name)"])
        }
        let isProbed = tunnel.inside != nil && connection.health.isOn
        tunnels.add(
            TunnelRecord(
                peer: peer, connection: connection.name, name: tunnel.name, socket: socket,
                inside: isProbed ? tunnel.inside : nil,
                health: TunnelHealth(
                    settings: connection.health, phase: Self.phase(of: peer), canProbe: isProbed, now: now),
                endpoints: EndpointSelector(tunnel.endpoints, now: now),
                pathMTU: isProbed && settings.mtu == .automatic ? PathMTUSearch(maximum: mtu) : nil))
        noteUnderlay(of: peer)
        noteEndpoint(of: peer)
        follow(peer)
    }

    func removePeer(_ key: PublicKey) {
        guard let peer = device.peerID(for: key) else { return }
        device.removePeer(peer)
        tunnels.remove(peer)
    }

    /// Probes of many tunnels go out together, in forty groups an interval: a wake-up costs more than a probe.
    private static func phase(of peer: PeerID) -> UInt32 {
        UInt32.max / 40 * UInt32(truncatingIfNeeded: peer.rawValue * 17 % 40)
    }

    /// Whether a tunnel's wire is there.
    func noteUnderlay(of peer: PeerID) {
        guard let record = tunnels[peer] else { return }
        tunnels[peer]?.health.handle(.interface(isUp: underlays.isUp(record.socket)), now: now)
    }

    // MARK: What a tunnel's machines ask for

    func handleTunnelTimeouts() {
        guard let deadline = tunnels.earliest, deadline <= now else { return }
        for peer in tunnels.due(at: now) {
            noteHeard(of: peer)
            tunnels[peer]?.health.handleTimeout(now: now)
            tunnels[peer]?.endpoints.handleTimeout(now: now)
            handlePathMTUTimeout(of: peer)
            follow(peer)
        }
    }

    /// Tells health what the data threads noticed.
    func noteHeard(of peer: PeerID) {
        guard let path = device.path(of: peer) else { return }
        if let heard = path.lastReceived { tunnels[peer]?.health.handle(.heard(at: heard), now: now) }
        if let word = path.farEndsWord {
            tunnels[peer]?.health.handle(.heardByFarEnd(at: word.heardAt, said: word.saidAt), now: now)
        }
    }

    /// Does what the tunnel's machines ask for, until they ask for nothing more. After every observation.
    func follow(_ peer: PeerID) {
        while let output = tunnels[peer]?.health.poll() {
            switch output {
            case .probe(let probe): send(probe, by: peer)
            case .transition(let transition): report(transition, of: peer)
            case .liveness, .targets:
                if let record = tunnels[peer] { connectionChanged(record.connection) }
            }
        }
        while let output = tunnels[peer]?.endpoints.poll() { perform(output, for: peer) }
        if tunnels[peer]?.wantsSession ?? false {
            tunnels[peer]?.wantsSession = false
            device.initiate(peer, now: now)
        }
        followPathMTU(of: peer)
        tunnels.reschedule(peer)
    }

    private func perform(_ output: EndpointSelector.Output, for peer: PeerID) {
        guard let record = tunnels[peer] else { return }
        switch output {
        case .resolve(let host, let port):
            let mailbox = mailbox
            expectAnswersOfNameServers()
            resolver.resolve(host, mark: state.firewallMark) { answer in
                mailbox.post(.resolved(peer, host: host, port: port, answer))
            }
        case .use(let endpoint):
            guard device.path(of: peer)?.underlay?.endpoint != endpoint else { return }
            log.info("endpoint chosen", metadata: names(of: peer, adding: ["endpoint": "\(endpoint)"]))
            device.setUnderlay(UnderlayPath(endpoint: endpoint, socket: record.socket), for: peer)
            expectAnswers(to: peer)
            tunnels[peer]?.pathMTU?.pathChanged(now: now)
            askAhead(peer)
        case .tryPreferred(let endpoint):
            log.debug(
                "preferred endpoint is asked", metadata: names(of: peer, adding: ["endpoint": "\(endpoint)"]))
            _ = device.initiate(
                peer, at: UnderlayPath(endpoint: endpoint, socket: record.socket), now: now)
        }
    }

    func nameWasResolved(
        _ host: String, port: UInt16, _ answer: Result<[NameResolver.Address], NameResolver.Problem>,
        for peer: PeerID
    ) {
        switch answer {
        case .success(let addresses):
            hasLocalStubFailed = false
            tunnels[peer]?.endpoints.resolved(host: host, port: port, addresses, now: now)
        case .failure(let problem):
            hasLocalStubFailed = problem.isOfLocalStub
            if tunnels[peer]?.endpoints.problem == nil {
                var metadata: Logger.Metadata = ["error": "\(problem)"]
                if let hint = stubHint { metadata["hint"] = "\(hint)" }
                log.warning("endpoint does not resolve", metadata: names(of: peer, adding: metadata))
            }
            tunnels[peer]?.endpoints.resolutionFailed(
                host: host, port: port, problem: "\(problem)", now: now)
        }
        noteEndpoint(of: peer)
        follow(peer)
    }

    /// Nil where the questions of a name server on this host are not led into a tunnel.
    var stubHint: String? {
        guard hasLocalStubFailed, state.firewallMark != 0, keeper.installsRoutes else { return nil }
        return LocalStub.problem(prefixes: state.connections.flatMap(\.prefixes)).map {
            "\($0); \(LocalStub.remedy)"
        }
    }

    /// What health knows of where the tunnel leads to.
    func noteEndpoint(of peer: PeerID) {
        guard let record = tunnels[peer] else { return }
        let knowledge: TunnelHealth.EndpointKnowledge
        if record.endpoints.current != nil || device.path(of: peer)?.underlay != nil {
            knowledge = .known
        } else {
            let isAwaited = record.endpoints.awaitedNames != nil
            knowledge = record.endpoints.problem != nil ? .unresolved : isAwaited ? .awaited : .unknown
        }
        tunnels[peer]?.health.handle(.endpoint(knowledge), now: now)
        expectAnswers(to: peer)
    }
}
