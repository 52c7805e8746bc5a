internal import Synchronization

/// Where packets go, and who may send which: prefixes to connections, connections to the path in use.
///
/// Concurrency: immutable but for the active path of each connection, which is an atomic: failing over is one
/// store. Control publishes a new table for every other change; a data thread holds the one that it works
/// with.
@safe package final class ForwardingTable: Sendable {
    /// A far site: the prefixes behind it, and one path a tunnel.
    package struct Connection: Sendable {
        package let prefixes: [IPPrefix]
        package let paths: [TunnelPath]
        package let active: Int

        /// `active` counts in `paths`.
        package init(prefixes: [IPPrefix], paths: [TunnelPath], active: Int = 0) {
            self.prefixes = prefixes
            self.paths = paths
            self.active = active
        }
    }

    /// MTU of the TUN, in bytes: the most that padding may fill.
    package let mtu: Int
    package let connections: [Connection]
    private let prefixes: PrefixTable
    private let activePaths: SharedWords
    /// By peer: which connection its packets come from.
    private let connectionOfPeer: [Int32]

    package init(connections: [Connection], mtu: Int) {
        self.connections = connections
        self.mtu = mtu
        prefixes = PrefixTable(
            connections.enumerated().flatMap { number, connection in
                connection.prefixes.map { (prefix: $0, value: Int32(number)) }
            })
        activePaths = SharedWords(count: connections.count)
        let peers = connections.flatMap { $0.paths.map(\.peer.rawValue) }
        var owners = [Int32](repeating: PrefixTable.none, count: (peers.max() ?? -1) + 1)
        for (number, connection) in connections.enumerated() {
            for path in connection.paths { owners[path.peer.rawValue] = Int32(number) }
        }
        connectionOfPeer = owners
        for number in connections.indices { activate(connections[number].active, of: number) }
    }

    package static let empty = ForwardingTable(connections: [], mtu: 1420)

    /// From their next batch on, the data threads send the connection's packets by this path.
    package func activate(_ path: Int, of connection: Int) {
        let paths = connections[connection].paths
        guard paths.indices.contains(path) else { return }
        unsafe activePaths[connection].store(
            UInt(bitPattern: Unmanaged.passUnretained(paths[path]).toOpaque()), ordering: .releasing)
    }

    /// The connection that an address is behind.
    package func connection(for address: IPAddress) -> Int? {
        let value = prefixes.lookup(address)
        return value < 0 ? nil : Int(value)
    }

    @inline(__always)
    func connection(v4 address: UInt32) -> Int32 { prefixes.lookup(address) }

    @inline(__always)
    func connection(v6 address: UInt128) -> Int32 { prefixes.lookup(address) }

    @inline(__always)
    func connection(of peer: PeerID) -> Int32 {
        peer.rawValue < connectionOfPeer.count ? connectionOfPeer[peer.rawValue] : PrefixTable.none
    }

    /// Valid while the table is held.
    @inline(__always)
    func activePath(of connection: Int32) -> Unmanaged<TunnelPath>? {
        let word = activePaths[Int(connection)].load(ordering: .acquiring)
        guard let opaque = unsafe UnsafeRawPointer(bitPattern: word) else { return nil }
        return unsafe Unmanaged.fromOpaque(opaque)
    }
}
