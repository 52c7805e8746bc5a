/// UDP by `Blast` and `Sink`: first as much as goes, then 64-byte packets at half of what came through.
extension Work {
    private static let port = 9000

    @Sendable
    static func udp(_ tunnel: Tunnel, seconds: Int) async throws -> [Figure: Double] {
        var figures: [Figure: Double] = [:]
        for (size, rate, loss) in [
            (64, Figure.udp64, Figure.udp64Loss), (512, .udp512, .udp512Loss),
            (1372, .udp1372, .udp1372Loss),
        ] {
            let (sent, sink) = try await send(tunnel, size: size, seconds: seconds)
            figures[rate] = Double(sink.receivedInWindow) / Double(seconds) / 1000
            figures[loss] = lost(sent, sink)
        }
        guard let full = figures[.udp64], full > 0 else { throw Failure("no UDP packet came through") }
        let (sent, sink) = try await send(tunnel, size: 64, seconds: seconds, rate: full * 1000 / 2)
        figures[.halfLoad] = Double(sink.receivedInWindow) / Double(seconds) / 1000
        figures[.delay50] = sink.delay50
        figures[.delay99] = sink.delay99
        figures[.delayLoss] = lost(sent, sink)
        return figures
    }

    private static func lost(_ sent: Blast.Outcome, _ sink: Sink.Outcome) -> Double {
        100 * Double(max(0, sent.sent - sink.received)) / Double(max(1, sent.sent))
    }

    private static func send(
        _ tunnel: Tunnel, size: Int, seconds: Int, rate: Double? = nil
    ) async throws -> (Blast.Outcome, Sink.Outcome) {
        let lab = tunnel.lab
        let own = Shell.quote(Lab.ownPath)
        let received = "\(lab.directory)/sink.json"
        let options = "--size \(size) --seconds \(seconds)"
        let text = try await Shell.run(
            """
            trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
            \(lab.inside(.b)) \(own) sink --on \(tunnel.address):\(port) \(options) >\(received) &
            \(untilSaid("\(lab.inside(.b)) ss -Hlun 'sport = :\(port)'"))
            \(lab.inside(.a)) \(own) blast --to \(tunnel.address):\(port) \(options) \
                \(rate.map { "--rate \($0)" } ?? "")
            wait
            cat \(received)
            """, limit: 3 * seconds + 20)
        let lines = text.split(separator: "\n").map(String.init)
        guard lines.count == 2 else { throw Failure("the UDP generators said: \(text)") }
        return (try Output.read(from: lines[0]), try Output.read(from: lines[1]))
    }
}
