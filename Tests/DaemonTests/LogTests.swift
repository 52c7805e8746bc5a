import Glibc
import LinuxIO
import Logging
import Testing

@testable import Daemon

@Suite struct LogTests {
    /// A pipe that holds 4096 bytes, and a logger that writes to it.
    private final class Reader {
        let reading: Int32
        let writing: Int32
        let writer: LogWriter
        let log: Logger

        init() throws {
            var ends: [Int32] = [0, 0]
            let code = unsafe pipe(&ends)
            try #require(code == 0)
            (reading, writing) = (ends[0], ends[1])
            let setPipeSize: Int32 = 1031  // F_SETPIPE_SZ, which Glibc hides from Swift
            try #require(fcntl(writing, setPipeSize, 4096) >= 4096)
            let writer = try LogWriter(to: writing, style: .journal)
            self.writer = writer
            log = Logger(label: "test") { _ in LineLogHandler(writer: writer) }
        }

        deinit { close(reading) }

        /// All lines up to the end of the stream, which is there once the writer has ended.
        func lines() -> [String] {
            var bytes: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 65_536)
            while true {
                let count = unsafe read(reading, &chunk, chunk.count)
                if count <= 0 { break }
                bytes += chunk[..<count]
            }
            return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { String($0) }
        }
    }

    @Test(
        "LOG_LEVEL is the least that is logged",
        arguments: [
            ("debug", .debug), ("verbose", .debug), ("info", .info), ("WARNING", .warning),
            ("warn", .warning),
            ("error", .error), ("", .info), ("loud", .info), (nil, .info),
        ] as [(String?, Logger.Level)])
    func level(_ name: String?, _ level: Logger.Level) throws {
        let log = try DaemonLog(environment: name.map { ["LOG_LEVEL": $0] } ?? [:])
        defer { log.end() }
        #expect(log.logger.logLevel == level)
    }

    @Test func `who logs never waits for a reader, and what was dropped is counted where it is missing`()
        throws
    {
        let reader = try Reader()
        let count = 3 * LogWriter.capacity
        // Many times what the pipe holds. This would hang if anything here waited.
        for number in 0..<count { reader.log.info("line", metadata: ["number": "\(number)"]) }
        let ending = try Thread.spawn(name: "ending") { [writer = reader.writer, writing = reader.writing] in
            writer.end(limit: .seconds(60))
            close(writing)
        }
        let lines = reader.lines()
        ending.join()

        let told = try #require(
            lines.firstIndex { $0.hasSuffix("lines of the log were dropped: nobody read them in time") })
        let dropped = try #require(Int(lines[told].drop { $0 != ">" }.dropFirst().prefix { $0 != " " }))
        #expect(dropped > 0 && lines.count == count - dropped + 1)
        // Nothing else is missing, before it and after it.
        let numbers = lines.compactMap { $0.split(separator: "number=").last.flatMap { Int($0) } }
        #expect(numbers == Array(0..<told) + Array(told + dropped..<count))
    }

    @Test func `the end waits for a reader, but not for long`() throws {
        let reader = try Reader()
        for number in 0..<1000 { reader.log.info("line", metadata: ["number": "\(number)"]) }
        reader.writer.end(limit: .milliseconds(50))
        // It was given up, so this can be read still.
        var first = [UInt8](repeating: 0, count: 16)
        #expect(unsafe read(reader.reading, &first, 16) == 16)
        #expect(String(decoding: first, as: UTF8.self) == "<6>line number=0")
    }

    @Test func `a descriptor that cannot be written to is no end of the log`() throws {
        let full = unsafe open("/dev/full", O_WRONLY | O_CLOEXEC)
        try #require(full >= 0)
        let writer = try LogWriter(to: full, style: .plain)
        let log = Logger(label: "test") { _ in LineLogHandler(writer: writer) }
        for _ in 0..<100 { log.info("lost") }
        writer.end(limit: .seconds(60))
        close(full)
    }

    @Test func `the message comes first, then what it is about, on one line`() {
        let time: Int64 = 1_764_072_828_123_456_789
        let line = LogLine(
            level: .notice, message: "tunnel down",
            metadata: [
                "tunnel": "zone-a", "reason": "no answer from 169.254.1.1", "empty": "", "odd": "a=\"b\\",
                "lines": "one\ntwo\u{7f}",
            ])
        let rest =
            #"empty="" lines="one two " odd="a=\"b\\" reason="no answer from 169.254.1.1" tunnel=zone-a"#
        let plain = String(decoding: line.bytes(.plain, unixNanoseconds: time), as: UTF8.self)
        #expect(plain == "2025-11-25T12:13:48.123Z notice tunnel down \(rest)\n")
        let journal = String(decoding: line.bytes(.journal, unixNanoseconds: time), as: UTF8.self)
        #expect(journal == "<5>tunnel down \(rest)\n")
    }

    @Test func `journald gets the priorities of syslog`() {
        let expected: [Logger.Level: Int] = [
            .critical: 2, .error: 3, .warning: 4, .notice: 5, .info: 6, .debug: 7, .trace: 7,
        ]
        for (level, priority) in expected {
            let bytes = LogLine(level: level, message: "x").bytes(.journal, unixNanoseconds: 0)
            #expect(String(decoding: bytes, as: UTF8.self) == "<\(priority)>x\n")
        }
    }

    @Test func `a line has a limit`() {
        let bytes = LogLine(level: .info, message: String(repeating: "é", count: 100_000))
            .bytes(.plain, unixNanoseconds: 0)
        #expect(bytes.count == 8193 && bytes.last == 0x0a)
    }
}
