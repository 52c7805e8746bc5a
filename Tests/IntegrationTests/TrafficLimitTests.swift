internal import ControlAPI
internal import Testing

extension Integration {
    /// Rates, classes and marks.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own limits")) struct TrafficLimits {
        @Test("a tunnel's rate is kept, and what is small does not wait for what is bulk")
        func rateLimit() async throws {
            let options = Bundle.Options(
                wires: [.internet], tunnelLines: [.internet: ["rate-limit = \"20 Mbit/s\""]])
            try await Bundle.run(options) { bundle in
                try await bundle.traffic.startServer()
                for reversed in [false, true] {
                    let ping = try await Prober.start(
                        in: bundle.lab, from: .onprem, every: 100, arguments: "-Q 0xb8",
                        name: "prober-\(reversed)")
                    let measured = try await bundle.traffic.measure(.tcp, reversed: reversed, seconds: 6)
                    let answers = try await ping.stop()
                    let rate = try #require(measured.received).bits_per_second / 1e6
                    let average = try #require(answers.average)
                    print("rate limit: \(rate) Mbit/s, EF echoes \(average) ms")
                    try #require((15...21).contains(rate), "\(rate) Mbit/s")
                    try #require(average < 30, "\(average) ms")
                    try #require(answers.lost * 50 < answers.all.count, "\(answers.lost) lost")
                }
            }
        }

        @Test("the DSCP shows outside on request, and congestion met outside shows inside")
        func marks() async throws {
            let options = Bundle.Options(wires: [.internet], lines: ["copy-dscp = true"])
            try await Bundle.run(options) { bundle in
                let lab = bundle.lab
                let outside = try await lab.capture("onprem", in: lab.internet)
                // EF, and ECT(0): able to take notice of congestion.
                _ = try await bundle.traffic.echo(from: .onprem, arguments: "-c 3 -i 0.1 -W 2 -Q 0xba")
                try await outside.holds("EF and ECT(0) of both ways") { frame in
                    CapturedDatagram(frame: frame).map { $0.payload.first == 4 && frame[15] == 0xba } ?? false
                }
                _ = try await outside.stop()

                // Probes cannot take notice either: half a second later the tunnel is down.
                let inside = try await lab.capture(
                    bundle.vpc[0].interface, in: bundle.vpc[0].namespace, name: "capture-inside")
                try await Shell.run(
                    "nft 'table ip congested { chain f { type filter hook forward priority 0; ip ecn set ce; }; }'",
                    in: lab.internet)
                _ = try await bundle.traffic.echo(from: .onprem, arguments: "-c 3 -i 0.1 -W 2 -Q 0xba")
                try await inside.holds("an echo with its DSCP and the mark") { packet in
                    // No frame: a TUN's packets begin with the IP header.
                    packet.count > 20 && packet[0] == 0x45 && packet[9] == 1 && packet[1] == 0xbb
                }
                // One that cannot take notice is dropped, as it would have been by the router.
                let told = try await bundle.traffic.echo(from: .onprem, arguments: "-c 3 -i 0.1 -W 1")
                try #require(!told, "a mark was lost")
                let drops = try await bundle.vpc[0].status()?.drops ?? [:]
                try #require(drops["congestion-marked", default: 0] > 0, "\(drops)")
            }
        }

        @Test("without the request nothing of an inner packet's class shows outside")
        func hidden() async throws {
            try await Bundle.run(Bundle.Options(wires: [.internet])) { bundle in
                let outside = try await bundle.lab.capture("onprem", in: bundle.lab.internet)
                try #require(
                    try await bundle.traffic.echo(from: .onprem, arguments: "-c 5 -i 0.1 -W 2 -Q 0xb8"))
                let classes = Set(
                    try await outside.stop().filter { CapturedDatagram(frame: $0)?.payload.first == 4 }
                        .map { $0[15] })
                try #require(classes == [0], "\(classes)")
            }
        }
    }
}

extension Prober.Answers {
    /// Mean round trip in milliseconds, from the last line of `ping`.
    fileprivate var average: Double? {
        guard let line = text.split(separator: "\n").last(where: { $0.hasPrefix("rtt ") }) else { return nil }
        let fields = line.split(separator: "/")
        return fields.count > 4 ? Double(fields[4]) : nil
    }
}
