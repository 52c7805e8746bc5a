internal import Synchronization

/// Where packets go, and who may send which: prefixes to connections, connections to the path in use.
///
/// A lookup gives a destination: the number of a connection, or of an address that is looked at more closely and
/// that has its number behind those of the connections. So the usual packet, whose source is where packets to
/// that source would go, pays nothing for the others:
///
///     0 ..< connections     the connections; their word is the active path, or says where the buckets are
///     connections ...       inside addresses of far gateways, pinned to their path, and watched addresses
///
/// Concurrency: immutable but for the words, which are atomics: failing over is one store, as is moving a bucket
/// of flows to another path. Control publishes a new table for every other change; a data thread holds the one
/// that it works with.
@safe package final class ForwardingTable: Sendable {
    /// A far site: the prefixes behind it, and one path a tunnel.
    package struct Connection: Sendable {
        /// Those that lead here now.
        package let prefixes: [IPPrefix]
        package let paths: [TunnelPath]
        /// Flows are spread over the paths by `assign`; if not, all take the one of `activate`.
        package let isBalanced: Bool
        /// Targets of probes behind the far gateways: replies from them are looked for. They must be among `sources`
        /// to be believed, and are reached as any other address.
        package let watched: [IPAddress]
        /// The address that they are asked from; nil is the tunnels' own inside addresses.
        package let probeSource: IPAddress?
        /// What its packets may come from: of all connections' sources the longest that holds an address must be
        /// one of this connection's. Two connections may have the same one. What leads here now may come from
        /// here in any case.
        package let sources: [IPPrefix]
        package let active: Int?
        /// Our prefixes under the numbers that the far site knows them by.
        package let translation: PrefixTranslation?
        /// Whether an outer packet shows the inner one's DSCP.
        package let copiesDSCP: Bool
        /// Limits the rate of all paths together.
        package let limiter: RateLimiter?
        /// By position in `paths`; none where it ends.
        package let pathLimiters: [RateLimiter?]

        /// `active` counts in `paths`; nil is none, as it is for a balanced connection until `assign`. `sources`
        /// are `prefixes` unless they are given.
        package init(
            prefixes: [IPPrefix], paths: [TunnelPath], isBalanced: Bool = false, watched: [IPAddress] = [],
            probeSource: IPAddress? = nil, sources: [IPPrefix]? = nil, active: Int? = 0,
            translation: PrefixTranslation? = nil,
            copiesDSCP: Bool = false, limiter: RateLimiter? = nil, pathLimiters: [RateLimiter?] = []
        ) {
            self.prefixes = prefixes
            self.paths = paths
            self.isBalanced = isBalanced
            self.watched = watched
            self.probeSource = probeSource
            self.sources = sources ?? prefixes
            self.active = active
            self.translation = translation
            self.copiesDSCP = copiesDSCP
            self.limiter = limiter
            self.pathLimiters = pathLimiters
        }

        func pathLimiter(of peer: PeerID) -> RateLimiter? {
            paths.firstIndex { $0.peer == peer }.flatMap {
                pathLimiters.indices.contains($0) ? pathLimiters[$0] : nil
            }
        }

        fileprivate func features(ofPath position: Int) -> Features {
            var features: Features = []
            if translation != nil { features.insert(.translates) }
            if copiesDSCP { features.insert(.copiesDSCP) }
            if limiter != nil || (pathLimiters.indices.contains(position) && pathLimiters[position] != nil) {
                features.insert(.isLimited)
            }
            return features
        }
    }

    /// What is asked of a path's packets, so that a data thread looks closer only where there is something.
    struct Features: OptionSet, Sendable {
        let rawValue: UInt8

        static let translates = Features(rawValue: 1)
        static let copiesDSCP = Features(rawValue: 2)
        static let isLimited = Features(rawValue: 4)
    }

    /// Parts that a balanced connection's flows are split into.
    package static let bucketCount = 256

    /// What a word holds: the address of a path, zero for none, or one of these in its lowest two bits and a
    /// number above them.
    private enum Tag {
        static let mask: UInt = 3
        /// Number of the first of the connection's buckets, which are words too.
        static let buckets: UInt = 1
        /// Number of the connection that the address is behind.
        static let connection: UInt = 2
    }

    /// An address that is looked at more closely.
    private struct Special {
        let address: IPAddress
        let connection: Int32
        /// The inside address of a path of `connection`, and of no other.
        let path: Int?
    }

    /// MTU of the TUN, in bytes: the most that padding may fill.
    package let mtu: Int
    package let connections: [Connection]

    private let destinations: PrefixTable
    private let specials: [Special]
    /// One a destination, then the buckets of the balanced connections.
    private let words: AtomicArray
    private let origins: OriginTable
    /// By peer: which connection its packets come from.
    private let connectionOfPeer: [Int32]
    private let featuresOfPeer: [Features]
    /// All that are in use.
    let limiters: [RateLimiter]

    package init(connections: [Connection], mtu: Int) {
        self.connections = connections
        self.mtu = mtu
        let routes = connections.enumerated().flatMap { number, connection in
            connection.prefixes.map { (prefix: $0, value: Int32(number)) }
        }
        let specials = Self.specials(of: connections, routes: PrefixTable(routes))
        self.specials = specials
        destinations = PrefixTable(
            routes
                + specials.enumerated().map { position, special in
                    (prefix: IPPrefix(host: special.address), value: Int32(connections.count + position))
                })
        origins = OriginTable(connections.map(\.sources))
        let peers = connections.flatMap { $0.paths.map(\.peer.rawValue) }
        var owners = [Int32](repeating: PrefixTable.none, count: (peers.max() ?? -1) + 1)
        var features = [Features](repeating: [], count: owners.count)
        for (number, connection) in connections.enumerated() {
            for (position, path) in connection.paths.enumerated() {
                owners[path.peer.rawValue] = Int32(number)
                features[path.peer.rawValue] = connection.features(ofPath: position)
            }
        }
        connectionOfPeer = owners
        featuresOfPeer = features
        limiters = connections.flatMap { ([$0.limiter] + $0.pathLimiters).compactMap(\.self) }

        let balanced = connections.indices.filter { connections[$0].isBalanced }
        let firstBucket = connections.count + specials.count
        words = AtomicArray(count: firstBucket + balanced.count * Self.bucketCount)
        for (position, number) in balanced.enumerated() {
            let first = firstBucket + position * Self.bucketCount
            words[number].store(UInt(first) << 2 | Tag.buckets, ordering: .relaxed)
        }
        for (position, special) in specials.enumerated() where special.connection >= 0 {
            let number = Int(special.connection)
            let word =
                special.path.map { Self.word(of: connections[number].paths[$0]) }
                ?? UInt(number) << 2 | Tag.connection
            words[connections.count + position].store(word, ordering: .relaxed)
        }
        for number in connections.indices { activate(connections[number].active, of: number) }
    }

    /// Where addresses are equal the first one counts, and an inside address before a watched one.
    private static func specials(of connections: [Connection], routes: PrefixTable) -> [Special] {
        var specials: [Special] = []
        var known: Set<IPAddress> = []
        for (number, connection) in connections.enumerated() {
            for (position, path) in connection.paths.enumerated() {
                guard let address = path.inside?.remote, known.insert(address).inserted else { continue }
                specials.append(Special(address: address, connection: Int32(number), path: position))
            }
        }
        for address in connections.flatMap(\.watched) where known.insert(address).inserted {
            // Watching leads no packet anywhere else.
            specials.append(Special(address: address, connection: routes.lookup(address), path: nil))
        }
        return specials
    }

    package static let empty = ForwardingTable(connections: [], mtu: 1420)

    // MARK: Control's side

    /// From their next batch on, the data threads send the connection's packets by this path; nil is by none.
    /// Nothing for a balanced connection.
    package func activate(_ path: Int?, of connection: Int) {
        guard !connections[connection].isBalanced else { return }
        words[connection].store(word(ofPath: path, of: connection), ordering: .releasing)
    }

    /// Gives each of a balanced connection's `bucketCount` buckets the path with that position; a position that
    /// there is not is no path. Flows of buckets that stay where they were do not move. Nothing for a connection
    /// that fails over.
    package func assign(_ buckets: [Int], of connection: Int) {
        guard connections[connection].isBalanced else { return }
        let first = Int(words[connection].load(ordering: .relaxed) >> 2)
        for (bucket, path) in buckets.prefix(Self.bucketCount).enumerated() {
            let word = word(ofPath: path, of: connection)
            guard words[first + bucket].load(ordering: .relaxed) != word else { continue }
            words[first + bucket].store(word, ordering: .releasing)
        }
    }

    private func word(ofPath path: Int?, of connection: Int) -> UInt {
        let paths = connections[connection].paths
        guard let path, paths.indices.contains(path) else { return 0 }
        return Self.word(of: paths[path])
    }

    private static func word(of path: TunnelPath) -> UInt {
        unsafe UInt(bitPattern: Unmanaged.passUnretained(path).toOpaque())
    }

    /// The connection that packets to an address go to.
    package func connection(for address: IPAddress) -> Int? {
        let destination = destinations.lookup(address)
        let connection =
            destination < connections.count
            ? destination : specials[Int(destination) - connections.count].connection
        return connection < 0 ? nil : Int(connection)
    }

    /// Source ports of the SYN segments that probe a TCP target: above those that Linux takes by itself
    /// (net.ipv4.ip_local_port_range), so that no connection of this host has one.
    package static let probePorts: ClosedRange<UInt16> = 61_000...61_999

    // MARK: The data threads' side

    @inline(__always)
    func destination(v4 address: UInt32) -> Int32 { destinations.lookup(address) }

    @inline(__always)
    func destination(v6 address: UInt128) -> Int32 { destinations.lookup(address) }

    @inline(__always)
    func connection(of peer: PeerID) -> Int32 {
        peer.rawValue < connectionOfPeer.count ? connectionOfPeer[peer.rawValue] : PrefixTable.none
    }

    @inline(__always)
    func features(of peer: PeerID) -> Features {
        peer.rawValue < featuresOfPeer.count ? featuresOfPeer[peer.rawValue] : []
    }

    /// Whether it is the far end of a tunnel's inside link, whose packets are no site's.
    func isPinned(_ destination: Int32) -> Bool {
        let number = Int(destination) &- connections.count
        return number >= 0 && specials[number].path != nil
    }

    /// Whether it is a health target.
    func isWatched(_ source: IPAddress) -> Bool {
        let number = Int(destinations.lookup(source)) &- connections.count
        return number >= 0 && specials[number].path == nil
    }

    /// Walks the connection's paths: for what is rare.
    func path(of peer: PeerID) -> TunnelPath? {
        let connection = connection(of: peer)
        return connection < 0 ? nil : connections[Int(connection)].paths.first { $0.peer == peer }
    }

    /// The path that a packet to `destination`, which is not negative, takes; nil where none is up. Valid while
    /// the table is held.
    @inline(__always)
    func path(to destination: Int32, for packet: borrowing IPPacket) -> Unmanaged<TunnelPath>? {
        let word = words[Int(destination)].load(ordering: .acquiring)
        guard word & Tag.mask == 0 else { return unsafe path(behind: word, for: packet) }
        return unsafe Self.path(in: word)
    }

    @inline(never)
    private func path(behind tagged: UInt, for packet: borrowing IPPacket) -> Unmanaged<TunnelPath>? {
        var word = tagged
        if word & Tag.mask == Tag.connection { word = words[Int(word >> 2)].load(ordering: .acquiring) }
        if word & Tag.mask == Tag.buckets {
            let bucket = Int(FlowHash.of(packet) >> 56)
            word = words[Int(word >> 2) &+ bucket].load(ordering: .acquiring)
        }
        return unsafe Self.path(in: word)
    }

    @inline(__always)
    private static func path(in word: UInt) -> Unmanaged<TunnelPath>? {
        guard let opaque = unsafe UnsafeRawPointer(bitPattern: word) else { return nil }
        return unsafe Unmanaged.fromOpaque(opaque)
    }

    /// Whether a packet from `source` that came by a path of `connection` with this `inside` is believed, where
    /// packets to `source` do not simply go to that connection.
    func mayComeFrom(_ source: IPAddress, inside: InsideLink?, of connection: Int32) -> Bool {
        if inside?.remote == source { return true }
        let destination = destinations.lookup(source)
        if Int(destination) >= connections.count {
            let special = specials[Int(destination) &- connections.count]
            if special.connection == connection { return true }
            if special.path != nil { return false }
        }
        return origins.holds(source, of: connection)
    }

    /// Returns true if probes of the connection are sent from the address, so that replies to it are ours.
    func isProbeSource(_ address: IPAddress, of connection: Int32) -> Bool {
        let connection = connections[Int(connection)]
        return connection.probeSource == address || connection.paths.contains { $0.inside?.local == address }
    }
}
