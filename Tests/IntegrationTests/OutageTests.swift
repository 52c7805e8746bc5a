internal import ControlAPI
internal import Testing

extension Integration {
    /// Outages that need not be: what still passes packets is used. The bounds are the issue's own.
    @Suite(.enabled(if: !Lab.reference, "about connections of vgwd")) struct Outages {
        private static let cutLength: Duration = .seconds(2)

        @Test("what has no alternative is used as soon as it answers: within 1 s after each of ten cuts")
        func noAlternative() async throws {
            // Side by side: they wait most of the time.
            try await withThrowingTaskGroup { group in
                for wires in [[Wire.internet], [.link, .internet]] {
                    group.addTask { try await Self.cutTenTimes(wires) }
                }
                try await group.waitForAll()
            }
        }

        /// All of the wires at once.
        private static func cutTenTimes(_ wires: [Wire]) async throws {
            try await Bundle.run(Bundle.Options(wires: wires)) { bundle in
                let prober = try await Prober.start(in: bundle.lab, from: .onprem, every: 20)
                let witness = try await Prober.start(
                    in: bundle.lab, from: .onprem, every: 4, to: "127.0.0.1", source: "127.0.0.1",
                    name: "witness")
                var mends: [Double] = []
                for _ in 0..<10 {
                    for wire in wires { try await bundle.lab.cut(wire) }
                    try await Task.sleep(for: cutLength)
                    for wire in wires { try await bundle.lab.mend(wire) }
                    mends.append(wallClock())
                    for gateway in bundle.gateways { try await isUsedThoughDown(at: gateway) }
                    try await Task.sleep(for: .seconds(1))
                }
                let answers = try await prober.stop()
                let quiet = try await witness.stop()
                let outages = mends.map { mend in
                    let back = answers.all.first { $0.sent >= mend }?.sent ?? .infinity
                    return back - mend - quiet.pause(in: mend...mend + 1)
                }
                let figures = outages.map(\.inMilliseconds).joined(separator: ", ")
                print("back after, \(wires.count) of \(wires.count) tunnels cut: \(figures)")
                try #require(outages.allSatisfy { $0 <= 1 }, "\(figures)")
                let missing = answers.gaps(over: 1).count
                try #require(missing == 10, "\(missing) of 10 cuts cut something")
            }
        }

        /// What the status says of a tunnel that carries packets though it is not up yet.
        private static func isUsedThoughDown(at gateway: Gateway) async throws {
            try await eventually("\(gateway.name) shows a tunnel in use that is not up") {
                guard let connection = try await gateway.status()?.connections.first,
                    let tunnel = connection.tunnels.first(where: { $0.isActive == true })
                else { return false }
                return connection.state == .up && connection.isUsable == true && tunnel.state == .down
                    && tunnel.reason?.contains("answered again") == true && tunnel.holdDown ?? 0 <= 1
            }
        }
    }
}
