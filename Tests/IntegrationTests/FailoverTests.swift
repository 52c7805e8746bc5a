internal import ControlAPI
internal import TestSupport
internal import Testing

extension Integration {
    /// A wire is cut, or lies, or comes and goes, and traffic takes the other one. The bounds are the issue's own.
    @Suite(.enabled(if: !Lab.reference, "about connections of vgwd")) struct Failover {
        /// How often tunnels are probed, and how long an outage may be for it.
        struct Pace: Sendable, CustomTestStringConvertible {
            /// Nil is the default.
            var interval: String?
            var limit: Double

            static let all = [Pace(limit: 0.7), Pace(interval: "50ms", limit: 0.25)]

            var testDescription: String { interval ?? "defaults" }

            /// Without a hold-down, lest 20 cuts take an hour: it delays the return, not what is measured.
            var lines: [String] {
                let interval = interval.map { "interval = \"\($0)\", " } ?? ""
                return ["health = { \(interval)hold-down = \"0s\" }"]
            }
        }

        @Test(
            "traffic flows again in time after each of 20 silent cuts, and what was open lives on",
            arguments: Bundle.FarEnd.allCases, Pace.all)
        func cuts(_ farEnd: Bundle.FarEnd, _ pace: Pace) async throws {
            try await Bundle.run(Bundle.Options(farEnd: farEnd, lines: pace.lines)) { bundle in
                let streams = try await Streams.start(in: bundle.lab)
                let prober = try await Prober.start(in: bundle.lab, from: .onprem, every: 4)
                let witness = try await Prober.startWitness(in: bundle.lab)
                var random = SplitMix(seed: 4)
                var cuts: [Double] = []
                // A few more than have to count.
                for _ in 0..<24 {
                    // At any moment between two probes.
                    try await Task.sleep(for: .milliseconds(Int.random(in: 200...400, using: &random)))
                    cuts.append(wallClock())
                    try await bundle.lab.cut(.link)
                    try await bundle.activated(.internet)
                    // Longer than the limit: what did not come back in time must show.
                    try await Task.sleep(for: .milliseconds(500))
                    try await bundle.lab.mend(.link)
                    try await bundle.activated(.link)
                }
                let answers = try await prober.stop()
                let quiet = try await witness.stop()
                try await streams.finish()

                let windows = cuts.map { $0 - 0.1...$0 + 1 }.filter { !quiet.isDisturbed(in: $0) }
                try #require(
                    windows.count >= 20, "this machine stood still in \(24 - windows.count) of 24 cuts")
                let outages = windows.map { answers.longestGap(in: $0) }
                let figures = outages.map(\.inMilliseconds).joined(separator: ", ")
                print("outages, \(farEnd.rawValue), \(pace.testDescription): \(figures)")
                for outage in outages {
                    try #require(outage <= pace.limit, "\(outage.inMilliseconds) among \(figures)")
                }
                try #require(outages.allSatisfy { $0 > 0.03 }, "a cut that cuts nothing: \(figures)")
                // The whole run, cuts that do not count included: only so long as the machine stood still is excused.
                for gap in answers.gaps(over: pace.limit) {
                    let length = gap.upperBound - gap.lowerBound
                    let window = gap.lowerBound - 0.1...gap.upperBound
                    let pause = quiet.pause(in: window)
                    try #require(
                        length - pause <= pace.limit,
                        "an outage of \(length.inMilliseconds), in which the machine stood still for \(pause.inMilliseconds)"
                    )
                }
            }
        }

        @Test("the return to the better tunnel loses nothing", arguments: Bundle.FarEnd.allCases)
        func failback(_ farEnd: Bundle.FarEnd) async throws {
            try await Bundle.run(Bundle.Options(farEnd: farEnd)) { bundle in
                try await bundle.lab.cut(.link)
                try await bundle.activated(.internet)
                // With wireguard-go the far end's own traffic has one way only.
                let sites = farEnd == .vgwd ? Site.allCases : [.onprem]
                var probers: [Prober] = []
                for site in sites {
                    probers.append(
                        try await Prober.start(in: bundle.lab, from: site, every: 5, name: "prober-\(site)"))
                }
                try await Task.sleep(for: .milliseconds(300))
                try await bundle.lab.mend(.link)
                try await bundle.activated(.link)
                try await Task.sleep(for: .milliseconds(500))
                for prober in probers {
                    let answers = try await prober.stop()
                    try #require(answers.all.count > 100)
                    try #require(answers.lost == 0, "\(answers.lost) of \(answers.all.count) lost")
                    try #require(answers.duplicates == 0, "\(answers.duplicates) came twice")
                }
            }
        }

        @Test("a link that comes and goes is left alone")
        func flapping() async throws { try await sideBySide(Bundle.FarEnd.allCases, Self.flapping) }

        private static func flapping(_ farEnd: Bundle.FarEnd) async throws {
            try await Bundle.run(Bundle.Options(farEnd: farEnd)) { bundle in
                for _ in 0..<10 {
                    try await bundle.lab.cut(.link)
                    try await Task.sleep(for: .seconds(2))
                    try await bundle.lab.mend(.link)
                    try await Task.sleep(for: .seconds(2))
                }
                // Long enough to be noticed, also where the link was held down and its state says nothing of the cut.
                try await bundle.lab.cut(.link)
                try await Task.sleep(for: .seconds(2))
                try await bundle.become(.down, .link)
                for gateway in bundle.gateways {
                    let switches = try await gateway.events(.failover)
                    let ways = switches.map { "\($0.from ?? "-") to \($0.to ?? "-")" }
                    try #require(ways.count <= 4, "\(gateway.name): \(ways)")
                    try #require(try await gateway.activeTunnels() == ["internet"], "\(ways)")
                }
                // Up again, and held down: the other one still carries.
                try await bundle.lab.mend(.link)
                let mended = wallClock()
                // After one flap that is a second on top of the five answers, which take 0.8 s.
                try await Task.sleep(for: .milliseconds(1200))
                for gateway in bundle.gateways {
                    let tunnels = try await gateway.tunnels()
                    // This machine may have stood still for so long.
                    if wallClock() - mended > 1.8 { continue }
                    try #require(tunnels.filter { $0.isActive == true }.map(\.name) == ["internet"])
                }
                try await bundle.traffic.ping(from: .onprem, .v4)
            }
        }

        @Test("what is lost one way only is noticed at both ends")
        func oneWay() async throws { try await sideBySide(Bundle.FarEnd.allCases, Self.oneWay) }

        private static func oneWay(_ farEnd: Bundle.FarEnd) async throws {
            let options = Bundle.Options(farEnd: farEnd, lines: Pace.all[0].lines)
            try await Bundle.run(options) { bundle in
                for site in Site.allCases {
                    try await bundle.lab.cut(.link, from: site)
                    try await bundle.become(.down, .link)
                    for gateway in bundle.gateways {
                        let tunnel = try await gateway.tunnel(over: .link)
                        try #require(tunnel.reasonCode == "probe-timeout", "\(tunnel)")
                    }
                    try await bundle.activated(.internet)
                    for from in Site.allCases where farEnd == .vgwd || from == .onprem {
                        try await bundle.traffic.ping(from: from, .v4)
                        try await bundle.traffic.ping(from: from, .v6)
                    }
                    try await bundle.lab.mend(.link)
                    try await bundle.activated(.link)
                }
            }
        }

        @Test("each end chooses for what it sends")
        func independent() async throws {
            try await Bundle.run { bundle in
                let prober = try await Prober.start(in: bundle.lab, from: .onprem, every: 10)
                try #require(try await bundle.vpc[0].vgwctl("tunnel prefer internet").succeeded)
                try await eventually("vpc sends by the internet") {
                    try await bundle.vpc[0].activeTunnels() == ["internet"]
                }
                let before = try await bundle.onprem.tunnels()
                for site in Site.allCases {
                    for family in Family.allCases { try await bundle.traffic.ping(from: site, family) }
                }
                try await Task.sleep(for: .seconds(1))
                try #require(try await bundle.onprem.activeTunnels() == ["link"])
                // More than probes: 100 echoes a second.
                let after = try await bundle.onprem.tunnels()
                for (was, now) in zip(before, after) {
                    let (sent, received) = (now.txPackets - was.txPackets, now.rxPackets - was.rxPackets)
                    if now.name == "link" {
                        try #require(sent > 2 * received, "link: sent \(sent), received \(received)")
                    } else {
                        try #require(received > 2 * sent, "internet: sent \(sent), received \(received)")
                    }
                }
                let answers = try await prober.stop()
                try #require(answers.lost == 0, "\(answers.lost) lost")
            }
        }

        @Test(
            "neither wire shows an inner byte, nor packets that go round, whatever is cut",
            arguments: Bundle.FarEnd.allCases)
        func sealed(_ farEnd: Bundle.FarEnd) async throws {
            let options = Bundle.Options(farEnd: farEnd, lines: Pace.all[0].lines)
            try await Bundle.run(options) { bundle in
                let captures = try await bundle.lab.captureWires()
                let inside = try await bundle.lab.capture(
                    bundle.onprem.interface, in: bundle.onprem.namespace, name: "capture-inside")
                let pings = [
                    try await bundle.traffic.markedPings(from: .onprem),
                    try await bundle.traffic.markedPings(from: .vpc),
                ].flatMap { $0 }
                try await inside.holds(Leaks.marker)
                try await Self.cutAll(bundle)
                for ping in pings { try await ping.killGroup() }
                let innerFrames = try await inside.stop().count
                var outerFrames = 0
                for capture in captures {
                    let frames = try await capture.stop()
                    outerFrames += frames.count
                    try #require(
                        frames.contains { frame in
                            CapturedDatagram(frame: frame).map { 51820...51821 ~= $0.destinationPort }
                                ?? false
                        })
                    let clear = frames.count { $0.holds(Leaks.marker) }
                    try #require(clear == 0, "\(clear) of \(frames.count) frames hold the marker")
                }
                // One outer packet for an inner one, four a probe of each tunnel (asked and answered from both
                // ends, five a second), and a few handshakes: a loop would make thousands.
                try #require(
                    outerFrames < 4 * innerFrames + 500, "\(outerFrames) outside for \(innerFrames) inside")
            }
        }

        /// One wire, both, the other, and one of them one way.
        private static func cutAll(_ bundle: Bundle) async throws {
            let lab = bundle.lab
            try await lab.cut(.link)
            try await bundle.activated(.internet)
            try await lab.cut(.internet)
            try await bundle.become(.down, .internet)
            try await Task.sleep(for: .seconds(1))
            try await lab.mend(.link)
            try await bundle.activated(.link)
            try await lab.mend(.internet)
            try await lab.cut(.link, from: .onprem)
            try await bundle.become(.up, .internet)
            try await bundle.activated(.internet)
            try await lab.mend(.link)
            try await bundle.activated(.link)
        }
    }
}

extension Lab {
    /// Records what passes both wires, on onprem's side.
    func captureWires() async throws -> [Capture] {
        var captures: [Capture] = []
        for wire in Wire.allCases {
            let capture = try await capture("onprem", in: namespace(wire), name: "capture-\(wire)")
            captures.append(capture)
        }
        return captures
    }
}
