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

        @Test("a loaded uplink is not taken for a dead one, be there another tunnel or not")
        func loaded() async throws {
            var problems: [String] = []
            // Two at once: of more, the far ends wait for a processor longer than probes do for them.
            for farEnd in Bundle.FarEnd.allCases {
                for load in Load.allCases {
                    async let alone = Self.fallsUnderLoad(load, farEnd, [Wire.internet])
                    async let beside = Self.fallsUnderLoad(load, farEnd, Wire.allCases)
                    problems += try await alone + beside
                }
            }
            try #require(problems.isEmpty, "\(problems.joined(separator: "; "))")
        }

        /// What went down while the load lasted.
        private static func fallsUnderLoad(
            _ load: Load, _ farEnd: Bundle.FarEnd, _ wires: [Wire]
        ) async throws -> [String] {
            var falls: [String] = []
            try await Bundle.run(Bundle.Options(farEnd: farEnd, wires: wires)) { bundle in
                try await bundle.start(load, over: wires[0], isSteady: true)
                let backlog = try await bundle.deepestQueue(wires[0], within: Lab.loadSeconds)
                falls = try await bundle.falls()
                if backlog < 100_000 { falls.append("only \(backlog) bytes wait: no load") }
                for gateway in bundle.gateways {
                    let connection = try #require(try await gateway.status()?.connections.first)
                    if connection.state != .up || connection.flaps != 0 { falls.append("\(connection)") }
                }
            }
            return falls.map { "\(load), \(farEnd), \(wires.count) tunnels: \($0)" }
        }

        @Test("a cut under load is noticed in time where there is another tunnel", arguments: Load.allCases)
        fileprivate func cutUnderLoad(_ load: Load) async throws {
            let outage = try await Self.outage(under: load, bound: 0.7) { try await $0.lab.cut(.link) }
            print("back after a cut under load, \(load): \(outage.inMilliseconds)")
        }

        /// The far end is heard all the time: it sends pings, and takes no answer to be a reason for another way.
        @Test(
            "a cut of the way out under load is noticed by the far end's word, without one in 5 s",
            arguments: Bundle.FarEnd.allCases)
        func cutOneWayUnderLoad(farEnd: Bundle.FarEnd) async throws {
            let bound = farEnd == .vgwd ? 0.7 : 5
            let outage = try await Self.outage(under: .tcp, farEnd, bound: bound) { bundle in
                _ = try await Prober.start(in: bundle.lab, from: .vpc, every: 20, name: "pings")
                return try await bundle.lab.cut(.link, from: .onprem)
            }
            print("back after a cut of the way out under load, \(farEnd): \(outage.inMilliseconds)")
        }

        /// For how long echoes by a loaded link, and then by the internet, were lost from the moment that `cut` returns.
        private static func outage(
            under load: Load, _ farEnd: Bundle.FarEnd = .vgwd, bound: Double,
            cut: (Bundle) async throws -> Double
        ) async throws -> Double {
            var outage = Double.infinity
            try await Bundle.run(Bundle.Options(farEnd: farEnd)) { bundle in
                let witness = try await Prober.startWitness(in: bundle.lab)
                try await bundle.start(load, over: .link)
                let backlog = try await bundle.deepestQueue(.link, within: 8)
                try #require(backlog > 100_000, "only \(backlog) bytes wait: no load")
                let falls = try await bundle.falls()
                try #require(falls.isEmpty, "\(falls)")
                let prober = try await Prober.start(in: bundle.lab, from: .onprem, every: 4)
                try await Task.sleep(for: .milliseconds(500))
                let start = try await cut(bundle)
                try await bundle.activated(.internet)
                try await Task.sleep(for: .seconds(1))
                let quiet = try await witness.stop()
                let back = try await prober.stop().all.first { $0.sent >= start }?.sent ?? .infinity
                outage = back - start - quiet.pause(in: start - 0.1...start + bound + 0.3)
            }
            try #require(outage <= bound, "\(outage.inMilliseconds)")
            return outage
        }
    }
}

extension Bundle {
    /// Makes the wire a slow one with a deep queue on onprem's way out, and sends more than that carries.
    /// Hosts that send are other machines: the gateways' threads do not wait behind them for a processor, but where the load
    /// is to be steady: one that had to wait makes up for it in bursts, which no host has sent.
    fileprivate func start(
        _ load: Integration.Outages.Load, over wire: Wire, isSteady: Bool = false
    ) async throws {
        try await traffic.startServer()
        let command =
            "nice -n \(isSteady ? 0 : 19) iperf3 -c \(Site.vpc.inside(.v4)) -B \(Site.onprem.inside(.v4)) -t 600 "
            + load.rawValue
        try await lab.start(
            command.split(separator: " ").map(String.init), name: "load", in: lab.namespace(.onprem))
        // Once the load is steady: iperf3 begins with a burst.
        try await Task.sleep(for: .seconds(1))
        try await Shell.run(
            "tc qdisc replace dev \(wire.device) root tbf rate 4mbit burst 16kb latency 2500ms",
            in: lab.namespace(.onprem))
    }

    /// Returns after so many seconds the most bytes that waited before the wire at onprem, which TCP lets drain at times:
    /// 100,000 take 200 ms.
    fileprivate func deepestQueue(_ wire: Wire, within seconds: Int) async throws -> Int {
        var deepest = 0
        for _ in 0..<seconds {
            try await Task.sleep(for: .seconds(1))
            let queue = try await Shell.run(
                "tc -j -s qdisc show dev \(wire.device)", in: lab.namespace(.onprem))
            let digits = queue.firstRange(of: "\"backlog\":").map {
                queue[$0.upperBound...].prefix(while: \.isNumber)
            }
            deepest = max(deepest, try #require(digits.flatMap { Int($0) }, "\(queue)"))
        }
        return deepest
    }

    /// What vgwd says of tunnels that went down, or were left.
    fileprivate func falls() async throws -> [String] {
        var falls: [String] = []
        for gateway in gateways {
            let events = try await gateway.events(.tunnelDown) + gateway.events(.failover)
            falls += events.map { "\(gateway.name) \($0.time): \($0.message)" }
        }
        return falls
    }
}
