internal import Testing

extension Integration {
    /// How outer packets are marked, and which way they leave.
    @Suite struct OuterPackets {
        @Test("handshakes carry AF41 and data carries nothing", arguments: Pairing.all, Family.allCases)
        func tos(_ pairing: Pairing, underlay: Family) async throws {
            try await Lab.run { lab in
                let capture = try await lab.capture("onprem", in: lab.internet)
                let tunnel = try await Tunnel.make(in: lab, pairing, underlay: underlay)
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                for site in Site.allCases {
                    for type in [Self.handshake(of: site), 4] {
                        try await capture.holds("type \(type) from \(site)") { frame in
                            CapturedDatagram(frame: frame).map {
                                $0.isTo(site.other, underlay) && $0.payload.first == type
                            } ?? false
                        }
                    }
                }
                let frames = try await capture.stop()
                for site in Site.allCases where tunnel[site].kind != .wireguardGo {
                    let handshake = Self.handshake(of: site)
                    let sent = Self.classes(of: frames, to: site.other, underlay)
                    try #require(sent[handshake] == [34 << 2])
                    try #require(sent[4] == [0])
                }
            }
        }

        /// An initiation from onprem, a response from vpc.
        private static func handshake(of site: Site) -> UInt8 { site == .onprem ? 1 : 2 }

        /// What traffic classes the messages of each type have that go there.
        private static func classes(
            of frames: [[UInt8]], to site: Site, _ family: Family
        ) -> [UInt8: Set<UInt8>] {
            var classes: [UInt8: Set<UInt8>] = [:]
            for frame in frames {
                guard let datagram = CapturedDatagram(frame: frame), datagram.isTo(site, family),
                    let type = datagram.payload.first
                else { continue }
                classes[type, default: []].insert(tos(of: frame))
            }
            return classes
        }

        private static func tos(of frame: [UInt8]) -> UInt8 {
            frame[12] == 0x08 ? frame[15] : frame[14] << 4 | frame[15] >> 4
        }

        /// With packets on the way all the time: what was sent to the old address comes in after the route has moved.
        @Test(
            "when the route to the far end moves to another interface, packets leave with its address",
            arguments: Family.allCases)
        func routeMoved(_ underlay: Family) async throws {
            try await Tunnel.run(.toGo, underlay: underlay) { tunnel in
                for site in Site.allCases {
                    _ = try await Prober.start(in: tunnel.lab, from: site, every: 2, name: "prober-\(site)")
                }
                let (here, router, far) =
                    underlay == .v4
                    ? ("203.0.113.130", "203.0.113.129", "198.51.100.0/24")
                    : ("2001:db8:3::2", "2001:db8:3::1", "2001:db8:2::/64")
                let (namespace, internet) = (tunnel.onprem.namespace, tunnel.lab.internet)
                try await Shell.run(
                    """
                    set -e
                    ip link add wan2 netns \(namespace) type veth peer name onprem2 netns \(internet)
                    ip -n \(namespace) link set wan2 up
                    ip -n \(internet) link set onprem2 up
                    ip -n \(namespace) addr add \(here)/\(underlay.linkPrefix) dev wan2
                    ip -n \(internet) addr add \(router)/\(underlay.linkPrefix) dev onprem2
                    ip -n \(namespace) \(underlay.option) route add \(far) via \(router) dev wan2
                    """)
                let expected = underlay.endpoint(here, 51820)
                try await eventually("vpc sees \(expected)") {
                    try await tunnel.vpc.peer().endpoint == expected
                }
                for _ in 0..<10 {
                    try await Task.sleep(for: .milliseconds(100))
                    let seen = try await tunnel.vpc.peer().endpoint
                    try #require(seen == expected, "it is back at the old address")
                }
                for family in Family.allCases { try await tunnel.ping(from: .vpc, family) }
            }
        }

        @Test(
            "an endpoint that somebody routes into its own tunnel multiplies nothing",
            arguments: Family.allCases)
        func routingLoop(_ underlay: Family) async throws {
            // Without a mark, as `wg` alone leaves it.
            try await Tunnel.run(.driven, underlay: underlay) { tunnel in
                let onprem = tunnel.onprem
                let endpoint = "\(Site.vpc.underlay(underlay))/\(underlay.hostPrefix)"
                let routes = (onprem.settings.routes + [endpoint]).joined(separator: ",")
                try await onprem.wg(
                    "set \(onprem.interface) peer \(onprem.settings.peerPublicKey) allowed-ips \(routes)")
                try await Shell.run(
                    "ip \(underlay.option) route add \(endpoint) dev \(onprem.interface)",
                    in: onprem.namespace)
                // Until the daemon has seen the route.
                try await Task.sleep(for: .seconds(1))
                let before = try await onprem.peer().sent
                for family in Family.allCases {
                    try #require(
                        try await !tunnel.echo(from: .onprem, family, arguments: "-c 3 -i 0.1 -W 1 -s 1300"))
                }
                try #require(try await onprem.peer().sent - before < 100_000)
                try await Shell.run(
                    "ip \(underlay.option) route del \(endpoint) dev \(onprem.interface)",
                    in: onprem.namespace)
                try await tunnel.reach(from: .onprem)
            }
        }
    }
}

extension CapturedDatagram {
    fileprivate func isTo(_ site: Site, _ family: Family) -> Bool {
        let address: [UInt8] =
            switch (site, family) {
            case (.onprem, .v4): [192, 0, 2, 10]
            case (.vpc, .v4): [198, 51, 100, 10]
            case (.onprem, .v6): [0x20, 1, 0x0d, 0xb8, 0, 1] + [UInt8](repeating: 0, count: 9) + [0x10]
            case (.vpc, .v6): [0x20, 1, 0x0d, 0xb8, 0, 2] + [UInt8](repeating: 0, count: 9) + [0x10]
            }
        return destination == address && destinationPort == 51820
    }
}
