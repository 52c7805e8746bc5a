internal import ArgumentParser
internal import FoundationEssentials
internal import Glibc
internal import LinuxIO
internal import WireGuard

/// Sends UDP datagrams with sendmmsg, as many as go or at a steady rate, each with the time it was sent.
///
/// Paced, a batch is what fell due since the last one, some 60 µs before: a sender that spun until the next
/// packet is due would take a core from those that are measured. What is overdue by more than a batch, because
/// this process had no core, is not made up for: it would come as a burst at full rate.
struct Blast: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Sends UDP datagrams as fast as they go, or at a rate.", shouldDisplay: false)

    /// Said at the end, as JSON.
    struct Outcome: Codable {
        var sent: Int
        var seconds: Double
    }

    /// Where in a datagram the time is.
    static let timeOffset = 0
    private static let batchSize = 64
    private static let pauseMicroseconds: UInt32 = 50

    @Option(help: "ADDRESS:PORT") var to: String
    @Option(help: "Bytes of payload.") var size: Int
    @Option var seconds: Int
    @Option(help: "Packets a second; as many as go if not given.") var rate: Double?

    func validate() throws {
        guard (8...65507).contains(size), seconds > 0 else { throw ValidationError("size or seconds") }
    }

    func run() throws {
        guard let far = Endpoint(to) else { throw ValidationError("'\(to)' is no address and port") }
        // Without it a sleep of 50 µs takes twice as long.
        try? "1".write(toFile: "/proc/self/timerslack_ns", atomically: false, encoding: .utf8)
        let socket = try DatagramSocket.udp(connectedTo: far)
        let batch = DatagramBatch(capacity: Self.batchSize, size: size)
        let start = SystemClock.now()
        let end = start + .seconds(seconds)
        var now = start
        var sent = 0
        var forgiven = 0
        while now < end {
            var count = Self.batchSize
            if let rate {
                let due = Int(Double((now - start).wholeNanoseconds) / 1e9 * rate) - sent - forgiven
                count = min(due, Self.batchSize)
                forgiven += max(0, due - count)
                if count <= 0 {
                    usleep(Self.pauseMicroseconds)
                    now = SystemClock.now()
                    continue
                }
            }
            for i in 0..<count { batch.setWord(i, at: Self.timeOffset, now.nanoseconds) }
            // A refused datagram is lost, as one that a queue drops is; the receiver counts.
            let went = batch.send(count, on: socket.fd)
            sent += went > 0 ? went : 1
            now = SystemClock.now()
        }
        try Output.write(Outcome(sent: sent, seconds: Double((now - start).wholeNanoseconds) / 1e9))
    }
}
