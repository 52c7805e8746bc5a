internal import ControlAPI
internal import Testing

extension Integration {
    /// A carried prefix that is also local here is left out while it is, alone, and nothing else stops.
    @Suite(.enabled(if: !Lab.reference, "about routes of vgwd")) struct LocalNetworks {
        private static let prefix = "172.17.0.0/16"
        private static let container = "172.17.0.2"

        @Test("a container network inside a carried prefix keeps its way, at start and when it comes later")
        func containers() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                tunnel.onprem.change { $0.routes += [Self.prefix] }
                try await lab.addContainer()
                try await tunnel.vpc.start()
                try await tunnel.onprem.start()
                try await tunnel.reach(from: .onprem)
                try await Self.leftOut(tunnel, lab)

                let check = try await Shell.attempt(
                    "\(Programs.path("vgwd")) check --config \(lab.directory)/onprem.toml",
                    in: lab.namespace(.onprem))
                #expect(check.succeeded)
                #expect(check.errors.contains("\(Self.prefix) is also the network of docker0 here"))

                // It goes, and comes back while the gateway runs.
                try await Shell.run("ip link del docker0", in: lab.namespace(.onprem))
                try await eventually("the prefix is carried") {
                    let way: RouteExplanation = try await tunnel.onprem.ask("route get \(Self.container)")
                    return way.verdict == .tunnel
                }
                #expect(try await tunnel.onprem.status()?.connections.first?.notices == nil)
                try await lab.addContainer()
                try await Self.leftOut(tunnel, lab)
                let events = try await tunnel.onprem.events().filter { $0.reason == "local-network" }
                #expect(events.map(\.kind) == [.routeRemoved, .routeAdded, .routeRemoved])
                try await tunnel.ping(from: .onprem, .v4)
            }
        }

        private static func leftOut(_ tunnel: Tunnel, _ lab: Lab) async throws {
            try await eventually("the container is reached, and the status tells of it") {
                let notices = try await tunnel.onprem.status()?.connections.first?.notices
                guard notices == ["\(prefix) is left out: it is also the network of docker0 here"] else {
                    return false
                }
                return try await Shell.attempt(
                    "ping -n -c 1 -W 1 \(container)", in: lab.namespace(.onprem)
                ).succeeded
            }
        }

        @Test("an operator cannot route his own network into a tunnel, nor a part of it")
        func ownNetwork() async throws {
            try await Tunnel.run(.ours) { tunnel in
                for prefix in ["192.0.2.0/24", "192.0.2.128/25", "2001:db8:1::/64"] {
                    let answer = try await tunnel.onprem.vgwctl("route add \(prefix) via vpc --save")
                    #expect(!answer.succeeded)
                    #expect(answer.errors.contains("of wan here"), "\(answer)")
                }
                // What is around it leaves it its way.
                let around = try await tunnel.onprem.vgwctl("route add 192.0.0.0/16 via vpc")
                #expect(around.succeeded)
                let router = Site.onprem.router(.v4)
                try await Shell.run("ping -n -c 1 -W 5 \(router)", in: tunnel.onprem.namespace)
            }
        }
    }
}

extension Lab {
    /// A network of onprem's own, with one container in it.
    fileprivate func addContainer() async throws {
        let onprem = namespace(.onprem)
        let container = "\(onprem)-c"
        try await Shell.run(
            """
            ip netns list | grep -q '^\(container)' || ip netns add \(container)
            ip link add docker0 netns \(onprem) type veth peer name eth0 netns \(container)
            ip -n \(container) addr add 172.17.0.2/16 dev eth0
            ip -n \(container) link set eth0 up
            ip -n \(onprem) addr add 172.17.0.1/16 dev docker0
            ip -n \(onprem) link set docker0 up
            """)
    }
}
