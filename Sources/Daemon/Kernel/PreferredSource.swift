package import GatewayCore
internal import LinuxIO
package import WireGuard

/// Which of its addresses this host sends from when it speaks to a far site itself: a name server, a monitor or a backup
/// on the gateway. Left to the kernel it is the inside address, which the far site has no route back to.
///
/// Where the connection does not say, it is the address in the one local network that is behind this gateway:
/// - of an interface that is up, with a carrier, and is no other VPN's (point-to-point);
/// - not of one that is named as those of container and virtual machine managers are, whose networks end at this host;
/// - private (RFC 1918, RFC 4193), and under `nat` one that has a number at the far site;
/// - not where a tunnel carries the network itself;
/// - not of an interface that outer packets leave by: the far end could answer to it past the tunnel, in clear.
/// Where there are several, the kernel chooses: a wrong guess is worse than none.
package struct PreferredSource: Hashable, Sendable {
    package let address: IPAddress
    package let interface: String

    /// One of each family, as far as there is one. `carried` says whether connections have just this prefix.
    package static func guesses(
        from networks: [LocalNetwork], outerInterfaces: Set<String>,
        translations: [PrefixTranslationSpec], carried: (IPPrefix) -> Bool
    ) -> [PreferredSource] {
        IPAddress.Family.allCases.compactMap { family in
            let candidates = networks.filter { network in
                network.address.family == family && network.isInUse && !network.isPointToPoint
                    && !outerInterfaces.contains(network.interface)
                    && !network.endsAtThisHost
                    && network.address.isPrivate
                    && (translations.isEmpty || translations.contains { $0.inside.contains(network.address) })
                    && !network.isCarried(carried)
            }
            guard candidates.count == 1, let network = candidates.first else { return nil }
            return PreferredSource(address: network.address, interface: network.interface)
        }
    }

    /// The interfaces that outer packets to the endpoints leave by, and that of the default route: whoever speaks first
    /// may come from anywhere. `mark` is that of outer packets.
    package static func outerInterfaces(
        to endpoints: Set<IPAddress>, boundTo devices: [String], mark: UInt32
    ) -> Set<String> {
        guard let netlink = try? Netlink() else { return Set(devices) }
        // Public ones, that nobody has a route of their own to. Nothing is sent there.
        let anywhere = [IPAddress("1.1.1.1"), IPAddress("2606:4700:4700::1111")].compactMap(\.self)
        let names = endpoints.union(anywhere).compactMap { address -> String? in
            guard let way = try? netlink.way(to: address, mark: mark) else { return nil }
            return ((try? netlink.link(index: way.interface)) ?? nil)?.name
        }
        return Set(names + devices)
    }
}

extension LocalNetwork {
    /// Docker, Podman, libvirt, LXC, LXD, Incus and Kubernetes give their bridges such names.
    private static let managedNames = [
        "docker", "br-", "podman", "virbr", "lxcbr", "lxdbr", "incusbr", "cni", "flannel", "cali", "veth",
    ]

    var endsAtThisHost: Bool { Self.managedNames.contains { interface.hasPrefix($0) } }

    /// Whether a tunnel carries this network, or a part of it that the host's address is in.
    fileprivate func isCarried(_ carried: (IPPrefix) -> Bool) -> Bool {
        (network.length...network.family.width).contains { length in
            IPPrefix(address: address, length: length).map { carried($0.network) } ?? false
        }
    }
}

extension IPAddress {
    /// RFC 1918, section 3; RFC 4193, section 3.
    fileprivate var isPrivate: Bool {
        let blocks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
        return blocks.contains { IPPrefix($0)?.contains(self) ?? false }
    }
}
