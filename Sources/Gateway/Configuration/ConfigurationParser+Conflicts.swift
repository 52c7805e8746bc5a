internal import WireGuard

/// What is right by itself and wrong beside something else.
extension ConfigurationParser {
    mutating func findConflicts(
        _ document: ConfigurationReader.Section, nodes: [ConfigurationNode],
        connections: [ConnectionConfiguration?],
        gateway: GatewayConfiguration?
    ) {
        var names: [String: Int?] = [:]
        var tunnels: [String: Int?] = [:]
        var keys: [PublicKey: Int?] = [:]
        var routes: [IPPrefix: (connection: String, line: Int?)] = [:]

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
            for route in connection.routes {
                let place = node.child("routes")?.element { IPPrefix($0) == route } ?? node
                if let first = routes[route],
                    first.connection != connection.name || !isFirst(node, of: connection, nodes)
                {
                    reader.report(
                        place, "connection \"\(first.connection)\" has \(route) already\(at(first.line))",
                        "a prefix is behind one connection: take it out of one, or make one of them longer")
                } else {
                    routes[route] = (connection.name, place.line)
                }
            }
            let places = node.child("tunnel")?.elements ?? []
            for place in places {
                guard let tunnel = connection.tunnels.first(where: { place.isTunnel($0, of: connection) })
                else { continue }
                if let first = tunnels[tunnel.name] {
                    reader.report(
                        place.child("name") ?? place,
                        "a tunnel is named \"\(tunnel.name)\" already\(at(first))",
                        "give each tunnel a name of its own")
                } else {
                    tunnels[tunnel.name] = (place.child("name") ?? place).line
                }
                let keyPlace = place.child("public-key") ?? place
                if let first = keys[tunnel.publicKey] {
                    reader.report(
                        keyPlace, "another tunnel has this public key already\(at(first))",
                        "a peer has one tunnel: write each far end's own key")
                } else {
                    keys[tunnel.publicKey] = keyPlace.line
                }
                if let gateway, hasPrivateKey(document), tunnel.publicKey == gateway.privateKey.publicKey {
                    reader.report(
                        keyPlace, "is this gateway's own public key",
                        "write the far end's: 'vgwctl pubkey' prints it there")
                }
                if let gateway { findLoop(gateway, tunnel, place, connections) }
            }
        }
    }

    /// Without a rule that keeps outer packets out, a route over the endpoint sends the tunnel into itself.
    private mutating func findLoop(
        _ gateway: GatewayConfiguration, _ tunnel: TunnelConfiguration, _ place: ConfigurationNode,
        _ connections: [ConnectionConfiguration?]
    ) {
        guard RoutePlan(gateway).leadsOuterPackets,
            case .address(let endpoint) = tunnel.endpoint,
            let route = connections.lazy.compactMap({ $0 }).flatMap(\.routes).first(where: {
                $0.contains(endpoint.address)
            })
        else { return }
        reader.report(
            place.child("endpoint") ?? place,
            "route \(route) covers \(endpoint.address): the tunnel would run into itself",
            "leave firewall-mark and table out of [gateway], so that outer packets take a table without that route"
        )
    }

    private func hasPrivateKey(_ document: ConfigurationReader.Section) -> Bool {
        !reader.errors.contains { $0.key == "gateway.private-key-file" || $0.key == "gateway.credential" }
            && document.has("gateway")
    }

    private func at(_ line: Int?) -> String { line.map { " (line \($0))" } ?? "" }

    private func isFirst(
        _ node: ConfigurationNode, of connection: ConnectionConfiguration, _ nodes: [ConfigurationNode]
    ) -> Bool {
        nodes.first { $0.child("name")?.text == connection.name }?.line == node.line
    }
}

extension ConfigurationNode {
    fileprivate func child(_ name: String) -> ConfigurationNode? {
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

    fileprivate func element(where matches: (String) -> Bool) -> ConfigurationNode? {
        elements.first { $0.text.map(matches) ?? false } ?? (text.map(matches) ?? false ? self : nil)
    }

    /// Tunnels that could not be read have no value: the key and the name say which one this is.
    fileprivate func isTunnel(_ tunnel: TunnelConfiguration, of connection: ConnectionConfiguration) -> Bool {
        child("public-key")?.text == tunnel.publicKey.base64
            && (child("name")?.text ?? connection.name) == tunnel.name
    }
}
