package import WireGuard

/// What the gateway is to be: key, port, mark and connections, as a value. A request changes a copy, so that
/// what is refused has changed nothing; the control loop then brings the device, the sockets, the forwarding
/// table and the kernel to what the copy says, by the list of steps that came with it.
///
/// A prefix belongs to one connection at a time, as in the kernel's allowed IPs: given to another, it moves.
package struct GatewayState: Sendable {
    /// One thing to be done in the device, in order.
    package enum Step: Sendable {
        case privateKey(PrivateKey?)
        case removePeer(PublicKey)
        case addPeer(Tunnel)
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
    /// Of peers that `wg` adds: its language has no word for a cipher.
    package var cipherOfNewPeers = Cipher.chacha20Poly1305
    private var byName: [String: Connection] = [:]
    private var order: [String] = []
    private var ownerOfPrefix: [IPPrefix: String] = [:]
    private var ownerOfPeer: [PublicKey: String] = [:]

    package init() {}

    package init(_ configuration: GatewayConfiguration) {
        privateKey = configuration.privateKey
        listenPort = configuration.listenPort
        firewallMark = configuration.firewallMark ?? 0
        for connection in configuration.connections { add(Connection(connection)) }
    }

    // MARK: Looking

    /// In the order in which they came.
    package var connections: [Connection] { order.compactMap { byName[$0] } }

    package func connection(named name: String) -> Connection? { byName[name] }

    package func connection(of peer: PublicKey) -> Connection? { ownerOfPeer[peer].flatMap { byName[$0] } }

    package func owner(of prefix: IPPrefix) -> String? { ownerOfPrefix[prefix.network] }

    package var peerCount: Int { ownerOfPeer.count }

    package func tunnel(of peer: PublicKey) -> Tunnel? {
        connection(of: peer)?.tunnels.first { $0.publicKey == peer }
    }

    /// Every prefix that leads into a tunnel.
    package var prefixes: [IPPrefix] { connections.flatMap(\.prefixes) }

    // MARK: Connections

    /// False: the name or one of its peers is there already.
    @discardableResult
    package mutating func add(_ connection: Connection) -> Bool {
        guard byName[connection.name] == nil,
            connection.tunnels.allSatisfy({ ownerOfPeer[$0.publicKey] == nil })
        else { return false }
        byName[connection.name] = Connection(
            name: connection.name, policy: connection.policy, tunnels: connection.tunnels)
        order.append(connection.name)
        for tunnel in connection.tunnels { ownerOfPeer[tunnel.publicKey] = connection.name }
        for route in connection.routes { give(route, to: connection.name) }
        return true
    }

    /// Takes the peer out, and its connection when that was the last tunnel of it.
    package mutating func remove(_ peer: PublicKey) {
        guard let name = ownerOfPeer.removeValue(forKey: peer) else { return }
        byName[name]?.tunnels.removeAll { $0.publicKey == peer }
        guard let connection = byName[name], connection.tunnels.isEmpty else { return }
        for route in connection.routes { ownerOfPrefix[route.prefix] = nil }
        byName[name] = nil
        order.removeAll { $0 == name }
    }

    // MARK: Prefixes

    /// Also from another connection that has it.
    package mutating func give(_ route: Connection.Route, to name: String) {
        guard byName[name] != nil, ownerOfPrefix[route.prefix] != name else { return }
        takeOut(route.prefix)
        ownerOfPrefix[route.prefix] = name
        byName[name]?.routes.append(route)
    }

    /// The connection that had it.
    @discardableResult
    package mutating func takeOut(_ prefix: IPPrefix) -> String? {
        guard let owner = ownerOfPrefix.removeValue(forKey: prefix.network) else { return nil }
        byName[owner]?.routes.removeAll { $0.prefix == prefix.network }
        return owner
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
            next.remove(key.publicKey)
        case .remove:
            next.privateKey = nil
            steps.append(.privateKey(nil))
        case nil:
            break
        }
        if let port = set.listenPort { next.listenPort = port }
        if let mark = set.firewallMark { next.firewallMark = mark }
        if set.replacePeers {
            steps += next.peers.map { .removePeer($0) }
            next.removeAll()
        }
        for change in set.peers { next.apply(change, &steps) }
        guard next.peerCount <= Self.peerLimit else { return nil }
        self = next
        return steps
    }

    private mutating func removeAll() {
        byName = [:]
        order = []
        ownerOfPrefix = [:]
        ownerOfPeer = [:]
    }

    private var peers: [PublicKey] { connections.flatMap { $0.tunnels.map(\.publicKey) } }

    private mutating func apply(_ change: WgPeerChange, _ steps: inout [Step]) {
        let peer = change.publicKey
        if change.remove {
            guard ownerOfPeer[peer] != nil else { return }
            remove(peer)
            steps.append(.removePeer(peer))
            return
        }
        if ownerOfPeer[peer] == nil {
            guard !change.updateOnly, peer != privateKey?.publicKey else { return }
            let name = freeName(for: peer)
            let tunnel = Tunnel(name: name, publicKey: peer, cipher: cipherOfNewPeers)
            add(Connection(name: name, tunnels: [tunnel]))
            steps.append(.addPeer(tunnel))
        }
        guard let name = ownerOfPeer[peer] else { return }
        if let key = change.presharedKey {
            update(peer) { $0.presharedKey = key }
            steps.append(.presharedKey(peer, key))
        }
        if let endpoint = change.endpoint {
            update(peer) { $0.endpoint = .address(endpoint) }
            steps.append(.endpoint(peer, endpoint))
        }
        if change.replaceAllowedIPs {
            for route in byName[name]?.routes ?? [] { ownerOfPrefix[route.prefix] = nil }
            byName[name]?.routes = []
        }
        for prefix in change.allowedIPs {
            switch prefix {
            case .add(let prefix): give(Connection.Route(prefix, origin: .runtime), to: name)
            case .remove(let prefix): if owner(of: prefix) == name { takeOut(prefix) }
            }
        }
        // Last: a keepalive that goes from off to on is sent at once, and then wants all the rest.
        if let interval = change.persistentKeepalive {
            update(peer) { $0.persistentKeepalive = interval }
            steps.append(.persistentKeepalive(peer, interval))
        }
    }

    private mutating func update(_ peer: PublicKey, _ body: (inout Tunnel) -> Void) {
        guard let name = ownerOfPeer[peer],
            let place = byName[name]?.tunnels.firstIndex(where: { $0.publicKey == peer })
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
            if byName[name] == nil { return name }
        }
        return text
    }
}
