internal import ArgumentParser
internal import FoundationEssentials

@main
struct Benchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vgw-bench",
        abstract: "Measures vgwd beside other WireGuard daemons, in one run.",
        discussion: """
            Builds two network namespaces joined by a veth pair and sends the same traffic through each daemon in \
            turn, round after round, so that a machine whose speed drifts is unfair to none of them. Quote the \
            ratios: absolute figures hold for one machine on one day.

            Needs root, iperf3 and wg.

              sudo swift run -c release vgw-bench
              sudo swift run -c release vgw-bench --rounds 6 --peer boringtun=/usr/local/bin/boringtun-cli
            """)

    @Option(help: "Rounds; each runs all the work through every daemon.")
    var rounds = 4

    @Option(help: "Seconds of traffic a measurement.")
    var seconds = 5

    @Option(help: "The vgwd to measure; the one built beside this program if not given.")
    var vgwd: String?

    @Option(
        help:
            "NAME=PATH of another daemon that runs as 'PATH -f INTERFACE' and is set up with wg. Repeatable.")
    var peer: [String] = []

    @Option(help: "Writes every figure of every round here, as JSON.")
    var json: String?

    func validate() throws {
        guard rounds > 0, seconds > 0 else { throw ValidationError("--rounds and --seconds count from 1") }
        for peer in peer where !peer.contains("=") {
            throw ValidationError("--peer takes NAME=PATH, not '\(peer)'")
        }
    }

    func run() async throws {
        let implementations = try await candidates()
        var report = Report(rounds: rounds, seconds: seconds, names: implementations.map(\.name))
        for round in 1...rounds {
            // Turn and turn about: the second of two daemons must not always meet the warmer machine.
            for implementation in round.isMultiple(of: 2) ? implementations.reversed() : implementations {
                print("round \(round) of \(rounds): \(implementation.name)")
                let figures = try await Bench.measure(implementation, seconds: seconds)
                report.add(figures, to: implementation.name)
            }
        }
        print(report.table)
        if let json { try report.json().write(toFile: json, atomically: true, encoding: .utf8) }
    }

    /// The bare wire, vgwd, Debian's wireguard-go where it is installed, and what was asked for.
    private func candidates() async throws -> [Implementation] {
        let own =
            try vgwd
            ?? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
            .replacing("/vgw-bench", with: "/vgwd")
        guard FileManager.default.isExecutableFile(atPath: own) else {
            throw ValidationError(
                "no vgwd at \(own): build it first (swift build -c release), or name it with --vgwd")
        }
        var found = [Implementation(name: "veth", program: nil), Implementation(name: "vgwd", program: own)]
        if let path = try? await Shell.run("command -v wireguard-go") {
            found.append(Implementation(name: "wireguard-go", program: path))
        }
        for peer in peer {
            let parts = peer.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2, FileManager.default.isExecutableFile(atPath: parts[1]) else {
                throw ValidationError("--peer \(peer): no program at that path")
            }
            found.append(Implementation(name: parts[0], program: parts[1]))
        }
        return found
    }
}

/// What carries the traffic; nil is nothing but the wire.
struct Implementation: Sendable {
    var name: String
    var program: String?
}
