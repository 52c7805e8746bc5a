internal import Testing

extension Integration {
    /// What an operator tries first, in every combination of daemons, over both families.
    @Suite struct Traffic {
        @Test(
            "echoes, streams and datagrams pass both ways", arguments: Pairing.allAndDriven, Family.allCases)
        func allKinds(_ pairing: Pairing, underlay: Family) async throws {
            try await Tunnel.run(pairing, underlay: underlay) { tunnel in
                for family in Family.allCases {
                    for site in Site.allCases { try await tunnel.ping(from: site, family) }
                }
                // The inner family that the underlay does not have: the two must not be mixed up anywhere.
                let inner: Family = underlay == .v4 ? .v6 : .v4
                try await tunnel.startServer(inner)
                for transport in Tunnel.Transport.allCases {
                    for reversed in [false, true] {
                        try await tunnel.measure(transport, inner, reversed: reversed, seconds: 1)
                    }
                }
            }
        }

        @Test(
            "a file of 100 MB arrives unchanged, in either direction", arguments: Pairing.all, Site.allCases)
        func file(_ pairing: Pairing, from site: Site) async throws {
            try await Tunnel.run(pairing) { tunnel in
                try await tunnel.transfer(from: site, megabytes: 100, site == .onprem ? .v4 : .v6)
            }
        }

        @Test(
            "packets of exactly the MTU pass unsplit", arguments: Pairing.all, [1280, 1420, 1500, 4000, 8920])
        func sizes(_ pairing: Pairing, mtu: Int) async throws {
            try await Tunnel.run(pairing, underlay: .v6, mtu: mtu, underlayMTU: 9000) { tunnel in
                for family in Family.allCases {
                    for site in Site.allCases {
                        try await tunnel.pingFullSize(from: site, family, mtu: mtu)
                    }
                }
            }
        }

        @Test("outer packets larger than the path are split and still arrive", arguments: Pairing.all)
        func largerThanThePath(_ pairing: Pairing) async throws {
            try await Tunnel.run(pairing, mtu: 1500, underlayMTU: 1500) { tunnel in
                try await tunnel.pingFullSize(from: .onprem, .v4, mtu: 1500)
                try await tunnel.transfer(from: .onprem, megabytes: 2)
            }
        }
    }
}
