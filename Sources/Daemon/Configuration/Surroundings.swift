package import GatewayCore
internal import LinuxIO
package import WireGuard

/// What is true of this host at this moment. It makes warnings of `vgwd check`, and no error: a file that was right
/// yesterday is right today. Only an interface that has the name of vgwd's own is one, as no run can get past it.
package struct Surroundings: Sendable {
    package var networks: [LocalNetwork] = []
    /// Addresses of all interfaces; nil where they are not known.
    package var addresses: [IPAddress]?
    /// Whether there is an interface of that name.
    package var hasInterface: @Sendable (String) -> Bool = { _ in true }
    /// All name servers of /etc/resolv.conf are programs on this host.
    package var hasLocalStub = false
    /// The interfaces by which outer packets with a mark leave, to the endpoints and bound to the devices.
    package var outerInterfaces:
        @Sendable (Set<IPAddress>, _ devices: [String], _ mark: UInt32) -> Set<String> = {
            _, devices, _ in Set(devices)
        }
    /// What rp_filter does to packets from an address that come by a device, nil being the one that the routes choose.
    package var reversePathProblem: @Sendable (IPAddress, _ device: String?) -> ReversePathProblem? = {
        _, _ in nil
    }

    /// What keeps this host from forwarding what goes between its networks and the tunnels.
    package var forwardingProblems: @Sendable (ForwardingSurvey.Question) -> [ForwardingProblem] = { _ in [] }
    /// iptables-legacy has a filter table in use, which nobody but itself can list.
    package var hasLegacyFilter = false
    /// What has the name of vgwd's own interface and is none that it could use, and what to do; nil if nothing has.
    var interfaceConflict: @Sendable (String) -> (problem: String, remedy: String)? = { _ in nil }
    /// The first port that vgwd's unit may open (`LowPort`).
    package var firstFreePort: UInt16 = 0

    package init() {}

    /// As the kernel tells it.
    package static func current() -> Surroundings {
        var surroundings = Surroundings()
        surroundings.networks = LocalNetwork.all(except: "")
        surroundings.addresses = (try? (try? Netlink())?.addresses())?.map(\.prefix.address)
        surroundings.hasInterface = { name in
            guard let netlink = try? Netlink() else { return true }
            return (try? netlink.link(name)) != .some(nil)
        }
        surroundings.hasLocalStub = NameResolver.systemIsLocalStub
        surroundings.outerInterfaces = {
            PreferredSource.outerInterfaces(to: $0, boundTo: $1, mark: $2)
        }
        surroundings.hasLegacyFilter = ["ip", "ip6"].contains { family in
            let names = (try? AtomicFile.read("/proc/net/\(family)_tables_names", limit: 4096))?.bytes ?? []
            return names.split(separator: UInt8(ascii: "\n")).contains { $0.elementsEqual("filter".utf8) }
        }
        surroundings.forwardingProblems = { ForwardingSurvey($0).problems }
        surroundings.interfaceConflict = { InterfaceConflict.find($0) }
        surroundings.firstFreePort = FileStatus(LowPort.dropIn) == nil ? LowPort.firstFree : 0
        surroundings.reversePathProblem = { ReversePathProblem(from: $0, boundTo: $1) }
        return surroundings
    }
}

extension ReversePathProblem {
    /// As it will be when what arrives has the firewall mark: the way back is the main table's then.
    fileprivate init?(from address: IPAddress, boundTo device: String?) {
        guard address.family == .v4, let netlink = try? Netlink() else { return nil }
        let chosen = try? netlink.way(to: address).interface
        let bound = device.flatMap { (try? netlink.link($0)) ?? nil }
        guard let interface = bound?.index ?? chosen,
            let filter = (try? netlink.reversePathFilter(of: interface)) ?? nil,
            let name = ((try? netlink.link(index: interface)) ?? nil)?.name
        else { return nil }
        self.init(
            from: address, by: name, filter.mode,
            wayBack: WayBack(to: address, mark: 0, interface: interface, netlink))
    }
}

/// What is right by itself and may not work here and now.
extension ConfigurationParser {
    mutating func findObstacles(
        _ document: ConfigurationReader.Section, nodes: [ConfigurationNode],
        connections: [ConnectionSpec?], gateway: GatewayConfiguration
    ) {
        warnOfLowPort(gateway.listenPort, at: document["gateway"]?.child("listen-port"))
        for (node, connection) in zip(nodes, connections) {
            guard let connection else { continue }
            for (place, tunnel) in pairs(of: node, connection) {
                warnOfLowPort(tunnel.binding.listenPort ?? 0, at: place.child("listen-port"))
                warnOfMissingUnderlay(tunnel, at: place)
            }
            for (route, place) in node.places(of: connection.prefixes) {
                if connection.isExclusive {
                    warnOfNetworksCutOff(by: route, at: place, gateway)
                } else {
                    warnOfOverlap(of: route, at: place, gateway)
                }
            }
            warnOfTargetSource(connection, node, gateway)
            warnOfMissingSources(connection, node, gateway)
            guard RoutePlan(gateway).hasOwnTable else { continue }
            for (place, tunnel) in pairs(of: node, connection) {
                for case .address(let endpoint) in tunnel.endpoints {
                    guard
                        let problem = surroundings.reversePathProblem(
                            endpoint.address, tunnel.binding.device)
                    else { continue }
                    reader.warn(place.child("endpoint") ?? place, problem.description, problem.remedy)
                }
            }
        }
        warnOfLocalStub(document, connections.compactMap(\.self), gateway)
        warnOfForwarding(document, gateway)
    }

    private func outerInterfaces(of gateway: GatewayConfiguration) -> Set<String> {
        let tunnels = gateway.connections.flatMap(\.tunnels)
        let endpoints = tunnels.flatMap(\.endpoints).compactMap { endpoint -> IPAddress? in
            if case .address(let endpoint) = endpoint { endpoint.address } else { nil }
        }
        return surroundings.outerInterfaces(
            Set(endpoints), tunnels.compactMap(\.binding.device), gateway.routingNumbers.preferred.mark)
    }

    private mutating func warnOfForwarding(
        _ document: ConfigurationReader.Section, _ gateway: GatewayConfiguration
    ) {
        let problems = surroundings.forwardingProblems(
            ForwardingSurvey.Question(
                interface: gateway.interface, outerInterfaces: outerInterfaces(of: gateway),
                families: Set(gateway.connections.lazy.flatMap(\.prefixes).map(\.family)),
                networks: surroundings.networks))
        for problem in problems {
            reader.warn(document["gateway"] ?? document.node, problem.description, problem.remedy)
        }
        guard surroundings.hasLegacyFilter else { return }
        reader.warn(
            document["gateway"] ?? document.node,
            "iptables-legacy has a filter table here, which is not looked into",
            "does its FORWARD chain let through what goes by \(gateway.interface)? See 'iptables-legacy -S FORWARD'"
        )
    }

    /// For each connection that does not say which source it has.
    func guessSources(_ gateway: inout GatewayConfiguration) {
        let outer = outerInterfaces(of: gateway)
        let networks = surroundings.networks.filter { $0.interface != gateway.interface }
        let carried = Set(networks.isEmpty ? [] : gateway.connections.flatMap(\.prefixes))
        for place in gateway.connections.indices where gateway.connections[place].sources.isEmpty {
            gateway.guessedSources[gateway.connections[place].name] = PreferredSource.guesses(
                from: networks, outerInterfaces: outer,
                translations: gateway.connections[place].translations, carried: carried.contains)
        }
    }

    private mutating func warnOfMissingSources(
        _ connection: ConnectionSpec, _ node: ConfigurationNode, _ gateway: GatewayConfiguration
    ) {
        guard let known = surroundings.addresses else { return }
        for source in connection.sources
        where !known.contains(source) && !gateway.interfaceAddresses.contains(where: { $0.address == source })
        {
            reader.warn(
                node.child("source") ?? node, "\(source) is no address of this host now",
                "until it is, what this gateway itself sends to \(connection.name) has the kernel's choice: write one "
                    + "of this host's, in the network behind it")
        }
    }

    private mutating func warnOfMissingUnderlay(_ tunnel: TunnelSpec, at place: ConfigurationNode) {
        let bind = place.child("bind")
        let until =
            "until there is, the tunnel is down: is the name right? 'ip link' shows those that there are"
        if let device = tunnel.binding.device, !surroundings.hasInterface(device) {
            reader.warn(bind?.child("device") ?? place, "there is no interface \(device) now", until)
        }
        if let source = tunnel.binding.source, let known = surroundings.addresses, !known.contains(source) {
            reader.warn(
                bind?.child("source") ?? place, "\(source) is no address of this host now",
                "until it is, the tunnel is down: 'ip address' shows those that there are")
        }
        for case .name(let host, _) in tunnel.endpoints {
            guard let percent = host.firstIndex(of: "%") else { continue }
            let device = String(host[host.index(after: percent)...])
            guard !surroundings.hasInterface(device) else { continue }
            reader.warn(
                place.child("endpoint") ?? place, "there is no interface \(device) now, which \(host) is on",
                until)
        }
    }

    private mutating func warnOfLowPort(_ port: UInt16, at place: ConfigurationNode?) {
        guard port > 0, port < surroundings.firstFreePort, let place else { return }
        reader.warn(place, "port \(port) is one that vgwd's unit may not open", LowPort.remedy(port))
    }

    private mutating func warnOfOverlap(
        of route: IPPrefix, at place: ConfigurationNode, _ gateway: GatewayConfiguration
    ) {
        guard
            let local = surroundings.networks.first(where: {
                $0.interface != gateway.interface && $0.holds(route)
            })
        else { return }
        let name = local.network == route ? "the network" : "in \(local.network), the network"
        reader.warn(
            place, "\(route) is also \(name) of \(local.interface) here",
            "it is left out while \(local.interface) is up: where both sites need it, let both translate theirs, "
                + "nat = [{ inside = \"\(route)\", outside = \"…\" }], and write the far site's outside here")
    }

    private mutating func warnOfNetworksCutOff(
        by route: IPPrefix, at place: ConfigurationNode, _ gateway: GatewayConfiguration
    ) {
        for local in surroundings.networks
        where local.interface != gateway.interface && local.network.overlaps(route) {
            reader.warn(
                place,
                "\(route) is exclusive and takes \(local.network), the network of \(local.interface) here, too",
                "where that must stay reachable, put a rule before vgwd's: "
                    + "ip rule add to \(local.network) lookup main priority 50")
        }
    }

    /// Replies to it need not get to this host's own addresses, but they have to come back by the tunnels.
    private mutating func warnOfTargetSource(
        _ connection: ConnectionSpec, _ node: ConfigurationNode, _ gateway: GatewayConfiguration
    ) {
        guard let source = connection.health.source, let known = surroundings.addresses,
            !known.contains(source), !gateway.interfaceAddresses.contains(where: { $0.address == source }),
            !connection.translations.contains(where: { $0.outside.contains(source) })
        else { return }
        let health = node.child("health")
        reader.warn(
            health?.child("source") ?? health ?? node, "\(source) is no address of this host now",
            "write one that this host has in the network behind it: targets answer to it, and the far site has to "
                + "route it back by the tunnels")
    }

    private mutating func warnOfLocalStub(
        _ document: ConfigurationReader.Section, _ connections: [ConnectionSpec],
        _ gateway: GatewayConfiguration
    ) {
        let asksNames = connections.flatMap(\.tunnels).flatMap(\.endpoints).contains {
            if case .name = $0 { true } else { false }
        }
        guard asksNames, gateway.nameServers.isEmpty, RoutePlan(gateway).hasOwnTable,
            surroundings.hasLocalStub,
            let problem = LocalStub.problem(prefixes: connections.flatMap(\.prefixes))
        else { return }
        reader.warn(document["gateway"] ?? document.node, problem, LocalStub.remedy)
    }
}
