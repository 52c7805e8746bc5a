internal import LinuxIO
internal import Logging
internal import Synchronization
internal import WireGuard

/// Writes lines to a descriptor that nobody may be reading from, and lets nobody wait for that:
///
/// 1. `append` puts the line into a queue; in a full queue it takes the place of the oldest, which is counted.
/// 2. The writer's thread takes the whole queue and writes it. This thread alone waits for the reader.
/// 3. Where lines are missing, it first writes how many.
///
/// Concurrency: any thread appends. The mutex guards the queue, and is never held while something is written.
final class LogWriter: Sendable {
    /// In lines, of some 150 bytes each: a thousand tunnels may come up at once, with four lines each.
    static let capacity = 4096

    private struct Queue {
        var lines = Ring<[UInt8]>(capacity: LogWriter.capacity)
        /// Lines that were dropped since the last note of it.
        var dropped = 0
        var isEnding = false
    }

    private let descriptor: Int32
    private let style: LogLine.Style
    private let queue = Mutex(Queue())
    /// Readable for the thread once there is something in the queue, or the end is asked for.
    private let wake: EventFD
    /// Readable once the thread has written everything and ends.
    private let ended: EventFD

    /// `descriptor` stays open for as long as the process lives.
    init(to descriptor: Int32, style: LogLine.Style) throws(SystemError) {
        self.descriptor = descriptor
        self.style = style
        wake = try EventFD()
        ended = try EventFD()
        // Not joined: it may wait for a reader that never comes.
        _ = try Thread.spawn(name: "vgwd-log") { [self] in run() }
    }

    func append(_ line: LogLine) {
        let bytes = line.bytes(style, unixNanoseconds: SystemClock.unixNanoseconds())
        let wasEmpty = queue.withLock { queue in
            let wasEmpty = queue.lines.isEmpty
            if queue.lines.append(bytes) { queue.dropped += 1 }
            return wasEmpty
        }
        if wasEmpty { wake.signal() }
    }

    /// Returns when every line is written, or after `limit`. What is appended afterwards is written by nobody.
    func end(limit: Duration) {
        queue.withLock { $0.isEnding = true }
        wake.signal()
        var ready = PollSet(ended.fd)
        let deadline = SystemClock.now() + limit
        var now = SystemClock.now()
        while now < deadline, ready.wait(timeout: deadline - now) == 0 { now = SystemClock.now() }
    }

    // MARK: The thread

    private func run() {
        var ready = PollSet(wake.fd)
        while true {
            let (lines, dropped, isEnding) = queue.withLock { queue in
                defer { queue.dropped = 0 }
                return (queue.lines.takeAll(), queue.dropped, queue.isEnding)
            }
            if !lines.isEmpty {
                write(lines, after: dropped)
            } else if isEnding {
                return ended.signal()
            } else {
                _ = ready.wait(timeout: nil)
                wake.drain()
            }
        }
    }

    /// `dropped` lines are missing before them. What cannot be written counts as dropped.
    private func write(_ lines: [[UInt8]], after dropped: Int) {
        let note =
            dropped == 0
            ? []
            : LogLine(
                level: .warning, message: "\(dropped) lines of the log were dropped: nobody read them in time"
            )
            .bytes(style, unixNanoseconds: SystemClock.unixNanoseconds())
        guard StandardError.write(note + lines.joined(), to: descriptor) else {
            return queue.withLock { $0.dropped += dropped + lines.count }
        }
    }
}
