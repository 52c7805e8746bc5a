internal import ControlAPI
internal import FoundationEssentials
internal import Testing

extension Integration {
    /// BIRD on both ends, set up as conf/examples/bgp-bird.conf and bgp.toml say.
    @Suite(.enabled(if: !Lab.reference, "about dynamic connections of vgwd")) struct BGP {
        private static let options = Bundle.Options(
            separateLines: [.link: ["dynamic = true"], .internet: ["dynamic = true"]],
            routes: [.onprem: [], .vpc: []])

        /// The example of the documentation, with a lab's addresses in it.
        private static func configuration(
            at site: Site, interface: String, announcing prefixes: [String]
        ) throws -> String {
            var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
            parts.removeLast(3)
            let example = try String(
                contentsOfFile: parts.joined(separator: "/") + "/conf/examples/bgp-bird.conf",
                encoding: .utf8)
            let (ours, theirs) = site == .onprem ? ("65010", "65001") : ("65001", "65010")
            var text =
                example
                .replacing("65010", with: "@ours@").replacing("65001", with: "@theirs@")
                .replacing("@ours@", with: ours).replacing("@theirs@", with: theirs)
                .replacing("vgw0", with: interface)
                .replacing("router id 192.168.10.1", with: "router id \(site.underlay(.v4))")
                .replacing(
                    "route 192.168.10.0/24 unreachable;",
                    with: prefixes.map { "route \($0) unreachable;" }.joined(separator: "\n    "))
            for (wire, number) in [(Wire.link, 101), (.internet, 102)] {
                text =
                    text
                    .replacing("169.254.\(number).2", with: "@near@").replacing(
                        "169.254.\(number).1", with: "@far@"
                    )
                    .replacing("@near@", with: wire.inside(site)).replacing(
                        "@far@", with: wire.inside(site.other))
            }
            return text
        }

        private struct Bird {
            let lab: Lab
            let site: Site
            let interface: String
            var socket: String { "\(lab.directory)/bird-\(site).ctl" }

            func configure(_ prefixes: [String]) throws -> String {
                try lab.write(
                    try BGP.configuration(at: site, interface: interface, announcing: prefixes),
                    to: "bird-\(site).conf")
            }

            func start(_ prefixes: [String]) async throws {
                let file = try configure(prefixes)
                try await lab.start(
                    ["bird", "-f", "-c", file, "-s", socket, "-P", "\(socket).pid"], name: "bird-\(site)",
                    in: lab.namespace(site))
                try await eventually("BIRD answers") { try await ask("show status").succeeded }
            }

            func announce(_ prefixes: [String]) async throws {
                _ = try configure(prefixes)
                let answer = try await ask("configure")
                guard answer.succeeded else { throw answer }
            }

            func ask(_ text: String) async throws -> CommandResult {
                try await Shell.attempt("birdc -s \(socket) \(text)", in: lab.namespace(site))
            }
        }

        @Test("prefixes are learned, carried, withdrawn, and move when a wire is cut")
        func routes() async throws {
            try await Bundle.run(Self.options) { bundle in
                let lab = bundle.lab
                let birds = [bundle.onprem, bundle.vpc[0]].map {
                    Bird(lab: lab, site: $0.site, interface: $0.interface)
                }
                try await birds[0].start(["10.10.0.0/16"])
                try await birds[1].start(["10.20.0.0/16", "10.21.0.0/16"])
                try await Shell.run("ip addr add 10.21.0.1/32 dev lo", in: lab.namespace(.vpc))
                func carried(_ gateway: Gateway, _ prefix: String) async throws -> [String] {
                    try await gateway.status()?.connections
                        .filter { $0.routes.contains(prefix) }.map(\.name) ?? []
                }
                try await eventually("BGP has brought the prefixes", within: .seconds(90)) {
                    let learned = try await carried(bundle.onprem, "10.20.0.0/16")
                    guard !learned.isEmpty else {
                        throw LabError(try await birds[0].ask("show protocols").output)
                    }
                    return try await !carried(bundle.vpc[0], "10.10.0.0/16").isEmpty
                }
                try await bundle.traffic.reach(from: .onprem)
                for site in Site.allCases { try await bundle.traffic.ping(from: site, .v4) }
                let second = "ping -n -c 3 -i 0.1 -W 2 -I 10.10.0.1 10.21.0.1"
                try await Shell.run(second, in: lab.namespace(.onprem))

                // The route's end is the tunnel's: nothing is taken from there, nothing is sent.
                try await birds[1].announce(["10.20.0.0/16"])
                try await eventually("the prefix that was withdrawn is gone") {
                    try await carried(bundle.onprem, "10.21.0.0/16").isEmpty
                }
                try #require(try await !Shell.attempt(second, in: lab.namespace(.onprem)).succeeded)
                try await bundle.traffic.ping(from: .onprem, .v4)

                // BGP notices by its hold time of nine seconds, or because the tunnel's connection is down.
                let isByLink = try await carried(bundle.onprem, "10.20.0.0/16") == ["link"]
                let wire: Wire = isByLink ? .link : .internet
                try await lab.cut(wire)
                try await eventually("BGP leads by the other tunnel", within: .seconds(60)) {
                    let both = [
                        try await carried(bundle.onprem, "10.20.0.0/16"),
                        try await carried(bundle.vpc[0], "10.10.0.0/16"),
                    ]
                    return both.allSatisfy { $0 == [wire.other.rawValue] }
                }
                try await bundle.traffic.reach(from: .onprem)
                try await bundle.traffic.ping(from: .vpc, .v4)
                try await lab.mend(wire)
                try await eventually("the session over \(wire) is back", within: .seconds(90)) {
                    let name = wire == .link ? "tunnel_a" : "tunnel_b"
                    return try await birds[0].ask("show protocols \(name)").output.contains("Established")
                }
            }
        }
    }
}
