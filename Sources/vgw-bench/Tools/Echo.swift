internal import ArgumentParser
internal import LinuxIO
internal import WireGuard

/// Sends an ICMP echo request each 2 ms, whether or not the last was answered, and measures the answers.
///
/// Not `ping`: below 10 ms between packets it spins while nothing is on its way, which takes a whole core from
/// those that are measured, and the more of it the faster they answer.
struct Echo: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measures round trips by ICMP echo.", shouldDisplay: false)

    /// Said at the end, as JSON. Milliseconds.
    struct Outcome: Codable {
        var sent: Int
        var answered: Int
        var p50: Double?
        var p99: Double?
        var p999: Double?
    }

    private static let interval: Duration = .milliseconds(2)
    /// How long the last answers are waited for.
    private static let patience: Duration = .seconds(1)
    /// Type, code, checksum, identifier, sequence; then the time. 64 bytes, as ping sends.
    private static let header = 8
    private static let size = 64

    @Option(help: "ADDRESS") var to: String
    @Option var seconds: Int

    func run() throws {
        guard let far = IPAddress(to) else { throw ValidationError("'\(to)' is no address") }
        let socket = try DatagramSocket.icmp(connectedTo: far)
        let request = DatagramBatch(capacity: 1, size: Self.size)
        let answers = DatagramBatch(capacity: 64, size: Self.size)
        var set = PollSet(socket.fd)
        var delays = DelayHistogram()
        var sent = 0
        let start = SystemClock.now()
        let end = start + .seconds(seconds)
        var due = start
        var now = start
        while now < end || (delays.total < sent && now < end + Self.patience) {
            if now >= due, now < end {
                // The first byte is the type, 8, and code and the rest the kernel's to fill in.
                request.setWord(0, at: 0, UInt64(8).littleEndian)
                request.setWord(0, at: Self.header, now.nanoseconds)
                if request.send(1, on: socket.fd) > 0 { sent += 1 }
                // Those missed while this process had no core are not made up for: a burst is no ping.
                due = max(due + Self.interval, now)
            }
            let wait = now < end ? due - now : .milliseconds(100)
            if set.wait(timeout: wait) > 0 {
                let count = answers.receive(on: socket.fd)
                now = SystemClock.now()
                for i in 0..<count where answers.length(i) == Self.size {
                    delays.add(now.nanoseconds &- answers.word(i, at: Self.header))
                }
            } else {
                now = SystemClock.now()
            }
        }
        try Output.write(
            Outcome(
                sent: sent, answered: delays.total, p50: delays.milliseconds(at: 0.5),
                p99: delays.milliseconds(at: 0.99), p999: delays.milliseconds(at: 0.999)))
    }
}
