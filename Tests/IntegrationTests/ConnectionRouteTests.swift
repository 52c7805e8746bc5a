internal import ControlAPI
internal import Testing

extension Integration {
    /// Where packets for a site go while no tunnel leads there, and by which connection where several do.
    @Suite(.enabled(if: !Lab.reference, "about connections of vgwd")) struct ConnectionRoutes {
        /// Hosts behind vpc, and a source at onprem that does not go with the TUN.
        private static let hosts: [(Family, String)] = [(.v4, "10.20.5.5"), (.v6, "fd20::5:5")]

        /// What the kernel does with a packet for there.
        private static func way(_ bundle: Bundle, _ family: Family, _ host: String) async throws
            -> CommandResult
        {
            try await Shell.attempt(
                "ip \(family.option) route get \(host) from \(Site.onprem.inside(family))",
                in: bundle.onprem.namespace)
        }

        private static func isByTunnel(_ bundle: Bundle) async throws -> Bool {
            for (family, host) in hosts {
                let way = try await way(bundle, family, host)
                guard way.succeeded, way.output.contains("dev \(bundle.onprem.interface)") else {
                    return false
                }
            }
            return true
        }

        @Test("routes follow health by on-down, and come back", arguments: ["unreachable", "withdraw"])
        func onDown(_ onDown: String) async throws {
            let options = Bundle.Options(
                lines: ["on-down = \"\(onDown)\"", "health = { hold-down = \"0s\" }"])
            try await Bundle.run(options) { bundle in
                let lab = bundle.lab
                try #require(try await Self.isByTunnel(bundle))
                let captures = try await lab.captureWires()
                let pings = try await bundle.traffic.markedPings(from: .onprem)
                for wire in Wire.allCases { try await lab.cut(wire) }
                for (family, host) in Self.hosts {
                    try await eventually("\(host) is away") {
                        let way = try await Self.way(bundle, family, host)
                        return onDown == "withdraw"
                            ? way.succeeded && way.output.contains("dev wan ")
                            : !way.succeeded && way.errors.contains("No route to host")
                    }
                }
                let kind: GatewayEvent.Kind = onDown == "withdraw" ? .routeRemoved : .routeUnreachable
                try #require(try await !bundle.onprem.events(.connectionDown).isEmpty)
                try #require(try await !bundle.onprem.events(kind).isEmpty)
                let told = try await bundle.onprem.ask("route get 10.20.5.5", RouteExplanation.self)
                try #require(told.verdict != .tunnel, "\(told)")
                try await Task.sleep(for: .seconds(1))

                for wire in Wire.allCases { try await lab.mend(wire) }
                try await eventually("the routes are back") { try await Self.isByTunnel(bundle) }
                try await bundle.traffic.reach(from: .onprem)
                try await bundle.traffic.ping(from: .vpc, .v6)
                for ping in pings { try await ping.killGroup() }
                for capture in captures {
                    let frames = try await capture.stop()
                    let clear = frames.count { $0.holds(Leaks.marker) }
                    // With "withdraw" that is what the operator asked for; that it is seen shows that this
                    // search finds it.
                    if onDown == "unreachable" {
                        try #require(clear == 0, "\(clear) of \(frames.count) frames hold the marker")
                    } else if capture.path.contains("internet") {
                        try #require(clear > 0, "nothing took the default route")
                    }
                }
            }
        }

        @Test("another connection to the same prefix takes over, and 'route get' says why")
        func secondConnection() async throws {
            let options = Bundle.Options(
                lines: ["health = { hold-down = \"0s\" }"],
                separateLines: [.link: ["metric = 100"], .internet: ["metric = 200"]])
            try await Bundle.run(options) { bundle in
                let onprem = bundle.onprem
                func told(_ connection: String, _ verdict: RouteExplanation.Verdict = .tunnel) async throws {
                    try await eventually("'route get' names \(connection)") {
                        let way = try await onprem.ask("route get 10.20.0.1", RouteExplanation.self)
                        guard way.verdict == verdict else { throw LabError("\(way)") }
                        return verdict != .tunnel || way.connection == connection && way.tunnel == connection
                    }
                }
                try await bundle.traffic.reach(from: .onprem)
                try await told("link")
                let first = try await onprem.ask("route get 10.20.0.1", RouteExplanation.self)
                try #require(first.endpoint == "100.64.2.10:51820" && first.interface == "wan2", "\(first)")
                try #require(!first.steps.isEmpty)

                let prober = try await Prober.start(in: bundle.lab, from: .onprem, every: 4)
                let cut = wallClock()
                try await bundle.lab.cut(.link)
                try await told("internet")
                try #require(try await Self.isByTunnel(bundle))
                try await Task.sleep(for: .milliseconds(800))
                let answers = try await prober.stop()
                let outage = answers.longestGap(in: cut - 0.1...cut + 2)
                try #require(outage <= 0.7, "\(outage.inMilliseconds)")
                for family in Family.allCases {
                    try await bundle.traffic.ping(from: .onprem, family)
                    try await bundle.traffic.ping(from: .vpc, family)
                }

                try await bundle.lab.cut(.internet)
                try await told("none", .unreachable)
                try #require(try await !Self.way(bundle, .v4, "10.20.5.5").succeeded)
                for wire in Wire.allCases { try await bundle.lab.mend(wire) }
                try await told("link")
                try await bundle.traffic.reach(from: .vpc)
            }
        }
    }
}
