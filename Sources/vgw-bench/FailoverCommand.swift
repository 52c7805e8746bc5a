internal import ArgumentParser
internal import FoundationEssentials
internal import GatewayCore
internal import Glibc

/// For how long nothing passes when a wire is cut.
struct FailoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "failover",
        abstract: "Measures how long traffic is lost when a wire is cut.",
        discussion: """
            Two vgwd in two network namespaces, joined by two wires, with a connection of two tunnels. Echoes go \
            through it every 10 ms while the better wire is cut silently again and again. An outage is the time \
            from the last echo that was answered to the next one. Needs root, iproute2, nftables and wg.

              sudo vgw-bench failover
              sudo vgw-bench failover --interval 50ms --cuts 50
            """)

    @Option(help: "From one probe of a tunnel to the next. Repeatable.")
    var interval = ["200ms", "50ms"]

    @Option(help: "Times that the wire is cut.")
    var cuts = 20

    func validate() throws {
        guard (1...1000).contains(cuts) else { throw ValidationError("--cuts is 1 to 1000") }
    }

    func run() async throws {
        umask(0o077)
        let (intervals, cuts) = (interval, cuts)
        print(Machine.this().line)
        for interval in intervals {
            let health = "{ interval = \"\(interval)\", hold-down = \"0s\" }"
            try await ConnectionBench.run(count: 1, health: health) { bench, _ in
                Progress.say("\(cuts) cuts at an interval of \(interval)")
                let outages = try await Self.outages(bench, cuts)
                guard let statistics = Statistics(outages) else { return }
                print(ConnectionBench.line("outage, probes each \(interval)", statistics, cuts))
                print("  " + outages.map { Report.number($0 * 1000) }.joined(separator: " "))
            }
        }
    }

    private static func outages(_ bench: ConnectionLab, _ cuts: Int) async throws -> [Double] {
        let file = "\(bench.lab.directory)/echoes"
        let pid = try await Shell.run(
            "setsid \(bench.lab.inside(.a)) ping -n -D -i 0.01 -I \(ConnectionLab.inner(.a)) "
                + "\(ConnectionLab.inner(.b)) </dev/null >\(file) 2>&1 & echo $!")
        var times: [Double] = []
        for _ in 0..<cuts {
            // At any moment between two probes.
            try await Task.sleep(for: .milliseconds(.random(in: 300...700)))
            times.append(try await bench.cut())
            try await bench.activated("wire")
            try await Task.sleep(for: .seconds(1))
            try await bench.mend()
            try await bench.activated("link")
        }
        try await Shell.run("kill -INT \(pid)")
        let echoes = try echoes(in: file)
        return times.map { time in
            zip(echoes, echoes.dropFirst()).lazy
                .filter { (time - 0.2...time + 1).contains($0.0) }
                .map { $1 - $0 }.max() ?? .infinity
        }
    }

    /// When those that were answered were sent.
    /// Lines as `[1764072000.123456] 64 bytes from 10.1.0.1: icmp_seq=7 ttl=64 time=0.345 ms`.
    private static func echoes(in file: String) throws -> [Double] {
        try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n").compactMap { line in
            guard line.first == "[", let close = line.firstIndex(of: "]"),
                let arrived = Double(line[line.index(after: line.startIndex)..<close]),
                let mark = line.firstRange(of: "time="),
                let took = Double(line[mark.upperBound...].prefix { $0 != " " })
            else { return nil }
            return arrived - took / 1000
        }.sorted()
    }
}
