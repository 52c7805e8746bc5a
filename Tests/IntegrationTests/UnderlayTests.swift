internal import ControlAPI
internal import Testing

extension Integration {
    /// Tunnels that are bound to a wire, and far ends with several addresses.
    @Suite(.enabled(if: !Lab.reference, "about connections of vgwd")) struct Underlays {
        @Test("each tunnel leaves by its own wire and no other", arguments: Bundle.FarEnd.allCases)
        func ownWire(_ farEnd: Bundle.FarEnd) async throws {
            try await Bundle.run(Bundle.Options(farEnd: farEnd)) { bundle in
                let lab = bundle.lab
                // What the routes alone would do: everything by the internet. A strict rp_filter would ask just them
                // where answers should come from.
                try await Shell.run(
                    """
                    sysctl -qw net.ipv4.conf.wan2.rp_filter=2
                    ip route add 100.64.2.10/32 via \(Site.onprem.router(.v4)) dev wan metric 0
                    """, in: lab.namespace(.onprem))
                let way = try await bundle.onprem.ask("route get 10.20.0.1", RouteExplanation.self)
                let source = Wire.link.underlay(.onprem)
                try #require(way.interface == "wan2" && way.source == source, "\(way)")
                let capture = try await lab.capture("onprem", in: lab.internet)
                let before = try await bundle.onprem.tunnel(over: .link).rxPackets
                for family in Family.allCases { try await bundle.traffic.ping(from: .onprem, family) }
                try #require(try await bundle.onprem.tunnel(over: .link).rxPackets >= before + 10)
                let strays = try await capture.stop().count { frame in
                    CapturedDatagram(frame: frame)?.destination == [100, 64, 2, 10]
                }
                try #require(strays == 0, "\(strays) packets of the link on the internet")
            }
        }

        @Test("a device that goes down takes its tunnel along at once, and back", arguments: [false, true])
        func device(isDeleted: Bool) async throws {
            let options = Bundle.Options(lines: ["health = { hold-down = \"0s\" }"])
            try await Bundle.run(options) { bundle in
                let namespace = bundle.lab.namespace(.onprem)
                let prober = try await Prober.start(in: bundle.lab, from: .onprem, every: 4)
                for _ in 0..<2 {
                    try await Shell.run(
                        isDeleted ? "ip link del wan2" : "ip link set wan2 down", in: namespace)
                    try await eventually("the link is down at onprem, by its interface") {
                        let tunnel = try await bundle.onprem.tunnel(over: .link)
                        return tunnel.state == .down && tunnel.reasonCode == "interface-down"
                    }
                    try await bundle.activated(.internet)
                    for site in Site.allCases { try await bundle.traffic.ping(from: site, .v4) }
                    if isDeleted {
                        try await bundle.lab.connectLink(at: .onprem)
                    } else {
                        try await Shell.run(
                            """
                            set -e
                            ip link set wan2 up
                            ip addr replace \(Wire.link.underlay(.onprem, .v6))/64 dev wan2
                            ip route replace \(Wire.link.network(.vpc, .v4)) \
                                via \(Wire.link.router(.onprem, .v4)) dev wan2
                            """, in: namespace)
                    }
                    try await bundle.activated(.link)
                }
                let longest = try await prober.stop().longestGap()
                try #require(longest <= 0.7, "nothing passed for \(longest.inMilliseconds)")
            }
        }

        @Test("the next endpoint is used while the first does not answer, and the first once it does")
        func severalEndpoints() async throws {
            let first = Site.vpc.secondUnderlay(.v4)
            var options = Bundle.Options(wires: [.internet])
            options.endpoints[.internet] = ["\(first):51820", "\(Site.vpc.underlay(.v4)):51820"]
            // Bound to a device, vpc's end has both addresses.
            options.siteLines[.onprem] = ["health = { hold-down = \"0s\" }"]
            try await Lab.run { lab in
                try await Shell.run("ip addr add \(first)/24 dev wan", in: lab.namespace(.vpc))
                let hole = """
                    nft -f - <<'END'
                    table ip hole
                    delete table ip hole
                    table ip hole {
                        chain forward { type filter hook forward priority 0; ip daddr \(first) drop; }
                    }
                    END
                    """
                try await Shell.run(hole, in: lab.internet)
                let bundle = try await Bundle.make(in: lab, options)
                // It would find onprem by itself, at whatever address.
                try await bundle.start()
                func uses(_ address: String) async throws {
                    try await eventually("onprem sends to \(address)", within: .seconds(90)) {
                        try await bundle.onprem.tunnel(over: .internet).endpoint == "\(address):51820"
                    }
                    try await bundle.traffic.reach(from: .onprem)
                }
                try await uses(Site.vpc.underlay(.v4))
                try await Shell.run("nft 'delete table ip hole'", in: lab.internet)
                try await uses(first)
                try await Shell.run(hole, in: lab.internet)
                try await uses(Site.vpc.underlay(.v4))
            }
        }
    }
}
