internal import LinuxIO
internal import Logging

/// The daemon's log: to standard error, one line an event, with the level that LOG_LEVEL names.
///
/// Whoever logs never waits for whoever reads (`LogWriter`).
struct DaemonLog {
    let logger: Logger
    /// Nil if nothing is to be logged.
    private let writer: LogWriter?

    /// LOG_LEVEL has the names that other implementations use too. JOURNAL_STREAM is systemd's: what it reads
    /// itself gets a priority instead of a time.
    init(environment: [String: String]) throws(SystemError) {
        let level = environment["LOG_LEVEL"]?.lowercased()
        guard level != "silent" else {
            logger = Logger(label: "vgwd") { _ in SwiftLogNoOpLogHandler() }
            writer = nil
            return
        }
        let isJournal = StandardError.isJournal(stream: environment["JOURNAL_STREAM"])
        let writer = try LogWriter(
            to: StandardError.descriptor, style: isJournal ? .journal : .plain)
        var handler = LineLogHandler(writer: writer)
        handler.logLevel =
            switch level {
            case "verbose", "debug": .debug
            case "warning", "warn": .warning
            case "error": .error
            default: .info
            }
        let chosen = handler
        logger = Logger(label: "vgwd") { _ in chosen }
        self.writer = writer
    }

    /// Before the process ends: returns when every line is written, or nobody has read them for `limit`.
    func end(limit: Duration = .seconds(1)) { writer?.end(limit: limit) }
}

/// Makes a line of each event and hands it to the writer.
struct LineLogHandler: LogHandler {
    let writer: LogWriter
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]

    init(writer: LogWriter) { self.writer = writer }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let own = event.metadata ?? [:]
        writer.append(
            LogLine(
                level: event.level, message: "\(event.message)",
                metadata: metadata.isEmpty ? own : metadata.merging(own) { _, new in new }))
    }
}
