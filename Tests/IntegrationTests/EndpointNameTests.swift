internal import ControlAPI
internal import FoundationEssentials
internal import Testing

extension Integration {
    /// The far end is known by a name, and the name server is where the tunnel's own prefixes lead.
    @Suite(.enabled(if: !Lab.reference, "about routes of vgwd")) struct EndpointNames {
        private static let name = "vgw.example.com"

        @Test("a full tunnel to a name comes up, and follows when the name moves")
        func fullTunnel() async throws {
            try await Lab.run { lab in
                try lab.setResolver(LabNameServer(lab: lab).address, at: .onprem)
                let tunnel = try await Self.tunnel(in: lab)
                try await tunnel.start()
                // Nobody has answered yet, and the prefixes are unreachable when the question is repeated.
                try await eventually("the connection is down") {
                    try await tunnel.onprem.status()?.connections.first?.state == .down
                }
                let server = try await lab.startNameServer()
                try await server.set(Site.vpc.underlay(.v4))
                try await tunnel.reach(from: .onprem, within: .seconds(60))

                let (old, new) = (Site.vpc.underlay(.v4), Site.vpc.secondUnderlay(.v4))
                try await Shell.run(
                    """
                    ip addr del \(old)/24 dev wan
                    ip addr add \(new)/24 dev wan
                    ip route replace default via \(Site.vpc.router(.v4))
                    """, in: lab.namespace(.vpc))
                try await server.set(new)
                try await tunnel.reach(from: .onprem, within: .seconds(60))
                let endpoint = try await tunnel.onprem.tunnelStatus().endpoint
                #expect(endpoint == "\(new):51820")
            }
        }

        @Test("a name server on this host that is locked in is named, and dns is the way around it")
        func localStub() async throws {
            try await Lab.run { lab in
                let server = try await lab.startNameServer()
                try await server.set(Site.vpc.underlay(.v4))
                try lab.setResolver("127.0.0.53", at: .onprem)
                let tunnel = try await Self.tunnel(in: lab)
                try await tunnel.start()
                try await eventually("the hint tells of dns") {
                    try await tunnel.onprem.tunnelStatus().hint?.contains("write dns = ") == true
                }
                _ = try await tunnel.onprem.process.terminate()
                tunnel.onprem.change { $0.gatewayLine = "dns = [\"\(server.address)\"]" }
                try await tunnel.onprem.start()
                try await tunnel.reach(from: .onprem)
            }
        }

        /// Only onprem begins and probes: vpc says nothing of itself, so that nobody hears from where.
        private static func tunnel(in lab: Lab) async throws -> Tunnel {
            let tunnel = try await Tunnel.make(in: lab, .ours)
            for (gateway, routes) in [
                (tunnel.onprem, ["0.0.0.0/0", "::/0"]), (tunnel.vpc, Site.onprem.prefixes),
            ] {
                let site = gateway.site
                let endpoint = site == .onprem ? ["endpoint = [\"\(name):51820\"]"] : []
                gateway.change {
                    $0.connections = [
                        ConnectionText(
                            name: site.other.rawValue, routes: routes,
                            lines: site == .vpc ? ["health = \"off\""] : [],
                            tunnels: [
                                ConnectionText.TunnelText(
                                    name: "only", publicKey: $0.peerPublicKey,
                                    lines: endpoint + [
                                        "inside = { local = \"\(Wire.internet.inside(site))\", "
                                            + "remote = \"\(Wire.internet.inside(site.other))\" }"
                                    ])
                            ])
                    ]
                }
            }
            return tunnel
        }
    }
}

/// A name server on the internet that knows one address, whatever it is asked for.
private struct LabNameServer {
    let lab: Lab
    /// Where onprem gets only by its default route.
    let address = Site.vpc.router(.v4)

    func set(_ address: String) async throws {
        let bytes = address.split(separator: ".").compactMap { UInt8($0) }
        _ = try lab.write(
            bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined(), to: "name-address"
        )
    }
}

extension Lab {
    fileprivate func startNameServer() async throws -> LabNameServer {
        // RFC 1035, section 4: the question comes back, behind it an A record of one second.
        let script = try write(
            """
            query=$(dd bs=512 count=1 2>/dev/null | od -An -v -tx1 | tr -d ' \\n')
            question=${query:24}
            answers=0000 record=
            if [ "${question: -8:4}" = 0001 ]; then
                answers=0001 record=c00c00010001000000010004$(cat \(directory)/name-address)
            fi
            printf "$(echo "${query:0:4}81800001${answers}00000000$question$record" | sed 's/../\\\\x&/g')"
            """, to: "name-server.sh")
        try await start(
            ["socat", "UDP4-RECVFROM:53,bind=\(Site.vpc.router(.v4)),fork", "EXEC:/bin/bash \(script)"],
            name: "name-server", in: internet)
        return LabNameServer(lab: self)
    }

    /// `ip netns exec` lays the file over /etc/resolv.conf.
    fileprivate func setResolver(_ address: String, at site: Site) throws {
        let folder = "/etc/netns/\(namespace(site))"
        removeAtEnd(folder)
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data("nameserver \(address)\n".utf8).write(to: URL(filePath: "\(folder)/resolv.conf"))
    }
}
