internal import ControlAPI
internal import Testing

extension Integration {
    /// Health targets behind the far gateway, which choose among tunnels and no more.
    @Suite(.enabled(if: !Lab.reference, "about health of vgwd")) struct Targets {
        /// As it is in a VPC, where the inside addresses are known to the gateways alone.
        @Test("targets that know no way back to the inside addresses take no route, and it is said")
        func noWayBack() async throws {
            let options = Bundle.Options(
                siteLines: [.onprem: ["health = { target = [\"10.20.0.1\", \"10.20.0.1:443\"] }"]])
            try await Lab.run { lab in
                try await lab.addLink()
                let bundle = try await Bundle.make(in: lab, options)
                try await Shell.run(
                    """
                    nft 'table ip island { chain out { type filter hook output priority 0;
                        ip daddr 169.254.0.0/16 drop; }; }'
                    """, in: lab.namespace(.vpc))
                try await bundle.start()
                let gateway = bundle.onprem
                try await eventually("it is said that targets do not answer") {
                    try await gateway.events().contains { $0.kind == .targetsUnanswered }
                }
                let words =
                    "targets do not answer by any tunnel: is there a way back to 169.254.101.2 and 169.254.102.2?"
                let notices = try await gateway.status()?.connections.first?.notices
                try #require(notices == [words], "\(notices ?? [])")
                let shown = try await gateway.vgwctl("status")
                try #require(shown.output.contains("vpc: \(words)"), "\(shown)")
                try await bundle.settle()
                for family in Family.allCases { try await bundle.traffic.ping(from: .onprem, family) }
                let kinds = try await gateway.events().map(\.kind)
                try #require(!kinds.contains(.connectionDown) && !kinds.contains(.tunnelDown), "\(kinds)")

                try await Shell.run("nft delete table ip island", in: lab.namespace(.vpc))
                try await eventually("it is said that they answer") {
                    try await gateway.events().contains { $0.kind == .targetsAnswered }
                }
                try #require(try await gateway.status()?.connections.first?.notices == nil)
            }
        }

        @Test(
            "targets are asked from the source that is set, and choose among tunnels by that",
            arguments: ["10.20.0.1", "10.20.0.1:443"])
        func source(target: String) async throws {
            let health = "health = { target = [\"\(target)\"], source = \"10.10.0.1\", hold-down = \"0s\" }"
            let options = Bundle.Options(farEnd: .wireguardGo, siteLines: [.onprem: [health]])
            try await Bundle.run(options) { bundle in
                let vpc = bundle.lab.namespace(.vpc)
                // Nobody behind the far gateways knows the inside addresses.
                try await Shell.run(
                    """
                    nft 'table ip far { chain out { type filter hook output priority 0;
                        ip saddr 10.20.0.1 ip daddr 169.254.0.0/16 drop; }; }'
                    nft 'table ip island { chain in { type filter hook input priority 0;
                        iifname "\(bundle.vpc[0].interface)" ip daddr 10.20.0.1 drop; }; }'
                    """, in: vpc)
                try await bundle.become(.down, .link)
                let link = try await bundle.onprem.tunnel(over: .link)
                try #require(link.reasonCode == "target-unreachable", "\(link)")
                try await bundle.activated(.internet)
                try await bundle.traffic.ping(from: .onprem, .v4)
                try await Shell.run("nft delete table ip island", in: vpc)
                try await bundle.activated(.link)
                let kinds = try await bundle.onprem.events().map(\.kind)
                try #require(!kinds.contains(.targetsUnanswered), "\(kinds)")
            }
        }
    }
}
