internal import ControlAPI
internal import Testing

extension Integration {
    /// AES-256-GCM between two vgwd, which are told so at both ends.
    @Suite(.enabled(if: !Lab.reference, "wireguard-go has one cipher")) struct Ciphers {
        private static let aes = "aes-256-gcm"

        @Test(
            "packets and streams pass both ways under AES-256-GCM, from a file and by hand",
            arguments: [Pairing.ours, .driven])
        func aes(_ pairing: Pairing) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, pairing)
                for site in Site.allCases { tunnel[site].change { $0.cipher = Self.aes } }
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                for family in Family.allCases {
                    for site in Site.allCases { try await tunnel.ping(from: site, family) }
                }
                try await tunnel.transfer(from: .onprem, megabytes: 50, .v4)
                try await tunnel.transfer(from: .vpc, megabytes: 50, .v6)
                guard tunnel.onprem.kind == .configured else { return }
                try #require(try await tunnel.onprem.tunnelStatus().cipher == Self.aes)
                try #require(try await tunnel.onprem.vgwctl("status").output.contains(Self.aes))
            }
        }

        @Test("ends with different ciphers pass nothing, and the status of each says which the other uses")
        func mismatch() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours, bothInitiate: true)
                tunnel.onprem.change { $0.cipher = Self.aes }
                try await tunnel.start()
                for (site, theirs) in [(Site.onprem, "chacha20-poly1305"), (.vpc, Self.aes)] {
                    try await eventually("\(site) says that the other uses \(theirs)") {
                        _ = try await tunnel.echo(from: site.other, arguments: "-c 1 -W 1")
                        let status = try await tunnel[site].tunnelStatus()
                        return status.state == .down
                            && status.reason?.contains("the far end uses cipher \(theirs)") == true
                    }
                    try #require(try await tunnel[site].drops("cipher-mismatch") > 0)
                }
                try #require(try await !tunnel.echo(from: .onprem, arguments: "-c 2 -i 0.2 -W 1"))
            }
        }

        @Test("an end told to use AES-256-GCM has no session with wireguard-go, and says what it tried")
        func againstWireGuard() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .toGo)
                tunnel.onprem.change { $0.cipher = Self.aes }
                try await tunnel.start()
                try await eventually("onprem says what it tried") {
                    let said = try await tunnel.onprem.vgwctl("status").output
                    return said.contains("no answer from")
                        && said.contains("vgwd with cipher \(Self.aes) too")
                }
            }
        }
    }
}
