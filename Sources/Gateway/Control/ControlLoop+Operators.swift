internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// The operator's hand: tunnels taken down and preferred, and ways explained.
extension ControlLoop {
    func order(_ order: TunnelOrder, tunnel name: String, by caller: Caller) throws(APIError) -> TunnelStatus
    {
        guard let peer = tunnels.peer(named: name), let connection = state.connection(ofTunnel: name),
            let tunnel = state.tunnel(named: name)
        else {
            throw APIError(
                code: .notFound, message: "there is no tunnel \(name)", hint: "'vgwctl status' lists them")
        }
        if order == .down || order == .up { abortDrill(of: connection.name) }
        // What follows from the order at once is told as the operator's doing.
        self.order = (connection.name, caller)
        defer { self.order = nil }
        switch order {
        case .down:
            tunnels[peer]?.health.handle(.disabledByOperator, now: now)
            follow(peer)
            device.setEnabled(false, for: peer)
            tunnels[peer]?.isUp = false
            tunnels[peer]?.health.handle(.sessionEnded, now: now)
            follow(peer)
        case .up:
            device.setEnabled(true, for: peer)
            tunnels[peer]?.health.handle(.enabledByOperator, now: now)
            follow(peer)
            device.initiate(peer, now: now)
        case .prefer: prefer(name, of: connection.name, by: caller)
        case .unprefer:
            if connections[connection.name]?.preferred == name {
                prefer(nil, of: connection.name, by: caller)
            }
        }
        connectionChanged(connection.name)
        // The answer shows what came of it.
        flush()
        settleConnections()
        guard let status = status(of: tunnel, in: connection) else {
            throw APIError(code: .failed, message: "tunnel \(name) has no state")
        }
        return status
    }

    /// Who orders what is happening to a connection; nil where it happens by itself.
    func orderer(of connection: String) -> Caller? {
        order?.connection == connection ? order?.by : nil
    }

    /// Nil: the priorities decide.
    private func prefer(_ tunnel: String?, of connection: String, by caller: Caller) {
        let before = connections[connection]?.preferred
        guard tunnel != before else { return }
        connections[connection]?.preferred = tunnel
        let words =
            tunnel.map { "\($0) carries \(connection) whenever it is healthy" }
            ?? "the priorities decide among the tunnels of \(connection) again"
        raise(
            tunnel == nil ? .tunnelUnpreferred : .tunnelPreferred, connection: connection,
            tunnel: tunnel ?? before, reason: HealthReason.operator.name, "\(words), by \(caller.words)",
            details: caller.details(), level: .notice)
    }

    func explainRoute(_ question: RouteQuestion) throws(APIError) -> RouteExplanation {
        let packet = try packet(question)
        let explanation = RouteTrace(
            of: packet,
            connections: state.connections.map { connection in
                let names = Set(
                    connections[connection.name].map { activeTunnels(of: connection, by: $0.selection) } ?? []
                )
                return RouteTrace.Connection(
                    name: connection.name, candidate: candidate(connection),
                    reason: isUsable(connection) ? nil : "no tunnel of it is usable",
                    isBalanced: connection.policy == .balance,
                    tunnels: peers(of: connection).compactMap { peer in
                        guard let record = tunnels[peer] else { return nil }
                        return RouteTrace.Tunnel(
                            name: record.name, state: record.health.state.rawValue,
                            reason: record.health.state == .up ? nil : record.health.reason.words,
                            isActive: names.contains(record.name),
                            endpoint: device.path(of: peer)?.underlay?.endpoint)
                    })
            }, interface: tun.name, kernel: isTunHere ? way(of: packet) : nil,
            match: isTunHere ? keeper.match(of: packet) : nil,
            leftOut: leftOut.first { $0.key.contains(packet.destination) }.map {
                "\($0.key) is left out: \(Self.words($0.value, $0.key))"
            },
            way: { tunnel, endpoint in wayOfOuterPackets(of: tunnel, to: endpoint) })
        var answer = RouteExplanation(explanation)
        let held = guardedPrefixes.filter { $0.contains(packet.destination) }.max { $0.length < $1.length }
        if answer.verdict == .unreachable, let held, held.length > explanation.prefix?.length ?? -1 {
            answer.steps.append(
                "\(held) was learned before, and nobody announces it now: it is guarded, so that nothing sent there "
                    + "leaves in clear, until it is announced again or 'vgwctl route del \(held)' lets go of it."
            )
        }
        return answer
    }

    /// By the tunnel's own socket: what that is bound to counts more than the routes.
    private func wayOfOuterPackets(of tunnel: String, to endpoint: Endpoint) -> RouteTrace.Way {
        let binding = state.tunnel(named: tunnel)?.binding ?? UnderlayBinding()
        var outer = NetlinkPacket(
            to: endpoint.address, from: binding.source, outOf: endpoint.scope, mark: state.firewallMark)
        if let device = binding.device {
            guard let link = (try? Netlink().link(device)) ?? nil else {
                return .nowhere("there is no interface \(device), which the tunnel is bound to")
            }
            outer.outgoing = link.index
        }
        guard case .link(let name, let gateway, let source) = way(of: outer) else { return way(of: outer) }
        return .link(name: name, gateway: gateway, source: binding.source ?? source)
    }

    private func packet(_ question: RouteQuestion) throws(APIError) -> NetlinkPacket {
        var packet = NetlinkPacket(to: try parseAddress(question.destination))
        if let source = question.source {
            packet.source = try parseAddress(source)
            guard packet.source?.family == packet.destination.family else {
                throw APIError(
                    code: .badRequest,
                    message: "\(source) and \(packet.destination) are of different families")
            }
        }
        if let name = question.incoming {
            guard let link = (try? Netlink().link(String(name.prefix(15)))) ?? nil else {
                throw APIError(code: .notFound, message: "there is no interface \(name.prefix(15))")
            }
            guard packet.source != nil else {
                throw APIError(
                    code: .badRequest, message: "a packet that comes by \(link.name) has a source",
                    hint: "add --from with the address of a host there")
            }
            packet.incoming = link
        }
        return packet
    }

    private func way(of packet: NetlinkPacket) -> RouteTrace.Way {
        do throws(SystemError) {
            let way = try keeper.way(of: packet)
            if way.interface == tunIndex { return .tun }
            let name = (try? Netlink().link(index: way.interface))??.name
            return .link(name: name ?? "link \(way.interface)", gateway: way.gateway, source: way.source)
        } catch {
            return .nowhere(SystemError.text(error.code))
        }
    }
}

extension RouteExplanation {
    fileprivate init(_ explanation: RouteTrace) {
        self.init(
            destination: explanation.destination.description, verdict: .unreachable, steps: explanation.steps)
        switch explanation.verdict {
        case .tunnel(let connection, let tunnel, let endpoint, let interface, let source):
            verdict = .tunnel
            self.connection = connection
            self.tunnel = tunnel
            self.endpoint = endpoint.description
            self.interface = interface
            self.source = source?.description
        case .spread(let connection, let tunnels):
            verdict = .tunnel
            self.connection = connection
            tunnel = tunnels.joined(separator: ", ")
        case .dropped, .unreachable: break
        case .elsewhere(let interface):
            verdict = .elsewhere
            self.interface = interface
        }
    }
}
