internal import WireGuard

/// Looking up routes, and failing over.
struct TableLoop: ~Copyable {
    private let table: ForwardingTable
    private let addresses: [IPAddress]

    /// `prefixes` routes of IPv4, of all lengths from 8 to 32.
    init(prefixes count: Int) {
        var random = SystemRandomNumberGenerator()
        var prefixes: Set<IPPrefix> = []
        while prefixes.count < count {
            let address = IPAddress(v4: UInt32.random(in: 0x0100_0000...0xdfff_ffff, using: &random))
            if let prefix = IPPrefix(address: address, length: Int.random(in: 8...32, using: &random)) {
                prefixes.insert(prefix.network)
            }
        }
        let ordered = Array(prefixes)
        // Many connections, as for a hub: so that neighbours do not melt into one range.
        table = ForwardingTable(
            connections: (0..<min(count, 64)).map { number in
                let own = stride(from: number, to: ordered.count, by: 64).map { ordered[$0] }
                return ForwardingTable.Connection(
                    prefixes: own,
                    paths: [TunnelPath(peer: PeerID(2 * number)), TunnelPath(peer: PeerID(2 * number + 1))])
            }, mtu: 1420)
        addresses = (0..<4096).map { _ in
            IPAddress(v4: UInt32.random(in: 0x0100_0000...0xdfff_ffff, using: &random))
        }
    }

    borrowing func lookups(_ count: Int) -> Duration {
        let clock = ContinuousClock()
        let start = clock.now
        var found = 0
        for number in 0..<count where table.connection(for: addresses[number & 4095]) != nil { found &+= 1 }
        let elapsed = clock.now - start
        // The loop must not be left out as one that does nothing.
        precondition(found <= count)
        return elapsed
    }

    borrowing func switches(_ count: Int) -> Duration {
        let clock = ContinuousClock()
        let start = clock.now
        for number in 0..<count { table.activate(number & 1, of: 0) }
        return clock.now - start
    }
}
