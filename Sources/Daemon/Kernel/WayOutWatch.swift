internal import GatewayCore
internal import WireGuard

/// Which interface the outer packets to each peer leave by, so that it is seen when they leave by another one: an address of
/// the old link is no source then.
struct WayOutWatch {
    private struct Way {
        let endpoint: IPAddress
        let interface: UInt32
    }

    private var ways: [PeerID: Way] = [:]

    /// After the kernel's routes have changed. `interface` is that of the way to the peer, nil where there is none.
    mutating func look(
        at peer: PeerID, _ underlay: UnderlayPath, leavesBy interface: UInt32?
    ) -> WayOut {
        guard let interface else { return WayOut(isThere: false) }
        let before = ways[peer].flatMap { $0.endpoint == underlay.endpoint.address ? $0.interface : nil }
        ways[peer] = Way(endpoint: underlay.endpoint.address, interface: interface)
        // Where packets come by another link than they leave by all the time, the source is right as it is.
        guard let source = underlay.source, source.interface != 0, source.interface != interface,
            (before ?? source.interface) == source.interface
        else { return WayOut(isThere: true) }
        return WayOut(isThere: true, left: source.interface)
    }

    /// Those that are no more.
    mutating func forget(allBut peers: Set<PeerID>) { ways = ways.filter { peers.contains($0.key) } }
}
