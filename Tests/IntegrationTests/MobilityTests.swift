internal import ControlAPI
internal import Testing

extension Integration {
    /// Ends that move: addresses, ports, translators, families and namespaces change under a session.
    @Suite struct Mobility {
        @Test("the answering end follows to a new address and port", arguments: Pairing.all, Family.allCases)
        func roaming(_ pairing: Pairing, underlay: Family) async throws {
            try await Tunnel.run(pairing, underlay: underlay) { tunnel in
                let moved = Site.onprem.secondUnderlay(underlay)
                try await tunnel.addUnderlay(moved, at: .onprem, underlay)
                try await tunnel.removeUnderlay(Site.onprem.underlay(underlay), at: .onprem, underlay)
                try await tunnel.onprem.wg("set \(tunnel.onprem.interface) listen-port 40404")
                try await tunnel.reach(from: .onprem)
                let expected = underlay.endpoint(moved, 40404)
                try await eventually("vpc sees \(expected)") {
                    try await tunnel.vpc.peer().endpoint == expected
                }
                for family in Family.allCases { try await tunnel.ping(from: .vpc, family) }
            }
        }

        @Test("a port that was left can be taken again at once", arguments: Pairing.all)
        func portAndBack(_ pairing: Pairing) async throws {
            try await Tunnel.run(pairing) { tunnel in
                for gateway in [tunnel.onprem, tunnel.vpc] {
                    for port in (0..<10).flatMap({ _ in [40404, 51820] }) {
                        try await gateway.wg("set \(gateway.interface) listen-port \(port)")
                    }
                }
                try await tunnel.reach(from: .onprem)
                try await tunnel.ping(from: .vpc, .v4)
            }
        }

        @Test("a translator that forgets and maps anew is followed", arguments: Pairing.all)
        func rebinding(_ pairing: Pairing) async throws {
            try await Lab.run { lab in
                try await lab.masquerade(port: 40001)
                let tunnel = try await Tunnel.make(in: lab, pairing)
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                let translator = Site.vpc.router(.v4)
                try #require(try await tunnel.vpc.peer().endpoint == "\(translator):40001")

                try await lab.masquerade(port: 40002)
                try await tunnel.reach(from: .onprem)
                try await eventually("vpc sees the new mapping") {
                    try await tunnel.vpc.peer().endpoint == "\(translator):40002"
                }
                try await tunnel.ping(from: .vpc, .v6)
            }
        }

        @Test(
            "a persistent keepalive holds a mapping open, and finds the new one by itself",
            arguments: Pairing.all)
        func keepaliveThroughTranslator(_ pairing: Pairing) async throws {
            try await Lab.run { lab in
                try await lab.masquerade(port: 40001)
                let tunnel = try await Tunnel.make(in: lab, pairing, keepalive: 1)
                try await tunnel.start()
                // Nothing but keepalives tells vpc where onprem is.
                try await tunnel.reach(from: .vpc)
                try await lab.masquerade(port: 40002)
                try await tunnel.reach(from: .vpc)
            }
        }

        @Test(
            "an endpoint changed to the other family is used at once", arguments: Pairing.all, Family.allCases
        )
        func otherFamily(_ pairing: Pairing, first: Family) async throws {
            let second: Family = first == .v4 ? .v6 : .v4
            try await Tunnel.run(pairing, underlay: first) { tunnel in
                let endpoint = second.endpoint(Site.vpc.underlay(second), 51820)
                let onprem = tunnel.onprem
                try await onprem.wg(
                    "set \(onprem.interface) peer \(onprem.settings.peerPublicKey) endpoint '\(endpoint)'")
                try await tunnel.reach(from: .onprem)
                let expected = second.endpoint(Site.onprem.underlay(second), 51820)
                try await eventually("vpc sees \(expected)") {
                    try await tunnel.vpc.peer().endpoint == expected
                }
                for family in Family.allCases { try await tunnel.ping(from: .vpc, family) }
            }
        }

        @Test("a source address that was removed is given up")
        func sourceRemoved() async throws {
            try await sideBySide(Pairing.all, Family.allCases, atOnce: 6) {
                try await Self.sourceRemoved($0, underlay: $1)
            }
        }

        private static func sourceRemoved(_ pairing: Pairing, underlay: Family) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, pairing, underlay: underlay, bothInitiate: true)
                // vpc calls onprem's second address, and onprem answers from there: its source sticks.
                let second = Site.onprem.secondUnderlay(underlay)
                try await tunnel.addUnderlay(second, at: .onprem, underlay)
                tunnel.onprem.change { $0.endpoint = nil }
                tunnel.vpc.change { $0.endpoint = underlay.endpoint(second, 51820) }
                try await tunnel.onprem.start()
                try await tunnel.vpc.start()
                try await tunnel.reach(from: .vpc)
                try #require(try await tunnel.vpc.peer().endpoint == underlay.endpoint(second, 51820))

                try await tunnel.removeUnderlay(second, at: .onprem, underlay)
                try await tunnel.reach(from: .onprem)
                let remaining = underlay.endpoint(Site.onprem.underlay(underlay), 51820)
                try await eventually("vpc sees \(remaining)") {
                    try await tunnel.vpc.peer().endpoint == remaining
                }
                try await tunnel.ping(from: .vpc, .v4)
            }
        }

        @Test(
            "a TUN moved to another namespace goes on over the sockets of the first", arguments: Pairing.all)
        func movedInterface(_ pairing: Pairing) async throws {
            try await Tunnel.run(pairing) { tunnel in
                let hidden = try await tunnel.lab.addNamespace("hidden")
                let onprem = tunnel.onprem
                var script = """
                    set -e
                    ip -n \(onprem.namespace) link set \(onprem.interface) netns \(hidden)
                    ip -n \(hidden) link set \(onprem.interface) up

                    """
                for address in onprem.settings.addresses {
                    script += "ip -n \(hidden) addr add \(address) dev \(onprem.interface)\n"
                }
                for route in onprem.settings.routes {
                    script += "ip -n \(hidden) route add \(route) dev \(onprem.interface)\n"
                }
                try await Shell.run(script)
                for family in Family.allCases {
                    try await eventually("the hidden namespace reaches vpc") {
                        try await Shell.attempt("ping -c 1 -W 1 \(Site.vpc.inside(family))", in: hidden)
                            .succeeded
                    }
                    try await Shell.run(
                        "ping -c 5 -i 0.05 -W 5 \(Site.onprem.inside(family))", in: tunnel.lab.namespace(.vpc)
                    )
                }
                try #require(try onprem.process.exitStatus == nil, "a moved TUN is not a deleted one")
            }
        }

        @Test(
            "a TUN moved away leaves the guard behind, and moved back it is set up as before",
            .enabled(if: !Lab.reference, "about vgwd's own routes"))
        func movedBack() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let onprem = tunnel.onprem
                let (routes, rules) = (try await onprem.ownRoutes(), try await onprem.ownRules())
                let link =
                    "ip addr show dev \(onprem.interface) | grep -oE 'mtu [0-9]+|inet6? [^ ]+ scope global' | sort"
                let before = try await Shell.run(link, in: onprem.namespace)
                let there = try await tunnel.lab.addNamespace("hidden")
                let index = try await Shell.run(
                    "ip -o link show dev \(onprem.interface) | cut -d: -f1", in: onprem.namespace)
                for pause in [true, false] {
                    try await Shell.run(
                        "ip link set \(onprem.interface) netns \(there)", in: onprem.namespace)
                    if pause {
                        // Its number is another's, once it is back.
                        try await Shell.run(
                            "ip link add taken index \(index) type bridge", in: onprem.namespace)
                        try await eventually("it is said") {
                            let status = try await onprem.status()
                            return status?.notices?.contains { $0.contains("in another network namespace") }
                                == true
                        }
                        let left = try await onprem.ownRoutes()
                        let guards = routes.split(separator: "\n").filter { $0.hasPrefix("unreachable") }
                        for route in guards {
                            try #require(left.contains(route), "\(route) is gone: \(left)")
                        }
                        try #require(!left.contains(onprem.interface) && !guards.isEmpty)
                        try #require(try await onprem.ownRules() == rules)
                        let answer = try await Shell.attempt(
                            "ping -c 1 -W 1 \(Site.vpc.inside(.v4))", in: onprem.namespace)
                        try #require(
                            !answer.succeeded && (answer.errors + answer.output).contains("No route to host"))
                    }
                    try await Shell.run(
                        "ip -n \(there) link set \(onprem.interface) netns \(onprem.namespace)")
                    try await eventually("all is as before") {
                        let (nowRoutes, nowRules) = (
                            try await onprem.ownRoutes(), try await onprem.ownRules()
                        )
                        let now = try await Shell.run(link, in: onprem.namespace)
                        return nowRoutes == routes && nowRules == rules && now == before
                    }
                    for family in Family.allCases { try await tunnel.ping(from: .onprem, family) }
                    let notices = try await onprem.status()?.notices ?? []
                    try #require(!notices.contains { $0.contains("namespace") }, "\(notices)")
                }
                let events = try await onprem.vgwctl("events").output
                try #require(events.contains("interface-moved") && events.contains("interface-returned"))
                try #require(try await onprem.process.terminate() == 0)
                try #require(try await onprem.ownRules().isEmpty)
            }
        }

        @Test("an underlay that goes away and comes back is used again", arguments: Pairing.all)
        func underlayDown(_ pairing: Pairing) async throws {
            try await Tunnel.run(pairing) { tunnel in
                let namespace = tunnel.lab.namespace(.onprem)
                try await Shell.run("ip link set wan down", in: namespace)
                _ = try await tunnel.echo(from: .onprem, arguments: "-c 1 -W 1")
                try await Shell.run(
                    """
                    set -e
                    ip link set wan up
                    ip addr replace \(Site.onprem.underlay(.v6))/64 dev wan
                    for family in -4 -6; do
                        router=$([ $family = -4 ] && echo \(Site.onprem.router(.v4)) || echo \(Site.onprem.router(.v6)))
                        ip $family route replace default via $router
                    done
                    """, in: namespace)
                try await tunnel.reach(from: .onprem)
                try await tunnel.ping(from: .vpc, .v6)
            }
        }
    }
}

extension Tunnel {
    func addUnderlay(_ address: String, at site: Site, _ family: Family) async throws {
        try await Shell.run("ip addr add \(address)/\(family.linkPrefix) dev wan", in: lab.namespace(site))
    }

    /// Takes an address away and leaves the default route usable.
    func removeUnderlay(_ address: String, at site: Site, _ family: Family) async throws {
        try await Shell.run(
            """
            set -e
            sysctl -qw net.ipv4.conf.wan.promote_secondaries=1
            ip addr del \(address)/\(family.linkPrefix) dev wan
            ip \(family.option) route replace default via \(site.router(family))
            """, in: lab.namespace(site))
    }
}

extension Lab {
    /// The internet hides onprem behind its own address and one port. Called again, it forgets what it knew.
    func masquerade(port: Int) async throws {
        let rules = try write(
            """
            table ip nat
            delete table ip nat
            table ip nat {
                chain post {
                    type nat hook postrouting priority 100;
                    ip saddr 192.0.2.0/24 udp dport 51820 masquerade to :\(port)
                }
            }

            """, to: "nat.nft")
        try await Shell.run("nft -f \(rules) && conntrack -F 2>/dev/null || true", in: internet)
    }
}
