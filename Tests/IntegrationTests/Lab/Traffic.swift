internal import ControlAPI
internal import Synchronization
internal import Testing

/// What goes through a tunnel, and whether it arrived.
extension Tunnel {
    // MARK: Echo

    /// Waits until an echo comes back, which may take handshakes.
    func reach(from site: Site, _ family: Family = .v4, within limit: Duration = .seconds(40)) async throws {
        try await eventually("\(site) reaches the other end by \(family.testDescription)", within: limit) {
            try await echo(from: site, family, arguments: "-c 1 -W 1")
        }
    }

    func echo(from site: Site, _ family: Family = .v4, arguments: String) async throws -> Bool {
        try await Shell.attempt(
            "ping \(family.option) -n -I \(site.inside(family)) \(arguments) \(site.other.inside(family))",
            in: lab.namespace(site)
        ).succeeded
    }

    /// Five echoes, all of which come back.
    func ping(from site: Site, _ family: Family) async throws {
        try await pingAll(5, from: site, family)
    }

    /// So many echoes, each of which has seconds to come back. With -W alone ping waits for the last one no longer than for
    /// two round trips, or an interval: a machine that pauses for 50 ms would have lost it.
    private func pingAll(
        _ count: Int, from site: Site, _ family: Family, arguments: String = ""
    ) async throws {
        let before = await counters()
        let answer = try await Shell.attempt(
            "ping \(family.option) -n \(arguments) -I \(site.inside(family)) -c \(count) -i 0.05 -w 5 "
                + site.other.inside(family), in: lab.namespace(site))
        // With -w it goes on asking until so many have come back, whichever these are.
        let isWhole = (1...count).allSatisfy { answer.output.contains("icmp_seq=\($0) ttl") }
        guard !isWhole else { return }
        let after = await counters()
        throw LabError(
            "\(onprem.kind) to \(vpc.kind), from \(site): \(answer)\nbefore: \(before)\nafter: \(after)")
    }

    /// What the ends count: what they dropped, or, as wireguard-go does not tell that, bytes of its peer.
    private func counters() async -> String {
        var text: [String] = []
        for gateway in [onprem, vpc] {
            let drops = try? await gateway.status()?.drops
            let peer = drops == nil ? try? await gateway.peer() : nil
            text.append("\(gateway.name): \(drops.map { "\($0)" } ?? peer.map { "\($0)" } ?? "nothing")")
        }
        return text.joined(separator: ", ")
    }

    /// Echoes of exactly one MTU that must not be split.
    func pingFullSize(from site: Site, _ family: Family, mtu: Int) async throws {
        let payload = mtu - family.echoOverhead
        try await pingAll(3, from: site, family, arguments: "-M do -s \(payload)")
    }

    // MARK: iperf3

    enum Transport: String, CaseIterable, Sendable {
        case tcp
        case udp
    }

    /// What iperf3 -J writes, as far as it is looked at.
    struct Measurement: Decodable, Sendable {
        struct End: Decodable, Sendable {
            var sum: Sum?
            var sum_received: Sum?
            var streams: [Stream]?
        }
        struct Stream: Decodable, Sendable {
            struct Datagrams: Decodable, Sendable { var out_of_order: Int? }
            var udp: Datagrams?
        }
        struct Sum: Decodable, Sendable {
            var seconds: Double
            var bytes: Double
            var bits_per_second: Double
            var lost_percent: Double?
        }
        struct Interval: Decodable, Sendable {
            var sum: Sum
        }
        /// What the other end saw.
        struct Server: Decodable, Sendable {
            var intervals: [Interval]
        }
        var end: End
        var server_output_json: Server?
        var error: String?

        var received: Sum? { end.sum_received ?? end.sum }
        /// Datagrams that came after a later one.
        var outOfOrder: Int { (end.streams ?? []).reduce(0) { $0 + ($1.udp?.out_of_order ?? 0) } }
    }

    /// A server at vpc for this test's measurements.
    func startServer(_ family: Family = .v4) async throws {
        try await lab.start(
            ["iperf3", "-s", "-J", "-B", Site.vpc.inside(family)], name: "iperf3-\(family)",
            in: lab.namespace(.vpc))
        try await serverListens(family)
    }

    /// Between two measurements it does not for a moment.
    private func serverListens(_ family: Family) async throws {
        try await eventually("iperf3 listens") {
            try await Shell.run("ss -Hltn sport = :5201", in: lab.namespace(.vpc)).contains(
                Site.vpc.inside(family))
        }
    }

    /// - Parameter reversed: vpc sends.
    @discardableResult
    func measure(
        _ transport: Transport, _ family: Family = .v4, reversed: Bool, seconds: Int? = nil,
        rate: String? = nil, streams: Int = 1
    ) async throws -> Measurement {
        let seconds = seconds ?? (transport == .udp ? 3 : 1)
        var command =
            "iperf3 -J --get-server-output -c \(Site.vpc.inside(family)) -B \(Site.onprem.inside(family)) "
            + "-t \(seconds) -P \(streams)"
        // Room for what comes while the receiver waits for a processor: 2 MB, where the host allows that.
        if transport == .udp {
            command += " -u -l 1200 -w $(sort -n /proc/sys/net/core/[rw]mem_max - <<<2097152 | head -n 1)"
        }
        if let rate = rate ?? (transport == .udp ? "20M" : nil) { command += " -b \(rate)" }
        if reversed { command += " -R" }
        try await serverListens(family)
        let result = try await Shell.attempt(command, in: lab.namespace(.onprem), limit: seconds + 60)
        let measured = try JSON.decode(Measurement.self, from: Array(result.output.utf8))
        try #require(
            measured.error == nil && result.succeeded, "\(command): \(measured.error ?? result.errors)")
        let received = try #require(measured.received, "\(command) without a sum")
        try #require(received.bytes > 0, "\(command): nothing arrived")
        if transport == .udp {
            // A shaped flow far below what the path carries: losing a tenth is a fault, not congestion.
            try #require(received.lost_percent ?? 0 < 10, "\(command): lost \(received.lost_percent ?? 0) %")
        }
        return measured
    }

    // MARK: A file

    /// Copies random bytes over TCP and compares their hashes.
    func transfer(from site: Site, megabytes: Int, _ family: Family = .v4) async throws {
        let original = "\(lab.directory)/file"
        let sum = try await Shell.run(
            "head -c \(megabytes)M /dev/urandom >\(original) && sha256sum <\(original)")
        let host = family == .v4 ? site.other.inside(family) : "[\(site.other.inside(family))]"
        let receiver = try await lab.start(
            [
                "bash", "-c",
                "socat -u TCP\(family.rawValue)-LISTEN:7000,bind=\(host),reuseaddr - | sha256sum >\(original).sum",
            ], name: "receiver", in: lab.namespace(site.other))
        try await eventually("the receiver listens") {
            try await !Shell.run("ss -Hltn sport = :7000", in: lab.namespace(site.other)).isEmpty
        }
        try await Shell.run(
            "socat -u OPEN:\(original) TCP\(family.rawValue):\(host):7000", in: lab.namespace(site),
            limit: 120)
        try await receiver.waitForExit(within: .seconds(60))
        let arrived = try await Shell.run("cat \(original).sum; rm \(original).sum")
        try #require(arrived == sum, "\(megabytes) MB from \(site) arrived changed")
    }
}
