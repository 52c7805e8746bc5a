internal import ControlAPI
internal import Testing

extension Integration {
    /// Who checks where packets come from looks for the way back, and that leads into the tunnel where a carried prefix
    /// covers the far end. What the far end sends arrives all the same.
    @Suite(.enabled(if: !Lab.reference, "about routes of vgwd")) struct ReturnPath {
        struct Case: Sendable, CustomTestStringConvertible {
            /// Value of net.ipv4.conf.all.rp_filter.
            var mode: Int
            var underlay: Family
            /// The far end is known here; if not, it speaks first.
            var knowsEndpoint = true

            var testDescription: String {
                "rp_filter = \(mode), \(underlay.testDescription), "
                    + (knowsEndpoint ? "this end begins" : "the far end begins")
            }

            static let all = [
                Case(mode: 1, underlay: .v4), Case(mode: 1, underlay: .v4, knowsEndpoint: false),
                Case(mode: 2, underlay: .v4), Case(mode: 0, underlay: .v6),
            ]
        }

        @Test("a full tunnel comes up, also when it was down before")
        func comesUp() async throws { try await sideBySide(Case.all, Self.comesUp) }

        private static func comesUp(_ row: Case) async throws {
            try await Lab.run(reversePathFilter: row.mode) { lab in
                try await lab.filterIPv6Sources(at: .onprem)
                let tunnel = try await Tunnel.make(in: lab, .ours, underlay: row.underlay)
                tunnel.onprem.change {
                    $0.routes = ["0.0.0.0/0", "::/0"]
                    if !row.knowsEndpoint { $0.endpoint = nil }
                }
                if !row.knowsEndpoint {
                    let onprem = row.underlay.endpoint(Site.onprem.underlay(row.underlay), 51820)
                    tunnel.vpc.change { $0.endpoint = onprem }
                }
                try await tunnel.onprem.start()
                if row.knowsEndpoint {
                    // Then its routes are unreachable, and there is no way back at all without the mark.
                    try await eventually("the connection is down") {
                        try await tunnel.onprem.status()?.connections.first?.state == .down
                    }
                }
                try await tunnel.vpc.start()
                try await tunnel.reach(from: .onprem)
                try await tunnel.ping(from: .onprem, .v6)
            }
        }

        @Test("with two wires and rp_filter = 1 both tunnels come up under prefixes that cover both far ends")
        func twoWires() async throws {
            var options = Bundle.Options()
            options.routes[.onprem] = ["0.0.0.0/0", "::/0", Wire.link.network(.vpc, .v4)]
            try await Lab.run(reversePathFilter: 1) { lab in
                try await lab.addLink()
                let bundle = try await Bundle.make(in: lab, options)
                try await bundle.start()
                try await bundle.settle()
                try await bundle.traffic.ping(from: .onprem, .v4)
            }
        }

        @Test("an interface that drops what the far end sends is named, with what to do")
        func named() async throws {
            try await Lab.run(reversePathFilter: 1) { lab in
                try await lab.addLink()
                // The far end is on the link, and main's way back to it is by the internet.
                var options = Bundle.Options()
                options.wires = [.link]
                let bundle = try await Bundle.make(in: lab, options)
                try await Shell.run(
                    """
                    ip route del \(Wire.link.network(.vpc, .v4))
                    ip route add default via \(Wire.link.router(.onprem, .v4)) dev wan2 metric 500
                    """, in: lab.namespace(.onprem))
                try await bundle.start()
                try await eventually("the status says so") {
                    try await bundle.onprem.tunnels().first?.hint?.contains(
                        "sysctl -w net.ipv4.conf.wan2.rp_filter=2") == true
                }
                try await Shell.run(
                    "sysctl -qw net.ipv4.conf.wan2.rp_filter=2", in: lab.namespace(.onprem))
                try await bundle.settle()
            }
        }
    }
}

extension Lab {
    /// As firewalld does by default (IPv6_rpfilter), and where it stands early.
    func filterIPv6Sources(at site: Site) async throws {
        try await Shell.run(
            """
            nft -f - <<'END'
            table ip6 filter_sources {
                chain prerouting {
                    type filter hook prerouting priority raw + 10; policy accept;
                    icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
                    fib saddr . mark . iif oif missing drop
                }
            }
            END
            """, in: namespace(site))
    }
}
