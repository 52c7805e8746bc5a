internal import LinuxIO
package import WireGuard

/// A network that this host is on.
package struct LocalNetwork: Hashable, Sendable {
    package let interface: String
    package let network: IPPrefix

    package init(interface: String, network: IPPrefix) {
        self.interface = interface
        self.network = network.network
    }

    /// Empty where the kernel does not tell: it is for advice, and nothing hangs on it.
    package static var all: [LocalNetwork] {
        guard let netlink = try? Netlink(), let addresses = try? netlink.addresses() else { return [] }
        var names: [UInt32: String] = [:]
        return addresses.compactMap { address in
            let prefix = address.prefix
            guard prefix.length < prefix.family.width, !prefix.address.isLinkLocal, !prefix.address.isLoopback
            else { return nil }
            if links[address.interface] == nil {
                links[address.interface] = (try? netlink.link(index: address.interface)) ?? nil
            }
            return names[address.interface].map { LocalNetwork(interface: $0, network: address.prefix) }
        }
    }
}
