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
            guard address.prefix.length < address.prefix.family.width else { return nil }
            if names[address.interface] == nil {
                names[address.interface] = (try? netlink.link(index: address.interface))??.name
            }
            return names[address.interface].map { LocalNetwork(interface: $0, network: address.prefix) }
        }
    }
}
