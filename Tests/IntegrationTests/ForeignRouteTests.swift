internal import ControlAPI
internal import Testing

extension Integration {
    /// A stranger's longer routes (DHCP option 121, router advertisements) inside a carried prefix.
    @Suite(.enabled(if: !Lab.reference, "about routes of vgwd")) struct ForeignRoutes {
        private static let halves = ["10.20.0.0/17", "10.20.128.0/17"]

        private static func push(_ tunnel: Tunnel) async throws {
            let router = Site.onprem.router(.v4)
            let routes = halves.map { "ip route add \($0) via \(router) proto dhcp" }
            try await Shell.run(routes.joined(separator: "\n"), in: tunnel.onprem.namespace)
        }

        @Test("they are named, in an event, in the status and by 'route get'")
        func named() async throws {
            try await Tunnel.run(.ours) { tunnel in
                try await Self.push(tunnel)
                try await eventually("the status names them") {
                    let notices = try await tunnel.onprem.status()?.connections.first?.notices ?? []
                    return Self.halves.allSatisfy { half in
                        notices.contains { $0.hasPrefix("\(half) goes past the tunnels by wan") }
                    }
                }
                let events = try await tunnel.onprem.events(.routeBypassed)
                #expect(Set(events.compactMap { $0.details["prefix"] }) == Set(Self.halves))
                let way = try await tunnel.onprem.ask("route get 10.20.0.1", RouteExplanation.self)
                #expect(way.verdict == .elsewhere)
                #expect(
                    way.steps.contains { $0.hasPrefix("That is 10.20.0.0/17 in table main, by rule ") },
                    "\(way)")

                try await Shell.run("ip route flush proto dhcp", in: tunnel.onprem.namespace)
                try await tunnel.reach(from: .onprem)
                try await eventually("the status names nothing") {
                    try await tunnel.onprem.status()?.connections.first?.notices == nil
                }
                // A host of the LAN may go another way than this host.
                try await Shell.run(
                    """
                    sysctl -qw net.ipv4.ip_forward=1
                    ip rule add iif wan lookup 7 priority 1000
                    ip route add 10.20.0.0/16 via \(Site.onprem.router(.v4)) table 7
                    """, in: tunnel.onprem.namespace)
                let own = try await tunnel.onprem.ask("route get 10.20.0.1", RouteExplanation.self)
                #expect(own.verdict == .tunnel)
                let forwarded = try await tunnel.onprem.ask(
                    "route get 10.20.0.1 --from 192.0.2.77 --iif wan", RouteExplanation.self)
                #expect(forwarded.verdict == .elsewhere)
                #expect(forwarded.steps.contains { $0.contains("in table 7, by rule 1000") }, "\(forwarded)")
                try await eventually("the rule is named") {
                    try await tunnel.onprem.status()?.notices?.first?.hasPrefix("rule 1000 ") == true
                }
            }
        }

        @Test("an exclusive connection takes none of them")
        func exclusive() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                tunnel.onprem.change { settings in
                    settings.connections = [
                        ConnectionText(
                            name: "vpc", routes: settings.routes, lines: ["exclusive = true"],
                            tunnels: [
                                ConnectionText.TunnelText(
                                    name: "only", publicKey: settings.peerPublicKey,
                                    lines: ["endpoint = [\"\(settings.endpoint ?? "")\"]"])
                            ])
                    ]
                }
                try await tunnel.start()
                try await Self.push(tunnel)
                try await tunnel.reach(from: .onprem)
                let way = try await tunnel.onprem.ask("route get 10.20.0.1", RouteExplanation.self)
                #expect(way.verdict == .tunnel, "\(way)")
                #expect(try await tunnel.onprem.events(.routeBypassed).isEmpty)
            }
        }
    }
}
