internal import ControlAPI
internal import Testing

extension Integration {
    /// A routing daemon at either end, as conf/examples/bgp.toml and the files beside it say. Onprem sends over the
    /// link, and the cloud by its second gateway, over the internet.
    @Suite(.enabled(if: !Lab.reference, "about dynamic connections of vgwd")) struct BGP {
        private static let options = Bundle.Options(
            separateLines: [.link: ["dynamic = true"], .internet: ["dynamic = true"]],
            metrics: [.vpc: [.link: 20, .internet: 10]],
            routes: [.onprem: [], .vpc: []])
        private static let prefix = "10.20.0.0/16"
        private static let second = "10.21.0.0/16"

        @Test(
            "packets are taken from each neighbour that announces their source, and what was learned does not leave in clear"
        )
        func routes() async throws { try await sideBySide(RoutingDaemon.Kind.allCases, Self.routes) }

        private static func routes(_ kind: RoutingDaemon.Kind) async throws {
            try await Bundle.run(options) { bundle in
                let (lab, onprem, vpc) = (bundle.lab, bundle.onprem, bundle.vpc[0])
                let office = RoutingDaemon(kind, beside: onprem)
                let cloud = RoutingDaemon(.bird, beside: vpc)
                try await office.start(announcing: "10.10.0.0/16", at: .onprem)
                try await cloud.start(announcing: prefix, at: .vpc)
                try await cloud.announce([prefix, second], at: .vpc)
                try await Shell.run("ip addr add 10.21.0.1/32 dev lo", in: lab.namespace(.vpc))
                let captures = [
                    try await lab.capture("onprem", in: lab.internet, name: "capture-internet"),
                    try await lab.capture("onprem", in: lab.namespace(.link), name: "capture-link"),
                ]
                func carrying(_ gateway: Gateway, _ prefix: String) async throws -> [String] {
                    try await gateway.status()?.connections.filter { $0.routes.contains(prefix) }.map(\.name)
                        ?? []
                }
                func guarded() async throws -> [String] { try await onprem.status()?.guarded ?? [] }
                func knock(_ address: String) async throws -> Bool {
                    try await Shell.attempt(
                        "ping -n -c 3 -i 0.1 -W 2 -p \(Leaks.pattern) -I 10.10.0.1 \(address)",
                        in: onprem.namespace
                    ).succeeded
                }
                func bothLearn() async throws {
                    try await eventually("both ends know all ways", within: .seconds(60)) {
                        let ways = [
                            try await carrying(onprem, prefix), try await carrying(vpc, "10.10.0.0/16"),
                        ]
                        guard ways.allSatisfy({ $0 == Wire.allCases.map(\.rawValue) }) else {
                            throw LabError("\(ways)\n\(try await office.sessions())")
                        }
                        return true
                    }
                }
                try await bothLearn()

                // Out by the link, back over the internet, and nothing is dropped for it.
                let way: RouteExplanation = try await onprem.ask("route get 10.20.0.1")
                let back: RouteExplanation = try await vpc.ask("route get 10.10.0.1")
                try #require(way.connection == "link" && back.connection == "internet")
                for site in Site.allCases { try await bundle.traffic.ping(from: site, .v4) }
                try #require(try await onprem.drops("inner-source-not-allowed") == 0)
                try #require(try await vpc.drops("inner-source-not-allowed") == 0)

                // A prefix that is announced no longer is guarded until an operator lets go of it.
                try await eventually("the second prefix is learned") { try await knock("10.21.0.1") }
                try await cloud.announce([prefix], at: .vpc)
                try await eventually("what was withdrawn is guarded") {
                    try await guarded() == [second]
                }
                try #require(try await !knock("10.21.0.1"))
                let list: RouteList = try await onprem.ask("route list")
                try #require(
                    list.routes.contains { $0.prefix == second && $0.isGuarded == true && !$0.installed }
                )
                let release = try await onprem.vgwctl("route del \(second)")
                try #require(release.succeeded && release.output.contains("let go"), "\(release)")
                try #require(try await guarded().isEmpty)
                let refusal = try await onprem.vgwctl("route del \(prefix)")
                try #require(refusal.status == 1 && refusal.errors.contains("import filter"), "\(refusal)")

                // A cut wire is left when vgwd notices, which is before BGP does.
                try await lab.cut(.link)
                try await eventually("onprem sends over the internet") {
                    try await onprem.ask("route get 10.20.0.1", RouteExplanation.self).connection
                        == "internet"
                }
                try await bundle.traffic.ping(from: .onprem, .v4)

                // Both are cut, and BGP's hold time is over: also for who was killed meanwhile.
                try await lab.cut(.internet)
                try await eventually("the last route is withdrawn, and guarded") {
                    try await guarded() == [prefix]
                }
                try #require(try await !knock("10.20.0.1"))
                try await onprem.kill()
                try #require(try await !knock("10.20.0.1"))
                try await onprem.start()
                try #require(try await guarded() == [prefix])
                try #require(try await !knock("10.20.0.1"))
                for wire in Wire.allCases { try await lab.mend(wire) }
                try await bothLearn()
                try #require(try await guarded().isEmpty)
                try await bundle.traffic.ping(from: .onprem, .v4)
                for capture in captures {
                    let frames = try await capture.stop()
                    try #require(frames.contains { CapturedDatagram(frame: $0)?.destinationPort == 51820 })
                    let clear = frames.count { $0.holds(Leaks.marker) }
                    try #require(clear == 0, "\(clear) of \(frames.count) frames hold the marker")
                }
            }
        }
    }
}
