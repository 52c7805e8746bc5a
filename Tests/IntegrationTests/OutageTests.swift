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

        // MARK: A loaded uplink

        /// More than a loaded uplink carries.
        fileprivate enum Load: String, CaseIterable {
            case tcp = "-P 10"
            case udp = "-u -b 12M -l 1200"
        }

        @Test("a loaded uplink is not taken for a dead one")
        func loaded() async throws {
            try await withThrowingTaskGroup { group in
                for load in Load.allCases {
                    for farEnd in Bundle.FarEnd.allCases {
                        group.addTask { try await Self.isUpUnderLoad(load, farEnd) }
                    }
                }
                try await group.waitForAll()
            }
        }

        private static func isUpUnderLoad(_ load: Load, _ farEnd: Bundle.FarEnd) async throws {
            try await Bundle.run(Bundle.Options(farEnd: farEnd, wires: [.internet])) { bundle in
                try await bundle.start(load, over: .internet)
                try await Task.sleep(for: .seconds(Lab.loadSeconds))
                try await bundle.hasNotFlapped()
                for gateway in bundle.gateways {
                    let connection = try #require(try await gateway.status()?.connections.first)
                    try #require(connection.state == .up && connection.flaps == 0, "\(connection)")
                }
            }
        }

        @Test("a cut under load is noticed in time where there is another tunnel", arguments: Load.allCases)
        fileprivate func cutUnderLoad(_ load: Load) async throws {
            try await Bundle.run { bundle in
                let witness = try await Prober.startWitness(in: bundle.lab)
                try await bundle.start(load, over: .link)
                try await Task.sleep(for: .seconds(8))
                try await bundle.hasNotFlapped()
                let prober = try await Prober.start(in: bundle.lab, from: .onprem, every: 4)
                try await Task.sleep(for: .milliseconds(500))
                let cut = wallClock()
                try await bundle.lab.cut(.link)
                try await bundle.activated(.internet)
                try await Task.sleep(for: .seconds(1))
                let quiet = try await witness.stop()
                let back = try await prober.stop().all.first { $0.sent >= cut }?.sent ?? .infinity
                let outage = back - cut - quiet.pause(in: cut - 0.1...cut + 1)
                print("back after a cut under load, \(load): \(outage.inMilliseconds)")
                try #require(outage <= 0.7, "\(outage.inMilliseconds)")
            }
        }
    }
}

extension Bundle {
    /// Makes the wire a slow one with a deep queue on onprem's way out, and sends more than that carries.
    fileprivate func start(_ load: Integration.Outages.Load, over wire: Wire) async throws {
        try await Shell.run(
            "tc qdisc replace dev \(wire.device) root tbf rate 4mbit burst 16kb latency 2500ms",
            in: lab.namespace(.onprem))
        try await traffic.startServer()
        let command =
            "iperf3 -c \(Site.vpc.inside(.v4)) -B \(Site.onprem.inside(.v4)) -t 600 \(load.rawValue)"
        try await lab.start(
            command.split(separator: " ").map(String.init), name: "load", in: lab.namespace(.onprem))
    }

    fileprivate func hasNotFlapped() async throws {
        for gateway in gateways {
            let falls = try await gateway.events(.tunnelDown) + gateway.events(.failover)
            try #require(falls.isEmpty, "\(gateway.name): \(falls.map(\.message))")
        }
    }
}
