internal import ControlAPI
internal import Testing

extension Integration {
    /// Wires that carry less than an Ethernet, and say nothing of it.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own search")) struct PathMTU {
        /// MTU of inner packets: without outer headers of IPv4 and UDP, WireGuard's 32 bytes, and padding to 16.
        static func inner(_ outer: Int) -> Int { (outer - 60) / 16 * 16 }

        /// 1300 is less than IPv6's 1280 inside and its way around outside.
        @Test("a path that shrinks and swallows ICMP still carries what people send")
        func shrinks() async throws {
            try await sideBySide(Bundle.FarEnd.allCases, [1400, 1300]) {
                try await Self.shrinks($0, outer: $1)
            }
        }

        private static func shrinks(_ farEnd: Bundle.FarEnd, outer: Int) async throws {
            let options = Bundle.Options(farEnd: farEnd, wires: [.internet])
            try await Bundle.run(options) { bundle in
                let traffic = bundle.traffic
                for site in Site.allCases { try await traffic.pingFullSize(from: site, .v4, mtu: 1420) }
                try await bundle.lab.shrink(.internet, to: outer)
                // At once, with no time to find out.
                let clock = ContinuousClock()
                for site in Site.allCases {
                    let start = clock.now
                    try await traffic.transfer(from: site, megabytes: 1)
                    let took = clock.now - start
                    print("1 MB from \(site.rawValue) by a path of \(outer), \(farEnd.rawValue): \(took)")
                    try #require(took < .seconds(20), "1 MB from \(site) took \(took)")
                }

                let expected = inner(outer)
                try await eventually("the status shows the path's MTU") {
                    let mtu = try await bundle.onprem.tunnel(over: .internet).pathMTU ?? 0
                    // The MTU of inner packets as found, within a step of the search.
                    guard (expected - 32...expected).contains(mtu) else { throw LabError("\(mtu)") }
                    return true
                }
                for gateway in bundle.gateways {
                    try await eventually("\(gateway.name) tells senders what passes") {
                        let answer = try await Shell.attempt(
                            "ping -n -M do -s \(1420 - 28) -I \(gateway.site.inside(.v4)) -c 3 -i 0.2 -W 1 "
                                + gateway.site.other.inside(.v4), in: gateway.namespace)
                        let text = answer.output + answer.errors
                        guard text.contains("mtu = \(expected)") || text.contains("mtu=\(expected)") else {
                            throw LabError(text)
                        }
                        return true
                    }
                }
                for site in Site.allCases where farEnd == .vgwd || site == .onprem {
                    try await traffic.pingFullSize(from: site, .v4, mtu: expected)
                }
            }
        }

        /// The load is more than the policer lets pass, so that large probes are lost more often than not.
        @Test("a path that a policer thins out keeps its MTU")
        func policed() async throws {
            try await Bundle.run(Bundle.Options(wires: [.internet])) { bundle in
                try await eventually("the largest is known") {
                    try await bundle.onprem.tunnel(over: .internet).pathMTU == 1420
                }
                try await bundle.traffic.startServer()
                try await bundle.lab.police(.internet, to: "500 kbytes/second")
                let load = """
                    iperf3 -u -b 6M -l 1200 -t 20 -c \(Site.vpc.inside(.v4)) -B \(Site.onprem.inside(.v4))
                    """
                try await bundle.lab.start(
                    ["bash", "-c", load], name: "load", in: bundle.lab.namespace(.onprem)
                ).waitForExit(within: .seconds(60))
                let dropped = try await Shell.run(
                    "nft list table inet police | grep -o 'packets [0-9]*' | cut -d ' ' -f 2",
                    in: bundle.lab.internet)
                try #require(Int(dropped) ?? 0 > 1000, "the policer dropped \(dropped)")
                for gateway in bundle.gateways {
                    let found = try gateway.lab.log(of: gateway.process).split(separator: "\n")
                        .filter { $0.contains("path MTU found") }
                    try #require(found.count == 1 && found[0].contains("inner=1420"), "\(found)")
                }
            }
        }

        // Wireguard-go's outer packets have DF.
        @Test("IPv6 may rely on 1280 bytes, also where a router on the way carries less and says nothing")
        func minimumOfIPv6() async throws {
            try await Bundle.run(Bundle.Options(wires: [.internet])) { bundle in
                try await bundle.lab.narrow(.internet, to: 1300)
                for site in Site.allCases { try await bundle.traffic.transfer(from: site, megabytes: 1) }
                for gateway in bundle.gateways {
                    try await eventually("\(gateway.name) has found the path's MTU") {
                        try await gateway.tunnel(over: .internet).pathMTU ?? .max <= Self.inner(1300)
                    }
                }
                func tooBig() async throws -> UInt64 {
                    try await bundle.onprem.status()?.drops["outbound-too-big"] ?? 0
                }
                let before = try await tooBig()
                for site in Site.allCases {
                    try await bundle.traffic.pingFullSize(from: site, .v6, mtu: 1280)
                }
                try #require(try await tooBig() == before)
            }
        }

        @Test("a path that grows is used again")
        func grows() async throws {
            let options = Bundle.Options(wires: [.internet])
            try await Lab.run { lab in
                try await lab.shrink(.internet, to: 1400)
                let bundle = try await Bundle.make(in: lab, options)
                try await bundle.start()
                try await bundle.settle()
                try await eventually("the smaller path is found") {
                    let mtu = try await bundle.onprem.tunnel(over: .internet).pathMTU
                    return mtu.map { $0 <= Self.inner(1400) } ?? false
                }
                try await bundle.traffic.transfer(from: .onprem, megabytes: 1)
                try await bundle.traffic.transfer(from: .vpc, megabytes: 1)
                // A new session is a new search.
                try await lab.shrink(.internet, to: 1500)
                for gateway in bundle.gateways.reversed() { try await gateway.restart() }
                try await bundle.settle()
                try await eventually("the larger path is found") {
                    try await bundle.onprem.tunnel(over: .internet).pathMTU ?? 0 >= 1420
                }
                for site in Site.allCases {
                    try await bundle.traffic.pingFullSize(from: site, .v4, mtu: 1420)
                }
            }
        }
    }
}

extension Lab {
    /// What passes this wire becomes smaller, both ways, and nobody is told: what is larger is lost.
    func shrink(_ wire: Wire, to mtu: Int) async throws {
        try await quieten(wire, "ip link set $device mtu \(mtu)")
    }

    /// The same, but its router cuts what is larger and has no DF.
    func narrow(_ wire: Wire, to mtu: Int) async throws {
        try await quieten(
            wire,
            """
            ip -4 route show dev $device | while read -r route; do
                ip route replace $route dev $device mtu lock \(mtu)
            done
            """)
    }

    /// What is more than this rate is dropped, both ways together.
    func police(_ wire: Wire, to rate: String) async throws {
        try await Shell.run(
            """
            nft -f - <<'END'
            table inet police {
                chain forward { type filter hook forward priority 0;
                    limit rate over \(rate) counter drop
                }
            }
            END
            """, in: namespace(wire))
    }

    /// Runs a script for each `$device` of the wire, and lets no ICMP error tell of it.
    private func quieten(_ wire: Wire, _ script: String) async throws {
        try await Shell.run(
            """
            set -e
            nft -f - <<'END'
            table inet quiet
            delete table inet quiet
            table inet quiet {
                chain output { type filter hook output priority 0;
                    icmp type destination-unreachable drop
                    icmpv6 type packet-too-big drop
                }
            }
            END
            for device in \(Site.allCases.map(\.rawValue).joined(separator: " ")); do
                \(script)
            done
            """, in: namespace(wire))
    }
}
