internal import ControlAPI
internal import Testing

extension Integration {
    /// What the daemon does to the host it runs on, and what it leaves there.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own configuration")) struct Lifecycle {
        @Test("routes of protocol 153 are there while it runs and gone after it was told to stop")
        func routes() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let onprem = tunnel.onprem
                let routes = try await onprem.ownRoutes()
                for prefix in onprem.settings.routes {
                    try #require(routes.contains(prefix), "\(prefix) is missing in:\n\(routes)")
                }
                let addresses = try await Shell.run(
                    "ip addr show dev \(onprem.interface)", in: onprem.namespace)
                for address in onprem.settings.addresses { try #require(addresses.contains(address)) }
                try #require(addresses.contains("mtu \(onprem.settings.mtu)"))

                let status = try await onprem.process.terminate()
                try #require(status == 0, "SIGTERM is an orderly end, not \(status)")
                try #require(try await onprem.ownRoutes().isEmpty)
                try #require(try await onprem.ownRules().isEmpty)
                try #require(try await !onprem.hasInterface())
                let left = try await Shell.run(
                    "ls \(onprem.controlSocket) \(onprem.uapiSocket) 2>/dev/null || true")
                try #require(left.isEmpty, "left behind: \(left)")
            }
        }

        @Test("what a killed daemon left is neither in the way nor doubled")
        func afterKill() async throws {
            try await Tunnel.run(.ours, bothInitiate: true) { tunnel in
                let onprem = tunnel.onprem
                let (routes, rules) = (try await onprem.ownRoutes(), try await onprem.ownRules())
                for _ in 0..<3 { try await onprem.restart() }
                try #require(try await onprem.ownRoutes() == routes)
                try #require(try await onprem.ownRules() == rules)
                try await tunnel.reach(from: .onprem)
                _ = try await onprem.process.terminate()
                try #require(try await onprem.ownRules().isEmpty)
            }
        }

        @Test(
            "an endpoint that its own routes cover does not loop", arguments: Family.allCases,
            [["198.51.100.0/24", "2001:db8:2::/64"], ["0.0.0.0/0", "::/0"]])
        func coveredEndpoint(_ underlay: Family, routes: [String]) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours, underlay: underlay)
                tunnel.onprem.change { $0.routes += routes }
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                for family in Family.allCases {
                    // To the far end's outer address, from an inner one: through the tunnel.
                    try await Shell.run(
                        "ping -c 3 -i 0.1 -W 5 -I \(Site.onprem.inside(family)) \(Site.vpc.underlay(family))",
                        in: tunnel.onprem.namespace)
                }
                // Had outer packets entered the tunnel, each would have become many.
                let packets = try await tunnel.onprem.tunnelStatus().txPackets
                try #require(packets < 100, "\(packets) packets for a dozen echoes")
                try await tunnel.startServer()
                try await tunnel.measure(.tcp, reversed: false)
            }
        }

        @Test("a second daemon on one configuration refuses, and names the first")
        func twice() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let onprem = tunnel.onprem
                let second = try await Shell.attempt(
                    "\(Programs.path("vgwd")) --config \(try onprem.writeConfiguration())",
                    in: onprem.namespace,
                    limit: 20)
                try #require(
                    second.status != 0 && second.status < 124, "the second ended with \(second.status)")
                let said = second.errors + second.output
                try #require(
                    said.contains(String(try onprem.process.pid)) || said.contains("already"), "\(said)")
                try await tunnel.ping(from: .onprem, .v4)
                try await tunnel.ping(from: .vpc, .v6)
                try #require(try await onprem.status() != nil, "the first lost its control socket")
            }
        }

        @Test("a wrong configuration is refused whole, with every error and status 78")
        func wrongConfiguration() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                let good = try tunnel.onprem.writeConfiguration()
                let checked = try await Shell.attempt("\(Programs.path("vgwd")) check --config \(good)")
                try #require(checked.succeeded, "\(checked)")
                let text = try await Shell.run("cat \(good)")
                let wrong = try lab.write(
                    text.replacing("mtu = 1420", with: "mtu = 70\nbogus-key = 1")
                        .replacing("listen-port = 51820", with: "listen-port = 99999")
                        .replacing("10.20.0.0/16", with: "10.20.0.0/61"), to: "wrong.toml")
                for verb in ["", "check "] {
                    let answer = try await Shell.attempt(
                        "\(Programs.path("vgwd")) \(verb)--config \(wrong)", in: lab.namespace(.onprem),
                        limit: 20)
                    try #require(answer.status == 78, "\(answer)")
                    for part in ["bogus-key", "mtu", "listen-port", "10.20.0.0/61"] {
                        try #require(
                            (answer.errors + answer.output).contains(part), "no word of \(part): \(answer)")
                    }
                }
                try #require(try await !tunnel.onprem.hasInterface(), "something was applied")

                try await Shell.run("chmod 644 \(lab.directory)/onprem-private.key")
                let readable = try await Shell.attempt(
                    "\(Programs.path("vgwd")) --config \(good)", in: lab.namespace(.onprem), limit: 20)
                try #require(readable.status == 78, "a key that others can read was taken: \(readable)")
                let missing = try await Shell.attempt(
                    "\(Programs.path("vgwd")) --config \(lab.directory)/none.toml", limit: 20)
                try #require(missing.status == 78, "\(missing)")
            }
        }

        @Test("routes are added and deleted while it runs")
        func runtimeRoutes() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let onprem = tunnel.onprem
                try await Shell.run("ip addr add 10.30.0.1/32 dev lo", in: tunnel.vpc.namespace)
                let ping = "ping -c 2 -i 0.1 -W 3 -I \(Site.onprem.inside(.v4)) 10.30.0.1"
                let added = try await onprem.vgwctl("route add 10.30.0.0/16 via vpc")
                try #require(added.succeeded, "\(added)")
                try #require(try await onprem.ownRoutes().contains("10.30.0.0/16"))
                try await Shell.run(ping, in: onprem.namespace)
                let list = try await onprem.vgwctl("route list")
                try #require(list.succeeded && list.output.contains("10.30.0.0/16"), "\(list)")

                for wrong in [
                    "route add 10.30.0.0/61 via vpc", "route add 10.31.0.0/16 via none",
                    "route del 10.99.0.0/16",
                ] {
                    try #require(try await !onprem.vgwctl(wrong).succeeded, "taken: \(wrong)")
                }
                let removed = try await onprem.vgwctl("route del 10.30.0.0/16")
                try #require(removed.succeeded, "\(removed)")
                try #require(try await !onprem.ownRoutes().contains("10.30.0.0/16"))
                try #require(try await !Shell.attempt(ping, in: onprem.namespace).succeeded)
                try await tunnel.ping(from: .onprem, .v4)
            }
        }

        @Test(
            "a route added while it runs is checked as one in the file is",
            arguments: ["table = \"main\"", "firewall-mark = \"off\""])
        func runtimeRouteChecked(_ line: String) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                tunnel.onprem.change { $0.gatewayLine = line }
                // It does not know where onprem is before it hears of it.
                tunnel.vpc.change { $0.gatewayLine = line }
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                for (gateway, prefix, says) in [
                    (tunnel.onprem, "198.51.100.0/24", "covers 198.51.100.10"),
                    (tunnel.onprem, "0.0.0.0/0", "covers 198.51.100.10"),
                    (tunnel.vpc, "192.0.2.0/24", "covers 192.0.2.10"),
                ] {
                    let before = try await gateway.ownRoutes()
                    let answer = try await gateway.vgwctl("route add \(prefix) via \(gateway.site.other)")
                    try #require(!answer.succeeded && answer.errors.contains(says), "\(answer)")
                    try #require(try await gateway.ownRoutes() == before)
                }
                // The kernel has no route of multicast: who sends to a group names the interface.
                let before = try await tunnel.onprem.ownRoutes()
                let group = try await tunnel.onprem.vgwctl("route add 224.0.0.5/32 via vpc")
                try #require(group.succeeded, "\(group)")
                try #require(try await tunnel.onprem.ownRoutes() == before)
                let other = try await tunnel.onprem.vgwctl("route add 10.30.0.0/16 via vpc")
                try #require(other.succeeded, "\(other)")
                try await tunnel.ping(from: .vpc, .v4)
            }
        }

        @Test("an IPv6 address on a host without IPv6 is missing and said so, and IPv4 goes on")
        func withoutIPv6() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                let onprem = tunnel.onprem
                func turnIPv6(_ isOff: Bool) async throws {
                    let value = isOff ? 1 : 0
                    try await Shell.run(
                        "sysctl -qw net.ipv6.conf.all.disable_ipv6=\(value) net.ipv6.conf.default.disable_ipv6=\(value)",
                        in: onprem.namespace)
                }
                try await turnIPv6(true)
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                let missing = try #require(try await onprem.status()?.missingAddresses)
                try #require(missing.map(\.address) == ["fd10::1/128"])
                let shown = try await onprem.vgwctl("status")
                try #require(
                    shown.output.contains("fd10::1/128 is missing on \(onprem.interface): IPv6 is off"))
                try await turnIPv6(false)
                try await eventually("the address is there") {
                    try await onprem.status()?.missingAddresses == nil
                }
                try await tunnel.ping(from: .onprem, .v6)
            }
        }

        @Test("a tunnel that nobody answers in is down long before its session ends, and up again after it")
        func cutWire() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let onprem = tunnel.onprem
                try await Shell.run("ip -n \(tunnel.lab.internet) link set vpc down")
                try await eventually("the status says that nobody answers", within: .seconds(90)) {
                    _ = try await tunnel.echo(from: .onprem, arguments: "-c 1 -W 1")
                    let status = try await onprem.tunnelStatus()
                    // It was heard some time before the handshakes began.
                    return status.state == .down && status.reason?.hasPrefix("no answer from") == true
                        && status.reason?.contains(", and nothing heard for ") == true
                }
                try await Shell.run("ip -n \(tunnel.lab.internet) link set vpc up")
                try await tunnel.reach(from: .onprem)
                try await eventually("the status says that it is up") {
                    try await onprem.tunnelStatus().state == .up
                }
            }
        }

        @Test("the status shows what an operator asks first")
        func status() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let onprem = tunnel.onprem
                let table = try await onprem.vgwctl("status")
                try #require(table.succeeded, "\(table)")
                for part in ["vpc", "up", onprem.settings.endpoint ?? "-"] {
                    try #require(table.output.contains(part), "\(table)")
                }
                let json = try await onprem.vgwctl("status --json")
                let status = try JSON.decode(GatewayStatus.self, from: Array(json.output.utf8))
                let connection = try #require(status.connections.first)
                try #require(connection.state == .up)
                let shown = try #require(connection.tunnels.first)
                try #require(shown.state == .up && shown.rxBytes > 0 && shown.txBytes > 0)
                let age = try #require(shown.lastHandshakeAge)
                try #require(age < 120)
                // Two data threads saw it; `wg` must count the same.
                let peer = try await onprem.peer()
                try #require(peer.sent >= Int(shown.txBytes) && peer.received >= Int(shown.rxBytes))
                let secret = onprem.settings.keys.privateKey
                try #require(!table.output.contains(secret) && !json.output.contains(secret))
                let full = try await onprem.vgwctl("status >/dev/full")
                try #require(full.status == 74 && full.errors.contains("cannot be written"), "\(full)")
                let drops = try await onprem.vgwctl("status --drops")
                try #require(drops.succeeded, "\(drops)")
            }
        }

        @Test("an interface set down is waited for; one deleted ends the daemon with an error")
        func interfaceDownAndGone() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let onprem = tunnel.onprem
                try await Shell.run("ip link set \(onprem.interface) down", in: onprem.namespace)
                try #require(try await !tunnel.echo(from: .onprem, arguments: "-c 2 -i 0.2 -W 1"))
                try await Shell.run("ip link set \(onprem.interface) up", in: onprem.namespace)
                try await eventually("it is as before") {
                    try await Shell.run(
                        """
                        for route in \(onprem.settings.routes.joined(separator: " ")); do
                            family=$([[ $route == *:* ]] && echo -6 || echo -4)
                            [ -n "$(ip $family route show table all proto 153 $route dev \(onprem.interface))" ] || exit 1
                        done
                        """, in: onprem.namespace)
                    return try await tunnel.echo(from: .onprem, arguments: "-c 1 -W 1")
                }
                try await Shell.run("ip link del \(onprem.interface)", in: onprem.namespace)
                let status = try await onprem.process.waitForExit()
                try #require(status != 0, "a TUN that is gone is an error")
                let log = try tunnel.lab.log(of: onprem.process)
                try #require(log.contains(onprem.interface), "no word of \(onprem.interface) in the log")
            }
        }

        @Test("IP fragments and options pass as they are")
        func fragmentsAndOptions() async throws {
            try await Tunnel.run(.ours) { tunnel in
                for site in Site.allCases {
                    for family in Family.allCases {
                        try #require(
                            try await tunnel.echo(from: site, family, arguments: "-c 3 -i 0.05 -W 5 -s 6000"),
                            "fragments from \(site)")
                    }
                    try #require(
                        try await tunnel.echo(from: site, arguments: "-c 3 -i 0.05 -W 5 -T tsonly"),
                        "options from \(site)")
                }
            }
        }
    }
}

extension Gateway {
    /// Routes that carry the daemon's mark, of both families and all tables.
    func ownRoutes() async throws -> String {
        try await Shell.run(
            "(ip -4 route show table all proto 153; ip -6 route show table all proto 153) | sort",
            in: namespace)
    }

    func ownRules() async throws -> String {
        try await Shell.run("(ip -4 rule show; ip -6 rule show) | grep fwmark | sort || true", in: namespace)
    }
}
