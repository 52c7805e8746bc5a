package import WireGuard

/// What the gateway is to be: key, port, mark and connections, as a value. A request changes a copy, so that
/// what is refused has changed nothing; the control loop then brings the device, the sockets, the forwarding
/// table and the kernel to what the copy says, by the list of steps that came with it.
///
/// A configured prefix may be behind several connections, which differ in their metric. One that `wg` gives to a
/// peer leaves all others, as in the kernel's allowed IPs.
package struct GatewaySpec: Sendable {
    /// One thing to be done in the device, in order.
    package enum Step: Sendable {
        case privateKey(PrivateKey?)
        case removePeer(PublicKey)
        case addPeer(TunnelSpec)
        case presharedKey(PublicKey, PresharedKey)
        case endpoint(PublicKey, Endpoint)
        case persistentKeepalive(PublicKey, UInt16)
    }

    /// Peers that one gateway takes. Each holds up to a dozen secrets, and each of those is four mappings of
    /// locked memory and guard pages, of the 65,530 that Linux gives a process (vm.max_map_count).
    package static let peerLimit = 1024

    package var privateKey: PrivateKey?
    /// 0 lets the kernel choose.
    package var listenPort: UInt16 = 0
    /// 0 is none.
    package var firewallMark: UInt32 = 0
    /// The cipher of peers that `wg` adds, whose language has no word for it.
    package var cipherOfNewPeers = Cipher.chacha20Poly1305
    private var byName: [String: ConnectionSpec] = [:]
    private var order: [String] = []
    private var ownersOfPrefix: [IPPrefix: [String]] = [:]
    private var ownerOfTunnel: [TunnelKeys: String] = [:]
    private var ownerOfName: [String: String] = [:]

    package init() {}

    package init(
        privateKey: PrivateKey, listenPort: UInt16, firewallMark: UInt32, connections: [ConnectionSpec]
    ) {
        self.privateKey = privateKey
        self.listenPort = listenPort
        self.firewallMark = firewallMark
        for connection in connections { add(connection) }
    }

    // MARK: Looking

    /// In the order in which they came.
    package var connections: [ConnectionSpec] { order.compactMap { byName[$0] } }

    package func connection(named name: String) -> ConnectionSpec? { byName[name] }

    package func connection(of key: TunnelKeys) -> ConnectionSpec? {
        ownerOfTunnel[key].flatMap { byName[$0] }
    }

    /// The connection of a peer that knows us by the gateway's key, as all peers of `wg` do.
    package func connection(of peer: PublicKey) -> ConnectionSpec? {
        connection(of: TunnelKeys(ours: nil, theirs: peer))
    }

    package func connection(ofTunnel name: String) -> ConnectionSpec? {
        ownerOfName[name].flatMap { byName[$0] }
    }

    package func tunnel(named name: String) -> TunnelSpec? {
        connection(ofTunnel: name)?.tunnels.first { $0.name == name }
    }

    package func owners(of prefix: IPPrefix) -> [String] { ownersOfPrefix[prefix.network] ?? [] }

    /// The far ends of the links inside the tunnels.
    package var insideEnds: Set<IPPrefix> {
        Set(connections.flatMap(\.tunnels).compactMap(\.inside?.remote).map { IPPrefix(host: $0) })
    }

    /// Endpoints that are written as addresses.
    package var addressEndpoints: [IPAddress] {
        connections.lazy.flatMap(\.tunnels).flatMap(\.endpoints).compactMap {
            if case .address(let endpoint) = $0 { endpoint.address } else { nil }
        }
    }

    package var peerCount: Int { ownerOfTunnel.count }

    // MARK: Connections

    /// False: the name or one of its tunnels is there already.
    @discardableResult
    package mutating func add(_ connection: ConnectionSpec) -> Bool {
        guard byName[connection.name] == nil,
            connection.tunnels.allSatisfy({ ownerOfTunnel[$0.keys] == nil && ownerOfName[$0.name] == nil })
        else { return false }
        byName[connection.name] = connection
        order.append(connection.name)
        for tunnel in connection.tunnels {
            ownerOfTunnel[tunnel.keys] = connection.name
            ownerOfName[tunnel.name] = connection.name
        }
        // One array for all that have no other owner.
        let sole = [connection.name]
        ownersOfPrefix.reserveCapacity(ownersOfPrefix.count + connection.routes.count)
        for route in connection.routes {
            if let others = ownersOfPrefix.updateValue(sole, forKey: route.prefix) {
                ownersOfPrefix[route.prefix] = others + sole
            }
        }
        return true
    }

    /// Takes the tunnel out, and its connection when that was the last one of it.
    package mutating func remove(_ key: TunnelKeys) {
        guard let name = ownerOfTunnel.removeValue(forKey: key) else { return }
        for tunnel in byName[name]?.tunnels ?? [] where tunnel.keys == key { ownerOfName[tunnel.name] = nil }
        byName[name]?.tunnels.removeAll { $0.keys == key }
        guard let connection = byName[name], connection.tunnels.isEmpty else { return }
        for route in connection.routes { takeOut(route.prefix, of: name) }
        byName[name] = nil
        order.removeAll { $0 == name }
    }

    // MARK: Prefixes

    /// Beside other connections that have it.
    package mutating func add(_ route: ConnectionSpec.Route, to name: String) {
        guard byName[name] != nil, ownersOfPrefix[route.prefix]?.contains(name) != true else { return }
        ownersOfPrefix[route.prefix, default: []].append(name)
        byName[name]?.routes.append(route)
    }

    /// From all other connections that have it.
    package mutating func give(_ route: ConnectionSpec.Route, to name: String) {
        let before = ownersOfPrefix[route.prefix] ?? []
        guard byName[name] != nil, before.count != 1 || before.first != name else { return }
        for owner in before where owner != name { byName[owner]?.routes.remove(route.prefix) }
        ownersOfPrefix[route.prefix] = [name]
        // The first of equal prefixes stays.
        byName[name]?.routes.append(route)
    }

    package mutating func takeOut(_ prefix: IPPrefix, of name: String) {
        ownersOfPrefix[prefix]?.removeAll { $0 == name }
        if ownersOfPrefix[prefix]?.isEmpty == true { ownersOfPrefix[prefix] = nil }
        byName[name]?.routes.remove(prefix)
    }

    /// What a routing daemon routes to a dynamic connection now, in place of what it did before. False when
    /// nothing has changed.
    package mutating func learn(_ learned: [LearnedRoute], for name: String) -> Bool {
        guard let connection = byName[name] else { return false }
        let own = Set(connection.routes.lazy.filter { $0.origin != .learned }.map(\.prefix))
        let routes = learned.filter { !own.contains($0.prefix) }.map {
            ConnectionSpec.Route($0.prefix, origin: .learned, metric: $0.metric)
        }
        let before = Set(connection.routes.lazy.filter { $0.origin == .learned })
        let after = Set(routes)
        guard before != after else { return false }
        for route in before.subtracting(after) { takeOut(route.prefix, of: name) }
        for route in routes where !before.contains(route) { add(route, to: name) }
        return true
    }

    // MARK: The wg socket

    /// A `set` in one go. Its values were checked when it was read; what is left to refuse is a table that
    /// would be too large: nil then, and nothing changed.
    package mutating func apply(_ set: WgSet) -> [Step]? {
        var next = self
        var steps: [Step] = []
        switch set.privateKey {
        case .set(let key):
            next.privateKey = key
            steps.append(.privateKey(key))
            // Nobody is his own peer: the kernel takes such a one out when the key comes.
            next.remove(TunnelKeys(ours: nil, theirs: key.publicKey))
        case .remove:
            next.privateKey = nil
            steps.append(.privateKey(nil))
        case nil:
            break
        }
        if let port = set.listenPort { next.listenPort = port }
        if let mark = set.firewallMark { next.firewallMark = mark }
        if set.replacePeers {
            for peer in next.peers {
                steps.append(.removePeer(peer))
                next.remove(TunnelKeys(ours: nil, theirs: peer))
            }
        }
        for change in set.peers { next.apply(change, &steps) }
        guard next.peerCount <= Self.peerLimit else { return nil }
        self = next
        return steps
    }

    /// Those that `wg` can name: with the gateway's own key.
    private var peers: [PublicKey] {
        connections.flatMap(\.tunnels).filter { $0.privateKey == nil }.map(\.publicKey)
    }

    private mutating func apply(_ change: WgPeerChange, _ steps: inout [Step]) {
        let peer = change.publicKey
        let key = TunnelKeys(ours: nil, theirs: peer)
        if change.remove {
            guard ownerOfTunnel[key] != nil else { return }
            remove(key)
            steps.append(.removePeer(peer))
            return
        }
        if ownerOfTunnel[key] == nil {
            guard !change.updateOnly, peer != privateKey?.publicKey else { return }
            let name = freeName(for: peer)
            // What the language of `wg` has no word for is as in a configuration that leaves it out.
            let connection = ConnectionSpec(
                name: name, tunnels: [TunnelSpec(name: name, publicKey: peer, cipher: cipherOfNewPeers)])
            add(connection)
            steps += connection.tunnels.map { .addPeer($0) }
        }
        guard let name = ownerOfTunnel[key] else { return }
        if let secret = change.presharedKey {
            update(peer) { $0.presharedKey = secret }
            steps.append(.presharedKey(peer, secret))
        }
        if let endpoint = change.endpoint {
            update(peer) { $0.endpoints = [.address(endpoint)] }
            steps.append(.endpoint(peer, endpoint))
        }
        if change.replaceAllowedIPs {
            for route in byName[name]?.routes ?? ConnectionRoutes() { takeOut(route.prefix, of: name) }
        }
        for prefix in change.allowedIPs {
            switch prefix {
            case .add(let prefix): give(ConnectionSpec.Route(prefix, origin: .wg), to: name)
            case .remove(let prefix): takeOut(prefix.network, of: name)
            }
        }
        // Last: a keepalive that goes from off to on is sent at once, and then wants all the rest.
        if let interval = change.persistentKeepalive {
            update(peer) { $0.persistentKeepalive = interval }
            steps.append(.persistentKeepalive(peer, interval))
        }
    }

    private mutating func update(_ peer: PublicKey, _ body: (inout TunnelSpec) -> Void) {
        let key = TunnelKeys(ours: nil, theirs: peer)
        guard let name = ownerOfTunnel[key],
            let place = byName[name]?.tunnels.firstIndex(where: { $0.keys == key })
        else { return }
        body(&byName[name]!.tunnels[place])
    }

    /// The first eight characters of the key, or as many more as nobody has yet. `/` would split a path of
    /// the control API, so the alphabet is that of RFC 4648, section 5.
    private func freeName(for peer: PublicKey) -> String {
        let text = String(
            peer.base64.map { character in
                switch character {
                case "/": "_"
                case "+": "-"
                default: character
                }
            })
        for length in 8..<text.count {
            let name = String(text.prefix(length))
            if byName[name] == nil, ownerOfName[name] == nil { return name }
        }
        return text
    }
}
