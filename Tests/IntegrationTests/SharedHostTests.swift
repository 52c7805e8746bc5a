internal import ControlAPI
internal import Testing

extension Integration {
    /// Two gateways on one host.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own rules and tables")) struct SharedHost {
        @Test("two gateways without a port have a mark and a table each, and leave the other's guard alone")
        func numbers() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                let first = tunnel.onprem
                first.change { $0.listenPort = 0 }
                let second = Gateway(
                    lab: lab, site: .onprem, kind: .configured,
                    settings: Gateway.Settings(
                        keys: try await KeyPair.generate(),
                        peerPublicKey: try await KeyPair.generate().publicKey, listenPort: 0,
                        routes: ["10.21.0.0/16", "fd21::/48"], addresses: ["10.11.0.1/32"]), suffix: "2")
                try await tunnel.vpc.start()
                // As at boot.
                async let both: Void = second.start()
                try await first.start()
                try await both
                try await tunnel.reach(from: .onprem)
                let marks = [try await first.status()?.firewallMark, try await second.status()?.firewallMark]
                try #require(Set(marks) == [51820, 51821])
                let mark = try #require(marks[0])

                let rules = try await first.rules(of: mark)
                try #require(!rules.isEmpty)
                try #require(try await second.process.terminate() == 0)
                try #require(try await first.ownRules() == rules, "only the second one's are gone")
                try await tunnel.ping(from: .onprem, .v4)

                // The first one's guard holds while only the second one runs.
                try await first.kill()
                try await second.start()
                try #require(try await first.rules(of: mark) == rules)
                try await first.requireUnreachable(Site.vpc)
                try await first.start()
                try #require(try await first.status()?.firewallMark == mark)
                try await tunnel.reach(from: .onprem)

                // Other numbers: nothing of the old ones is left.
                try await first.kill()
                first.change { $0.gatewayLine = "firewall-mark = 77" }
                try await first.start()
                try #require(try await first.rules(of: mark).isEmpty)
                try #require(try await !first.rules(of: 77).isEmpty)
                try await tunnel.reach(from: .onprem)

                // A number that somebody else has is not taken for ours.
                try #require(try await second.process.terminate() == 0)
                second.change { $0.gatewayLine = "firewall-mark = 77" }
                try await #require(throws: (any Error).self) { try await second.start() }
                let words = "firewall-mark 77 is taken: the gateway on interface \(first.interface) has it"
                try #require(lab.log(of: try second.process).contains(words))
                let checked = try await Shell.attempt(
                    "\(Programs.path("vgwd")) check --config \(try second.writeConfiguration())",
                    in: second.namespace)
                try #require(checked.succeeded && checked.errors.contains(words), "\(checked)")
                try await tunnel.ping(from: .onprem, .v4)
            }
        }
    }
}

extension Gateway {
    fileprivate func rules(of mark: UInt32) async throws -> String {
        try await ownRules().split(separator: "\n").filter {
            $0.contains("fwmark 0x\(String(mark, radix: 16)) ")
        }.joined(separator: "\n")
    }

    /// Both families, for a packet without a mark.
    fileprivate func requireUnreachable(_ site: Site) async throws {
        for family in Family.allCases {
            let answer = try await Shell.attempt(
                "ip \(family.option) route get \(site.inside(family))", in: namespace)
            try #require(!answer.succeeded && answer.errors.contains("No route to host"), "\(answer)")
        }
    }
}
