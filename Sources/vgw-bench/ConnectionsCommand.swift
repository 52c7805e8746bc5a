internal import ArgumentParser
internal import GatewayCore
internal import Glibc

/// What many connections cost, and how fast they move.
struct ConnectionsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "connections",
        abstract: "Measures one vgwd with many connections of two tunnels each.",
        discussion: """
            Two vgwd in two network namespaces, joined by two wires; every connection has a tunnel over each. Says \
            what probing costs an idle daemon, what memory it takes, and how long after one wire was cut silently \
            each connection has switched. Needs root, iproute2, nftables and wg.

              sudo vgw-bench connections
              sudo vgw-bench connections --count 100 --rounds 5
            """)

    @Option(help: "Connections; twice as many tunnels.")
    var count = 500

    @Option(help: "Times that the wire is cut.")
    var rounds = 3

    @Option(help: "Seconds of rest that probing is measured over.")
    var seconds = 10

    func validate() throws {
        guard (1...ConnectionLab.limit).contains(count) else {
            throw ValidationError("--count is 1 to \(ConnectionLab.limit)")
        }
        guard (1...100).contains(rounds) else { throw ValidationError("--rounds is 1 to 100") }
        guard (1...600).contains(seconds) else { throw ValidationError("--seconds is 1 to 600") }
    }

    func run() async throws {
        umask(0o077)
        let (count, rounds, seconds) = (count, rounds, seconds)
        print(Machine.this().line)
        // Without a hold-down, lest the rounds take an hour: it delays the return, which is not measured.
        try await ConnectionBench.run(count: count, health: "{ hold-down = \"0s\" }") { bench, daemons in
            guard let daemon = daemons[.a] else { return }
            let memory = daemon.residentMegabytes
            Progress.say("\(2 * count) tunnels are up; resting for \(seconds) s")
            let (cpu, switches) = (daemon.cpuSeconds, daemon.contextSwitches)
            try await Task.sleep(for: .seconds(seconds))
            let cost = (daemon.cpuSeconds - cpu) / Double(seconds) * 100
            let wakeUps = (daemon.contextSwitches - switches) / Double(seconds)
            print("\(count) connections, \(2 * count) tunnels, a probe each 200 ms from either end")
            print(
                "  processor at rest  \(Report.number(cost)) % of a core, \(Report.number(wakeUps)) wake-ups a second"
            )
            print("  resident memory    \(Report.number(memory)) MB")
            let events = try await bench.follow(.a)
            var (medians, lasts): ([Double], [Double]) = ([], [])
            for round in 1...rounds {
                Progress.say("cut \(round) of \(rounds)")
                let cut = try await bench.cut().truncatingRemainder(dividingBy: 86_400)
                try await bench.activated("wire")
                let times = try bench.switches(to: "wire", in: events).values.map { $0 - cut }
                guard times.count == count, let statistics = Statistics(times) else {
                    throw Failure("\(times.count) of \(count) connections told of a switch")
                }
                medians.append(statistics.median)
                lasts.append(statistics.most)
                try await bench.mend()
                try await bench.activated("link")
            }
            for (name, values) in [("median connection", medians), ("last connection", lasts)] {
                guard let statistics = Statistics(values) else { continue }
                print("  " + ConnectionBench.line("switched, \(name)", statistics, rounds))
            }
        }
    }
}

/// A lab with connections, and its end.
enum ConnectionBench {
    static func run(
        count: Int, health: String,
        _ body: @escaping @Sendable (ConnectionLab, [Lab.Host: DaemonProcess]) async throws -> Void
    ) async throws {
        guard geteuid() == 0 else { throw Failure("needs root, for network namespaces and TUN devices") }
        for (program, package) in [
            ("ip", "iproute2"), ("nft", "nftables"), ("wg", "wireguard-tools"), ("ping", "iputils-ping"),
        ] where await Shell.find(program) == nil {
            throw Failure("needs \(program): apt-get install \(package)")
        }
        let folder = BuildFolder()
        try await folder.update(["vgwd", "vgwctl"])
        await Lab.sweep()
        let lab = Lab()
        do {
            try await Interrupt.watching {
                try await lab.build()
                let bench = ConnectionLab(lab: lab, count: count, health: health, folder: folder)
                let daemons = try await bench.start()
                try await body(bench, daemons)
            }
        } catch {
            await lab.tearDown()
            if error is CancellationError { throw ExitCode(128 + Interrupt.signal) }
            throw error
        }
        await lab.tearDown()
    }

    /// Seconds as milliseconds.
    static func line(_ name: String, _ seconds: Statistics, _ count: Int) -> String {
        func text(_ value: Double) -> String { Report.number(value * 1000) }
        return "\(name): median \(text(seconds.median)) ms of \(count), "
            + "\(text(seconds.least)) … \(text(seconds.most))"
    }
}
