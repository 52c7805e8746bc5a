internal import ControlAPI
internal import Testing

extension Integration {
    /// Keys that fit and keys that do not, and what is left of a session after a crash or after two minutes.
    @Suite struct Handshakes {
        @Test("a pre-shared key on both ends", arguments: Pairing.allAndDriven)
        func presharedKey(_ pairing: Pairing) async throws {
            try await Tunnel.run(pairing, presharedKey: try await KeyPair.presharedKey()) { tunnel in
                for family in Family.allCases { try await tunnel.ping(from: .vpc, family) }
            }
        }

        @Test("different pre-shared keys: nothing passes until they are the same")
        func wrongPresharedKey() async throws { try await sideBySide(Pairing.all, Self.wrongPresharedKey) }

        private static func wrongPresharedKey(_ pairing: Pairing) async throws {
            try await Lab.run { lab in
                let shared = try await KeyPair.presharedKey()
                let tunnel = try await Tunnel.make(in: lab, pairing, presharedKey: shared)
                let other = try await KeyPair.presharedKey()
                tunnel.onprem.change { $0.presharedKey = other }
                try await tunnel.start()
                try await tunnel.stayDown()
                let file = try lab.write(shared + "\n", to: "right.key")
                let onprem = tunnel.onprem
                try await onprem.wg(
                    "set \(onprem.interface) peer \(onprem.settings.peerPublicKey) preshared-key \(file)")
                try await tunnel.reach(from: .onprem)
            }
        }

        @Test("a peer that knows another public key of ours is not let in")
        func wrongPublicKey() async throws {
            try await sideBySide(Pairing.all, Site.allCases) {
                try await Self.wrongPublicKey($0, wrongAt: $1)
            }
        }

        private static func wrongPublicKey(_ pairing: Pairing, wrongAt site: Site) async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, pairing)
                let stranger = try await KeyPair.generate().publicKey
                tunnel[site].change { $0.peerPublicKey = stranger }
                try await tunnel.start()
                try await tunnel.stayDown()
                // Who refuses says so: the other one hears nothing.
                guard !Lab.reference, tunnel.vpc.kind == .configured else { return }
                let words =
                    site == .vpc
                    ? "refused: key \(tunnel.onprem.settings.keys.publicKey) is of no tunnel"
                    : "refused: they are for another public key than this gateway's"
                let notices = try await tunnel.vpc.status()?.notices ?? []
                #expect(notices.contains { $0.contains(words) }, "\(notices)")
                // Nothing was ever up that could have flapped.
                for gateway in [tunnel.onprem, tunnel.vpc] where gateway.kind == .configured {
                    #expect(try await gateway.status()?.connections.first?.flaps == 0)
                    let down = try await gateway.events(.connectionDown)
                    #expect(down.allSatisfy { $0.from == "connecting" })
                }
                let events = try await tunnel.vpc.events(.handshakeRefused)
                #expect(events.contains { $0.message.contains(words) } && events.count <= 2)
                #expect(try lab.log(of: tunnel.vpc.process).contains("handshake refused"))
            }
        }

        @Test("both ends with the same inside link: the one that is asked from its own address says so")
        func sameInsideLink() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                for gateway in [tunnel.onprem, tunnel.vpc] {
                    let settings = gateway.settings
                    var lines = ["inside = { local = \"169.254.77.1\", remote = \"169.254.77.2\" }"]
                    if let endpoint = settings.endpoint { lines.append("endpoint = \"\(endpoint)\"") }
                    let connection = ConnectionText(
                        name: "far", routes: settings.routes, lines: [],
                        tunnels: [.init(name: "far-a", publicKey: settings.peerPublicKey, lines: lines)])
                    gateway.change { $0.connections = [connection] }
                }
                try await tunnel.start()
                let words = "tunnel far-a: both ends have 169.254.77.1 as their own inside address"
                for gateway in [tunnel.onprem, tunnel.vpc] {
                    try await eventually("\(gateway.name) names the links") {
                        try await gateway.status()?.notices?.contains { $0.hasPrefix(words) } ?? false
                    }
                    try await eventually("\(gateway.name) raises an event") {
                        try await gateway.events(.sourceRefused).contains {
                            $0.message.hasPrefix(words) && $0.tunnel == "far-a"
                        }
                    }
                }
            }
        }

        @Test("an end names whose packets it refuses, and the far end that its answers do not reach")
        func refusedSourceAndLostAnswers() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                try await Shell.run(
                    "ip addr add 10.77.0.1/32 dev lo; ping -c 1 -W 1 -I 10.77.0.1 10.10.0.1 || true",
                    in: lab.namespace(.vpc))
                var words =
                    "packets from 10.77.0.1 to 10.10.0.1 are refused (inner-source-not-allowed): no route of"
                try await eventually("onprem names the source") {
                    try await tunnel.onprem.status()?.notices?.contains { $0.contains(words) } ?? false
                }
                #expect(
                    try await tunnel.onprem.events(.sourceRefused).contains { $0.message.contains(words) })
                let others = try await tunnel.vpc.status()?.notices ?? []
                #expect(!others.contains { $0.contains("refused") }, "\(others)")

                try await Shell.run(
                    "nft 'table inet cut { chain in { type filter hook input priority 0; udp sport 51820 drop; }; }'",
                    in: lab.namespace(.onprem))
                try await tunnel.onprem.restart()
                words =
                    "the far end at 192.0.2.10:51820 asked for a session 3 times, and used none of the answers"
                try await eventually("vpc names whom its answers do not reach", within: .seconds(25)) {
                    try await tunnel.vpc.status()?.notices?.contains { $0.contains(words) } ?? false
                }
                try await eventually("vpc raises an event") {
                    try await tunnel.vpc.events(.answersLost).count == 1
                }
            }
        }

        @Test("traffic is back after either end was killed and started again")
        func restart() async throws {
            try await sideBySide(Pairing.all, Site.allCases) { try await Self.restart($0, of: $1) }
        }

        private static func restart(_ pairing: Pairing, of site: Site) async throws {
            try await Tunnel.run(pairing, bothInitiate: true) { tunnel in
                try await tunnel[site].restart()
                for side in Site.allCases { try await tunnel.reach(from: side) }
                for family in Family.allCases { try await tunnel.ping(from: site.other, family) }
            }
        }

        @Test(
            "a configured initiator that was killed is back at once: it calls when it starts",
            .enabled(if: !Lab.reference, "wireguard-go waits for something to send"),
            arguments: [Pairing.ours, .toGo])
        func restartOfInitiator(_ pairing: Pairing) async throws {
            try await Tunnel.run(pairing) { tunnel in
                try await tunnel.onprem.restart()
                // Nothing is sent, and vpc would not miss an answer for 15 s.
                try await eventually("it has a session", within: .seconds(10)) {
                    try await tunnel.onprem.peer().latestHandshake > 0
                }
                try await tunnel.ping(from: .vpc, .v4)
            }
        }

        /// All pairings at once, as the two minutes are the protocol's own.
        @Test("a flow sees nothing of a rekey, nor of one that is lost", .timeLimit(.minutes(5)))
        func rekeyUnderLoad() async throws {
            try await withThrowingTaskGroup(of: Void.self) { group in
                if !Lab.reference { group.addTask { try await Self.loseRekey() } }
                for pairing in Pairing.allAndDriven {
                    group.addTask {
                        try await Tunnel.run(pairing) { tunnel in
                            let first = try await tunnel.vpc.peer().latestHandshake
                            try await tunnel.startServer()
                            let flow = try await tunnel.measure(
                                .tcp, reversed: false, seconds: 130, rate: "20M")
                            let arrived = try #require(flow.server_output_json).intervals.map(\.sum)
                                .filter { $0.seconds > 0.5 }
                            try #require(arrived.reduce(0) { $0 + $1.seconds } >= 129)
                            let empty = arrived.indices.filter { arrived[$0].bytes == 0 }
                            try #require(
                                empty.isEmpty, "\(pairing.testDescription): nothing in seconds \(empty)")
                            let last = try await tunnel.vpc.peer().latestHandshake
                            try #require(
                                last >= first + 115,
                                "\(pairing.testDescription): handshakes at \(first) and \(last)")
                            try await tunnel.ping(from: .vpc, .v6)
                        }
                    }
                }
                try await group.waitForAll()
            }
        }

        /// Without inside addresses, handshakes are what tells whether a tunnel is up: not where packets pass.
        private static func loseRekey() async throws {
            try await Tunnel.run(Pairing(initiator: .configured, responder: .configured)) { tunnel in
                let first = try await tunnel.vpc.peer().latestHandshake
                let prober = try await Prober.start(in: tunnel.lab, from: .onprem, every: 50)
                try await Task.sleep(for: .seconds(90))
                // The UDP datagrams of initiations, of which the one after 120 s, and its repetition, get lost.
                try await Shell.run(
                    """
                    nft 'table ip late { chain forward { type filter hook forward priority 0;
                        udp length 156 counter drop; }; }'
                    """, in: tunnel.lab.internet)
                try await eventually("two initiations are lost", within: .seconds(60)) {
                    let rules = try await Shell.run("nft list table ip late", in: tunnel.lab.internet)
                    return rules.firstMatch(of: /packets ([0-9]+)/).flatMap { Int($0.1) } ?? 0 >= 2
                }
                try await Task.sleep(for: .milliseconds(500))
                try await Shell.run("nft delete table ip late", in: tunnel.lab.internet)
                try await eventually("the session is renewed") {
                    try await tunnel.vpc.peer().latestHandshake >= first + 120
                }
                for gateway in [tunnel.onprem, tunnel.vpc] {
                    let fallen = try await gateway.events().filter {
                        $0.kind == .tunnelDown || $0.kind == .connectionDown
                    }
                    try #require(fallen.isEmpty, "\(gateway.name): \(fallen)")
                }
                try #require(try await prober.stop().lost == 0)
            }
        }
    }
}

extension Tunnel {
    /// Tries in both directions for a few handshakes' time, sees nothing come through, and asks vgwd for a
    /// reason.
    func stayDown() async throws {
        try await sideBySide(Site.allCases) { site in
            try #require(try await !echo(from: site, arguments: "-c 6 -i 0.5 -W 1"), "\(site) got through")
        }
        for site in Site.allCases {
            try #require(try await self[site].peer().latestHandshake == 0, "\(site) claims a handshake")
        }
        guard onprem.kind == .configured else { return }
        try await eventually("the initiator says why the tunnel is down") {
            let status = try await onprem.tunnelStatus()
            return status.state != .up && status.reason?.isEmpty == false
        }
    }
}
