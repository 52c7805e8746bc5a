package import GatewayCore
internal import LinuxIO
internal import WireGuard

extension LocalNetwork {
    /// Those of all interfaces but one. Empty where the kernel does not tell.
    package static func all(except own: String) -> [LocalNetwork] {
        guard let netlink = try? Netlink(), let addresses = try? netlink.addresses() else { return [] }
        var links: [UInt32: NetlinkLink] = [:]
        return addresses.compactMap { address in
            let prefix = address.prefix
            guard prefix.length < prefix.family.width, !prefix.address.isLinkLocal, !prefix.address.isLoopback
            else { return nil }
            if links[address.interface] == nil {
                links[address.interface] = (try? netlink.link(index: address.interface)) ?? nil
            }
            guard let link = links[address.interface], link.name != own else { return nil }
            return LocalNetwork(
                interface: link.name, network: prefix, isInUse: link.isUp && link.hasCarrier,
                isPointToPoint: link.isPointToPoint)
        }
    }
}
