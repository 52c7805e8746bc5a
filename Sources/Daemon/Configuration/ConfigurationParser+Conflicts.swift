internal import GatewayCore
internal import LinuxIO
internal import WireGuard

/// What is right by itself and wrong beside something else.
extension ConfigurationParser {
    mutating func findConflicts(
        _ document: ConfigurationReader.Section, nodes: [ConfigurationNode],
        connections: [ConnectionSpec?],
        gateway: GatewayConfiguration?
    ) {
        var names: [String: SourceLine?] = [:]
        var tunnels: [String: SourceLine?] = [:]
        var keys: [KeyPair: SourceLine?] = [:]
        var ends: [IPAddress: SourceLine?] = [:]
        var routes: [Carried: (connection: String, line: SourceLine?)] = [:]
        routes.reserveCapacity(connections.reduce(0) { $0 + ($1?.routes.count ?? 0) })
        let outerRoutes = routesOfOuterPackets(gateway, connections)
        let ownKey = hasPrivateKey(document) ? gateway?.privateKey.publicKey : nil

        for (node, connection) in zip(nodes, connections) {
            guard let connection else { continue }
            if let first = names[connection.name] {
                reader.report(
                    node.child("name") ?? node,
                    "a connection is named \"\(connection.name)\" already\(at(first))",
                    "give each connection a name of its own")
            } else {
                names[connection.name] = node.child("name")?.line
            }
            for (route, place) in node.places(of: connection.prefixes) {
                let carried = Carried(prefix: route, metric: connection.metric ?? gateway?.routeMetric ?? 0)
                let first = routes.updateValue((connection.name, place.line), forKey: carried)
                if let first, first.connection != connection.name || !isFirst(node, of: connection, nodes) {
                    routes[carried] = first
                    reader.report(
                        place, "connection \"\(first.connection)\" has \(route) already\(at(first.line))",
                        "two ways to one site need a metric each, the better one the lower: metric = 100; two sites "
                            + "with the same prefix need nat at one of them")
                }
                findOverlap(of: route, at: place, connection)
            }
            for (place, tunnel) in pairs(of: node, connection) {
                if let first = tunnels[tunnel.name] {
                    reader.report(
                        place.child("name") ?? place,
                        "a tunnel is named \"\(tunnel.name)\" already\(at(first))",
                        "give each tunnel a name of its own")
                } else {
                    tunnels[tunnel.name] = (place.child("name") ?? place).line
                }
                findKeyTwice(tunnel, place, ownKey, &keys)
                if let inside = tunnel.inside {
                    let endPlace = place.child("inside") ?? place
                    if let first = ends[inside.remote] {
                        reader.report(
                            endPlace,
                            "another tunnel has \(inside.remote) at its far end already\(at(first))",
                            "give each tunnel a link of its own: it is probed by these addresses")
                    } else {
                        ends[inside.remote] = endPlace.line
                    }
                    if gateway?.addresses.contains(where: { $0.address == inside.remote }) ?? false {
                        reader.report(
                            endPlace, "\(inside.remote) is this gateway's own address",
                            "local is this end's address, remote the far end's")
                    }
                }
                if let outerRoutes { findLoop(tunnel, place, outerRoutes) }
            }
            findTargetsElsewhere(connection, node)
            findTargetsUnasked(connection, node)
            if connection.isExclusive, let gateway, !RoutePlan(gateway).hasOwnTable {
                reader.report(
                    node.child("exclusive") ?? node, "there are no rules that could put its prefixes first",
                    "leave firewall-mark, table and rules out of [gateway], so that its routes have a table of their own"
                )
            }
        }
        findEndsMixedUp(nodes, connections)
        findTooMany(document, connections.compactMap(\.self))
    }

    /// `ownKey` is the gateway's, nil where it could not be read. Where a tunnel's own could not be, nobody knows which
    /// keys it is between.
    private mutating func findKeyTwice(
        _ tunnel: TunnelSpec, _ place: ConfigurationNode, _ ownKey: PublicKey?,
        _ keys: inout [KeyPair: SourceLine?]
    ) {
        guard !reader.hasError(at: place.child("private-key-file")) else { return }
        let keyPlace = place.child("public-key") ?? place
        let pair = KeyPair(ours: tunnel.privateKey?.publicKey, theirs: tunnel.publicKey)
        if let first = keys[pair] {
            reader.report(
                keyPlace, "another tunnel has this public key already\(at(first))",
                "write each far end's own key, or, for a second path to the same one, a private-key-file of "
                    + "this tunnel's own, whose public key is the second tunnel's at the far end")
        } else {
            keys[pair] = keyPlace.line
        }
        guard tunnel.publicKey == tunnel.privateKey?.publicKey ?? ownKey else { return }
        reader.report(
            keyPlace, "is this gateway's own public key",
            "write the far end's: 'vgwctl pubkey' prints it there")
    }

    /// A message of a stranger is hashed once for each of our keys, and a data thread waits for each socket.
    private static let ownKeyLimit = 32

    private mutating func findTooMany(
        _ document: ConfigurationReader.Section, _ connections: [ConnectionSpec]
    ) {
        let tunnels = connections.flatMap(\.tunnels)
        let keys = Set(tunnels.compactMap(\.privateKey?.publicKey)).count
        if keys > Self.ownKeyLimit {
            reader.report(
                document, "connection", "there are \(keys) private keys of single tunnels",
                "use at most \(Self.ownKeyLimit): tunnels to different far gateways can share one")
        }
        let bindings = Set(tunnels.map(\.binding).filter { !$0.isDefault }).count
        if bindings >= UDPSocketGroups.limit {
            reader.report(
                document, "connection", "there are \(bindings) different ports, devices and source addresses",
                "use fewer than \(UDPSocketGroups.limit): tunnels that leave by the same can share them")
        }
        if tunnels.count > GatewaySpec.peerLimit {
            reader.report(
                document, "connection", "there are \(tunnels.count) tunnels",
                "a gateway takes at most \(GatewaySpec.peerLimit): use a second one")
        }
    }

    private struct KeyPair: Hashable {
        let ours: PublicKey?
        let theirs: PublicKey
    }

    private struct Carried: Hashable {
        let prefix: IPPrefix
        let metric: UInt32
    }

    func pairs(
        of node: ConfigurationNode, _ connection: ConnectionSpec
    ) -> [(ConfigurationNode, TunnelSpec)] {
        (node.child("tunnel")?.elements ?? []).compactMap { place in
            connection.tunnels.first { place.isTunnel($0, of: connection) }.map { (place, $0) }
        }
    }

    /// One tunnel's far end is another one's near end: the two ends of a link were mixed up.
    private mutating func findEndsMixedUp(
        _ nodes: [ConfigurationNode], _ connections: [ConnectionSpec?]
    ) {
        let near = Set(connections.flatMap { $0?.tunnels ?? [] }.compactMap(\.inside?.local))
        for (node, connection) in zip(nodes, connections) {
            guard let connection else { continue }
            for (place, tunnel) in pairs(of: node, connection) {
                guard let remote = tunnel.inside?.remote, near.contains(remote) else { continue }
                reader.report(
                    place.child("inside") ?? place, "\(remote) is the near end of a tunnel too",
                    "local is this end's address, remote the far end's")
            }
        }
    }

    /// A prefix cannot be at both ends, unless each end sees the other one's under another name.
    private mutating func findOverlap(
        of route: IPPrefix, at place: ConfigurationNode, _ connection: ConnectionSpec
    ) {
        guard let pair = connection.translations.first(where: { $0.inside.overlaps(route) }) else { return }
        reader.report(
            place, "\(route) overlaps with \(pair.inside), which nat says is at this end",
            "write the prefix that the far site shows itself by: the outside of its own nat")
    }

    private mutating func findTargetsElsewhere(
        _ connection: ConnectionSpec, _ node: ConfigurationNode
    ) {
        guard !connection.isDynamic, !connection.health.targets.isEmpty else { return }
        let routes = PrefixLadder(connection.prefixes)
        for target in connection.health.targets where routes.prefixes(around: target.address).isEmpty {
            reader.report(
                node.child("health")?.child("target") ?? node,
                "\(target.address) is behind none of the connection's routes",
                "name a host of the far site, or add its prefix to routes")
        }
    }

    /// Targets that some tunnel cannot ask, or that cannot answer to where they are asked from.
    private mutating func findTargetsUnasked(
        _ connection: ConnectionSpec, _ node: ConfigurationNode
    ) {
        let targets = connection.health.targets
        guard !targets.isEmpty, let health = node.child("health") else { return }
        let place = health.child("target") ?? health
        for tunnel in connection.tunnels where tunnel.inside == nil {
            reader.report(
                place, "tunnel \"\(tunnel.name)\" cannot ask targets: it has no inside addresses",
                "write inside = { local = \"169.254.101.2\", remote = \"169.254.101.1\" } in it, or leave target out"
            )
        }
        if let source = connection.health.source {
            let place = health.child("source") ?? health
            if let target = targets.first(where: { $0.address.family != source.family }) {
                reader.report(
                    place, "\(source) is no source for \(target): they are of different families",
                    "write a source and targets of one family")
            }
            if let pair = connection.translations.first(where: { $0.inside.contains(source) }) {
                reader.report(
                    place, "\(source) has another number at the far site, by nat",
                    "write the one that the far site sees, of \(pair.outside)")
            }
        } else if let local = connection.tunnels.compactMap(\.inside?.local).first(where: { local in
            targets.contains { $0.address.family != local.family }
        }) {
            reader.report(
                place, "are asked from \(local), and not all of them are of its family",
                "write source = \"…\" beside target: an address of this gateway that the far site knows the way back to"
            )
        }
    }

    /// Nil where a rule keeps outer packets out of the gateway's own.
    private func routesOfOuterPackets(
        _ gateway: GatewayConfiguration?, _ connections: [ConnectionSpec?]
    ) -> PrefixLadder? {
        guard let gateway, RoutePlan(gateway).leadsOuterPackets else { return nil }
        return PrefixLadder(connections.lazy.compactMap { $0 }.flatMap(\.prefixes))
    }

    /// A route over the endpoint sends the tunnel into itself.
    private mutating func findLoop(
        _ tunnel: TunnelSpec, _ place: ConfigurationNode, _ routes: PrefixLadder
    ) {
        for case .address(let endpoint) in tunnel.endpoints {
            guard let route = routes.prefixes(around: endpoint.address).first else { continue }
            reader.report(
                place.child("endpoint") ?? place,
                "route \(route) covers \(endpoint.address): the tunnel would run into itself",
                "leave firewall-mark and table out of [gateway], so that outer packets take a table without that route"
            )
        }
    }

    private func hasPrivateKey(_ document: ConfigurationReader.Section) -> Bool {
        !reader.errors.contains { $0.key == "gateway.private-key-file" || $0.key == "gateway.credential" }
            && document.has("gateway")
    }

    private func at(_ line: SourceLine?) -> String { line.map { " (\($0))" } ?? "" }

    private func isFirst(
        _ node: ConfigurationNode, of connection: ConnectionSpec, _ nodes: [ConfigurationNode]
    ) -> Bool {
        nodes.first { $0.child("name")?.text == connection.name }?.line == node.line
    }
}

extension ConfigurationNode {
    func child(_ name: String) -> ConfigurationNode? {
        guard case .table(let entries) = value else { return nil }
        return entries[name]
    }

    fileprivate var text: String? {
        guard case .string(let text) = value else { return nil }
        return text
    }

    fileprivate var elements: [ConfigurationNode] {
        guard case .list(let items) = value else { return [] }
        return items
    }

    /// Where a connection names each of its routes. They were read in this order, some left out where the file is wrong:
    /// one pass finds the places of 100,000.
    func places(of routes: [IPPrefix]) -> [(route: IPPrefix, place: ConfigurationNode)] {
        guard let list = child("routes") else { return routes.map { ($0, self) } }
        if list.elements.count == routes.count { return Array(zip(routes, list.elements)) }
        var elements = ([list] + list.elements).makeIterator()
        return routes.map { route in
            while let place = elements.next() {
                if place.text.flatMap({ IPPrefix($0) }) == route { return (route, place) }
            }
            return (route, self)
        }
    }

    /// Tunnels that could not be read have no value: the key and the name say which one this is.
    fileprivate func isTunnel(_ tunnel: TunnelSpec, of connection: ConnectionSpec) -> Bool {
        child("public-key")?.text == tunnel.publicKey.base64
            && (child("name")?.text ?? connection.name) == tunnel.name
    }
}
