internal import ArgumentParser
internal import LinuxIO
internal import WireGuard

/// Receives what `Blast` sends, with recvmmsg, and counts.
///
/// The rate is of the window that begins with the first packet and lasts as long as the sending: what queues
/// give up after that is received, but not at that rate.
struct Sink: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Counts UDP datagrams and their delay.", shouldDisplay: false)

    /// Said at the end, as JSON.
    struct Outcome: Codable {
        var received: Int
        var receivedInWindow: Int
        var delay50: Double?
        var delay99: Double?
    }

    /// Silence after which no more is expected, where something had come.
    private static let silence: Duration = .milliseconds(700)

    @Option(help: "ADDRESS:PORT") var on: String
    @Option(help: "Bytes of payload; other datagrams do not count.") var size: Int
    @Option(help: "How long the sender sends.") var seconds: Int

    func run() throws {
        guard let local = Endpoint(on) else { throw ValidationError("'\(on)' is no address and port") }
        let socket = try DatagramSocket.udp(boundTo: local)
        let batch = DatagramBatch(capacity: 64, size: size + 1)
        var set = PollSet(socket.fd)
        var delays = DelayHistogram()
        var outcome = Outcome(received: 0, receivedInWindow: 0)
        var windowEnd: Instant?
        let limit = SystemClock.now() + .seconds(2 * seconds + 10)
        var last = SystemClock.now()
        while last < limit {
            let ready = set.wait(timeout: outcome.received > 0 ? Self.silence : .seconds(1))
            let now = SystemClock.now()
            if ready == 0 {
                if outcome.received > 0 || limit <= now { break }
                continue
            }
            let count = batch.receive(on: socket.fd)
            let end = windowEnd ?? now + .seconds(seconds)
            windowEnd = end
            for i in 0..<count where batch.length(i) == size {
                outcome.received += 1
                if now < end { outcome.receivedInWindow += 1 }
                let sentAt = batch.word(i, at: Blast.timeOffset)
                delays.add(now.nanoseconds > sentAt ? now.nanoseconds - sentAt : 0)
            }
            last = now
        }
        outcome.delay50 = delays.milliseconds(at: 0.5)
        outcome.delay99 = delays.milliseconds(at: 0.99)
        try Output.write(outcome)
    }
}
