internal import LinuxIO
internal import WireGuard

/// What far ends and name servers send must reach our sockets, whatever routes are carried.
extension ControlLoop {
    /// Nobody's site (a.root-servers.net): the way to it is that to far ends which speak first. Nothing is sent there.
    private static let somewhere = IPAddress(v4: 0xc629_0004)

    /// Where rules keep outer packets out of the tunnel: elsewhere nobody looks for a way by the mark.
    func makeReturnPath() throws(SystemError) {
        guard settings.managesLink, keeper.installsRoutes, !keeper.leadsOuterPackets else { return }
        returnPath = try ReturnPath(interface: tun.name, tun: tunIndex, log: log)
        openReturnPath()
    }

    /// After changes of the mark, of ports, of links and of routes.
    func openReturnPath() {
        guard returnPath != nil else { return }
        returnPath?.mark(state.firewallMark, ports: underlays.ports, serverPorts: resolver.serverPorts)
        returnPath?.forgetInterfaces()
        for interface in underlays.interfaces { returnPath?.expect(on: interface) }
        let firstAnywhere = device.peers.contains { device.path(of: $0)?.underlay == nil }
        if firstAnywhere { expectAnswers(from: Self.somewhere) }
        for peer in device.peers { expectAnswers(to: peer) }
    }

    /// After a change of the peer's endpoint.
    func expectAnswers(to peer: PeerID) {
        guard let endpoint = device.path(of: peer)?.underlay?.endpoint else { return }
        expectAnswers(from: endpoint.address)
    }

    /// Before name servers are asked.
    func expectAnswersOfNameServers() {
        guard returnPath != nil else { return }
        for address in resolver.serverAddresses { expectAnswers(from: address) }
    }

    private func expectAnswers(from address: IPAddress) {
        guard returnPath != nil, address.family == .v4,
            let interface = keeper.interface(towards: address, mark: state.firewallMark)
        else { return }
        returnPath?.expect(on: interface)
    }

    /// Why what this far end sends may not reach us; nil where nothing is known to be in the way.
    func returnProblem(of peer: PeerID) -> ReversePathProblem? {
        guard let record = tunnels[peer], let address = device.path(of: peer)?.underlay?.endpoint.address
        else {
            return nil
        }
        let bound = underlays.interface(of: record.socket)
        let interface = bound ?? keeper.interface(towards: address, mark: state.firewallMark)
        return interface.flatMap { returnPath?.problem(from: address, by: $0) }
    }
}
