package import GatewayCore
internal import LinuxIO
package import WireGuard

/// Whether this host forwards what goes between the networks behind it and the tunnels. Nothing else says that it does not:
/// the tunnel is up, this host itself reaches the far site, and its neighbours do not.
///
/// The networks behind it are those of interfaces that outer packets do not leave by. A host that has none may be one with
/// a single interface, behind which its neighbours are as well, or one that uses its tunnels alone: nobody but its operator
/// knows, and the words say so.
package struct ForwardingSurvey: Sendable {
    /// Which packets this is about. What came of it holds for the same ruleset.
    package struct Question: Hashable, Sendable {
        package var interface: String
        package var outerInterfaces: Set<String>
        package var families: Set<IPAddress.Family>
        package var networks: [LocalNetwork]

        package init(
            interface: String, outerInterfaces: Set<String>, families: Set<IPAddress.Family>,
            networks: [LocalNetwork]
        ) {
            self.interface = interface
            self.outerInterfaces = outerInterfaces
            self.families = families
            self.networks = networks
        }
    }

    package let problems: [ForwardingProblem]

    /// Names of the interfaces with neighbours, and whether outer packets leave by them as well.
    struct Neighbours {
        var interfaces: [NetlinkLink] = []
        var isUnderlay = false
    }

    /// As the kernel tells it now. What it does not tell makes no problem. It takes as long as the kernel takes to list
    /// its packet filter, which may be tens of milliseconds.
    package init(_ question: Question) {
        var problems: [ForwardingProblem] = []
        guard let netlink = try? Netlink() else {
            self.problems = []
            return
        }
        // It may not be there yet.
        let own = (try? netlink.link(question.interface)) ?? nil
        let tun = own ?? NetlinkLink(index: 0, name: question.interface, mtu: 0, isUp: false)
        let ruleset = try? NetfilterRuleset.read()
        for family in IPAddress.Family.allCases where question.families.contains(family) {
            let neighbours = Self.neighbours(of: family, question, netlink)
            guard !neighbours.interfaces.isEmpty else { continue }
            let switches = Self.switches(family, neighbours, tun: own, netlink)
            problems += switches.map { ForwardingProblem(off: $0, neighbours, tun: tun.name) }
            guard let ruleset else { continue }
            for neighbour in neighbours.interfaces {
                // What a firewall lets through in one direction is somebody's intention.
                let out = NetfilterVerdict.chains(
                    of: ruleset, dropping: .init(family: family, from: neighbour, to: tun))
                let back = NetfilterVerdict.chains(
                    of: ruleset, dropping: .init(family: family, from: tun, to: neighbour))
                guard !out.isEmpty, let chain = back.first else { continue }
                problems.append(
                    ForwardingProblem(
                        dropping: chain, ForwardingProblem.Firewall(chain.table, in: ruleset), family,
                        between: neighbour.name, and: tun.name, isUnderlay: neighbours.isUnderlay))
            }
        }
        self.problems = problems
    }

    private static func neighbours(
        of family: IPAddress.Family, _ question: Question, _ netlink: borrowing Netlink
    ) -> Neighbours {
        let networks = question.networks.filter {
            $0.address.family == family && $0.isInUse && !$0.isPointToPoint && !$0.endsAtThisHost
                && $0.interface != question.interface
        }
        let behind = networks.filter { !question.outerInterfaces.contains($0.interface) }
        let names = Set((behind.isEmpty ? networks : behind).map(\.interface)).sorted()
        return Neighbours(
            interfaces: names.compactMap { (try? netlink.link($0)) ?? nil }, isUnderlay: behind.isEmpty)
    }

    /// The settings that keep the kernel from forwarding.
    private static func switches(
        _ family: IPAddress.Family, _ neighbours: Neighbours, tun: NetlinkLink?, _ netlink: borrowing Netlink
    ) -> [ForwardingProblem.Switch] {
        // For IPv6 no other setting counts.
        guard family == .v4 else { return netlink.isForwarding(.v6) == false ? [.all(.v6)] : [] }
        let isOn = netlink.isForwarding(.v4)
        var closed = neighbours.interfaces.filter { netlink.isForwardingIPv4(by: $0.index) == false }.map(
            \.name)
        if let tun, netlink.isForwardingIPv4(by: tun.index) == false { closed.append(tun.name) }
        let isClosedToNewOnes = tun == nil && netlink.isForwardingIPv4(by: nil) == false
        if isOn == false, !closed.isEmpty || isClosedToNewOnes { return [.all(.v4)] }
        return closed.map { .interface($0) }
    }
}

/// Why what goes between a network behind this host and the tunnels is not forwarded, in words. Pure.
package struct ForwardingProblem: Hashable, Sendable, CustomStringConvertible {
    enum Switch: Hashable {
        case all(IPAddress.Family)
        /// net.ipv4.conf.INTERFACE.forwarding.
        case interface(String)

        var setting: String {
            switch self {
            case .all(.v4): "net.ipv4.ip_forward"
            case .all(.v6): "net.ipv6.conf.all.forwarding"
            // A dot in a name is a slash to sysctl.
            case .interface(let name): "net.ipv4.conf.\(name.replacing(".", with: "/")).forwarding"
            }
        }
    }

    /// Whose commands mend it.
    enum Firewall: Hashable {
        case docker
        case ufw
        case firewalld
        case iptables
        case nftables

        init(_ table: NetfilterRuleset.Table, in ruleset: NetfilterRuleset) {
            if table.name == "firewalld" {
                self = .firewalld
            } else if table.family == .inet || table.name != "filter"
                || !ruleset.hasChain("FORWARD", in: table)
            {
                self = .nftables
            } else if ruleset.hasChain("DOCKER-USER", in: table) {
                self = .docker
            } else if ["ufw-user-forward", "ufw6-user-forward"].contains(where: {
                ruleset.hasChain($0, in: table)
            }) {
                self = .ufw
            } else {
                self = .iptables
            }
        }
    }

    package let description: String
    package let remedy: String

    init(off setting: Switch, _ neighbours: ForwardingSurvey.Neighbours, tun: String) {
        let names = neighbours.interfaces.map(\.name).joined(separator: ", ")
        description =
            switch setting {
            case .all(let family): "this host does not forward IP\(family) packets (\(setting.setting) = 0)"
            case .interface(let name):
                "this host does not forward what comes by \(name) (\(setting.setting) = 0)"
            }
        let what =
            neighbours.isUnderlay
            ? "only its own packets get into the tunnels: where other hosts are to use them"
            : "what is behind \(names) does not get into the tunnels, nor back"
        remedy =
            "\(what): sysctl -w \(setting.setting)=1, and the line '\(setting.setting) = 1' in /etc/sysctl.d/vgwd.conf "
            + "makes it last"
    }

    init(
        dropping chain: NetfilterRuleset.BaseChain, _ firewall: Firewall, _ family: IPAddress.Family,
        between neighbour: String, and tun: String, isUnderlay: Bool
    ) {
        let (home, name) = ("\(chain.table.family.name) \(chain.table.name)", chain.name)
        description =
            "chain \(name) of nftables' table \(home) drops what goes between \(neighbour) and \(tun)"
        let iptables = family == .v4 ? "iptables" : "ip6tables"
        let command =
            switch firewall {
            case .docker:
                "\(iptables) -I DOCKER-USER -i \(tun) -j ACCEPT; \(iptables) -I DOCKER-USER -o \(tun) -j ACCEPT"
            case .ufw: "ufw route allow in on \(tun); ufw route allow out on \(tun)"
            case .firewalld:
                "firewall-cmd --permanent --zone=$(firewall-cmd --get-zone-of-interface=\(neighbour)) "
                    + "--add-interface=\(tun); firewall-cmd --reload"
            case .iptables:
                "\(iptables) -I \(name) -i \(tun) -j ACCEPT; \(iptables) -I \(name) -o \(tun) -j ACCEPT"
            case .nftables:
                "nft insert rule \(home) \(name) iifname \(tun) accept; "
                    + "nft insert rule \(home) \(name) oifname \(tun) accept"
            }
        remedy = (isUnderlay ? "where other hosts are to use the tunnels: " : "") + command
    }
}
