internal import Testing

extension Integration {
    /// Two sites that both use 10.0.0.0/16, as conf/examples/overlap.toml has it.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own translation")) struct Translation {
        /// Own addresses, and those by which the other site knows them.
        private static let own: [Site: String] = [.onprem: "10.0.3.4", .vpc: "10.0.7.8"]
        private static let shown: [Site: String] = [.onprem: "10.98.3.4", .vpc: "10.99.7.8"]

        private static let options: Bundle.Options = {
            var options = Bundle.Options(wires: [.internet])
            for (site, outside, far) in [
                (Site.onprem, "10.98.0.0/16", "10.99.0.0/16"), (.vpc, "10.99.0.0/16", "10.98.0.0/16"),
            ] {
                options.siteLines[site] = ["nat = [{ inside = \"10.0.0.0/16\", outside = \"\(outside)\" }]"]
                options.routes[site] = [far]
            }
            return options
        }()

        @Test("sites with the same prefix reach each other, errors of the way included")
        func overlap() async throws {
            try await Bundle.run(Self.options) { bundle in
                let lab = bundle.lab
                for site in Site.allCases {
                    try await Shell.run(
                        "ip addr add \(Self.own[site] ?? "")/32 dev lo", in: lab.namespace(site))
                }
                for site in Site.allCases {
                    let (here, there) = (Self.own[site] ?? "", Self.shown[site.other] ?? "")
                    let (seen, host) = (Self.shown[site] ?? "", Self.own[site.other] ?? "")
                    let (namespace, far) = (lab.namespace(site), lab.namespace(site.other))
                    let ping = try await Shell.run(
                        "ping -n -c 5 -i 0.05 -W 5 -I \(here) \(there)", in: namespace)
                    try #require(ping.contains("5 received") && ping.contains("from \(there)"), "\(ping)")

                    // TCP, and who the far end believes it talks to.
                    let server = try await lab.start(
                        [
                            "bash", "-c",
                            "socat TCP4-LISTEN:7100,bind=\(host),reuseaddr "
                                + "SYSTEM:'echo $SOCAT_PEERADDR; head -c 3000000 | sha256sum'",
                        ], name: "server-\(site)", in: far)
                    try await eventually("it listens") {
                        try await !Shell.run("ss -Hltn sport = :7100", in: far).isEmpty
                    }
                    let answer = try await Shell.run(
                        """
                        head -c 3000000 /dev/urandom >\(lab.directory)/file
                        sha256sum <\(lab.directory)/file
                        socat -t 20 - TCP4:\(there):7100,bind=\(here) <\(lab.directory)/file
                        """, in: namespace)
                    try await server.waitForExit()
                    let lines = answer.split(separator: "\n")
                    try #require(lines.count == 3 && lines[0] == lines[2] && lines[1] == seen, "\(answer)")

                    // A closed port's ICMP error finds the socket that it is for only with the quoted packet
                    // translated back; its checksums are looked at.
                    let refused = try await Shell.attempt(
                        "(echo x; sleep 0.5; echo x; sleep 0.5) | socat - UDP4:\(there):9,bind=\(here)",
                        in: namespace)
                    try #require(refused.errors.contains("Connection refused"), "\(refused)")

                    // A router behind the far end says that a packet has come to its end.
                    try await Shell.run(
                        "sysctl -qw net.ipv4.ip_forward=1; ip route replace 10.0.9.0/24 dev wan", in: far)
                    let network = site == .onprem ? "10.99" : "10.98"
                    let late = try await Shell.attempt(
                        "ping -n -c 2 -i 0.1 -W 2 -t 1 -I \(here) \(network).9.9", in: namespace)
                    try #require(late.output.contains("Time to live exceeded"), "\(late)")

                    // Fragments, of which only the first has a transport header.
                    let long = try await Shell.run(
                        "ping -n -c 3 -i 0.05 -W 5 -s 6000 -I \(here) \(there)", in: namespace)
                    try #require(long.contains("3 received"), "\(long)")
                }
            }
        }
    }
}
