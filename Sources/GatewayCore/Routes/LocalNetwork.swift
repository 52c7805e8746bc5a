package import WireGuard

/// A network that this host is on.
///
/// A carried prefix *is also local* while it is equal to such a network or inside it: the tunnel would take away what
/// is on this host's own link. It is left out then, and packets for it go by the link. Not so:
/// - a prefix that the network is inside of, such as 10.0.0.0/8 around it: the main table's longer route comes first
///   (`RoutePlan`);
/// - a single address: who gives a tunnel one machine out of a network means that machine;
/// - link-local networks, which every link has, and the gateway's own interface;
/// - a network whose interface is down or has no carrier: nobody is there to be taken away.
package struct LocalNetwork: Hashable, Sendable {
    package let interface: String
    package let network: IPPrefix
    /// This host's own there.
    package let address: IPAddress
    /// The interface is up and has a carrier.
    package let isInUse: Bool
    /// Such as a TUN device of another VPN: nobody but its other end is on it.
    package let isPointToPoint: Bool

    /// `address` is this host's, with the length of its network.
    package init(
        interface: String, network address: IPPrefix, isInUse: Bool = true, isPointToPoint: Bool = false
    ) {
        self.interface = interface
        network = address.network
        self.address = address.address
        self.isInUse = isInUse
        self.isPointToPoint = isPointToPoint
    }

    /// Returns true if the prefix is also local while this network is in use.
    package func holds(_ prefix: IPPrefix) -> Bool {
        prefix.length < prefix.family.width && network.contains(prefix)
    }
}

extension [LocalNetwork] {
    /// By which the prefix is also local now.
    package func inUse(holding prefix: IPPrefix) -> LocalNetwork? {
        first { $0.isInUse && $0.holds(prefix) }
    }
}
