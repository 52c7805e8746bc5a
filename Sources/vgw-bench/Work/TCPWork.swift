internal import FoundationEssentials

/// TCP by iperf3, and the ping that goes beside it.
extension Work {
    private struct IperfResult: Decodable {
        struct Sum: Decodable {
            var bits_per_second: Double
            var bytes: Double
        }
        struct End: Decodable { var sum_received: Sum }
        var end: End?
        var error: String?
    }

    static func tcp(
        _ streams: Int, _ forward: Figure, _ reverse: Figure
    ) -> @Sendable (Tunnel, Int) async throws -> [Figure: Double] {
        { tunnel, seconds in
            let before = tunnel.daemons.map(\.cpuSeconds).reduce(0, +)
            let sum = try await iperf(tunnel, seconds, "-P \(streams)")
            let used = tunnel.daemons.map(\.cpuSeconds).reduce(0, +) - before
            var figures = [forward: sum.bits_per_second / 1e9]
            if streams == 1, !tunnel.daemons.isEmpty { figures[.cpu] = used / (sum.bytes * 8 / 1e9) }
            figures[reverse] = try await iperf(tunnel, seconds, "-P \(streams) -R").bits_per_second / 1e9
            return figures
        }
    }

    private static func iperf(
        _ tunnel: Tunnel, _ seconds: Int, _ options: String
    ) async throws -> IperfResult.Sum {
        // With -J a failure is told in the object, and the status says the same.
        let text = try await Shell.run(
            """
            \(server(tunnel))
            \(tunnel.lab.inside(.a)) iperf3 -J -c \(tunnel.address) -t \(seconds) \(options) || true
            """, limit: seconds + 15)
        let output = try JSONDecoder().decode(IperfResult.self, from: Data(text.utf8))
        guard let sum = output.end?.sum_received, sum.bytes > 0 else {
            throw Failure("iperf3: \(output.error ?? "nothing came through")")
        }
        return sum
    }

    /// Script: an iperf3 server on host b for as long as the script runs, and ready when this is done.
    private static func server(_ tunnel: Tunnel) -> String {
        """
        trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
        \(tunnel.lab.inside(.b)) iperf3 -s -1 -B \(tunnel.address) >/dev/null &
        \(untilSaid("\(tunnel.lab.inside(.b)) ss -Hltn 'sport = 5201'"))
        """
    }

    /// Script: waits until a command prints something, at most five seconds.
    static func untilSaid(_ command: String) -> String {
        """
        said=
        for try in $(seq 100); do
            said=$(\(command))
            [ -z "$said" ] || break
            sleep 0.05
        done
        [ -n "$said" ] || { echo "nothing after 5 s from: \(command.replacing("\"", with: "'"))" >&2; exit 1; }
        """
    }

    @Sendable
    static func ping(_ tunnel: Tunnel, seconds: Int) async throws -> [Figure: Double] {
        let lab = tunnel.lab
        let text = try await Shell.run(
            """
            \(server(tunnel))
            \(lab.inside(.a)) iperf3 -c \(tunnel.address) -t \(seconds + 3) >/dev/null &
            load=$!
            \(untilSaid("\(lab.inside(.a)) ss -Htn state established 'dport = 5201'"))
            \(lab.inside(.a)) \(Shell.quote(Lab.ownPath)) echo --to \(tunnel.address) --seconds \(seconds)
            kill -0 $load || { echo 'the TCP stream ended before the pings' >&2; exit 1; }
            """, limit: seconds + 15)
        let outcome: Echo.Outcome = try Output.read(from: text)
        guard outcome.answered > 0 else { throw Failure("no ping was answered under load") }
        var figures: [Figure: Double] = [:]
        figures[.ping50] = outcome.p50
        figures[.ping99] = outcome.p99
        figures[.ping999] = outcome.p999
        figures[.pingLoss] = 100 * Double(outcome.sent - outcome.answered) / Double(max(1, outcome.sent))
        return figures
    }
}
