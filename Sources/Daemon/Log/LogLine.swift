internal import ControlAPI
internal import Logging

/// One line of the log: the message, then what it is about.
///
///     2026-11-25T12:33:48.123Z notice tunnel down connection=aws reason="no answer" tunnel=zone-a
///     <5>tunnel down connection=aws reason="no answer" tunnel=zone-a
struct LogLine: Sendable {
    enum Style: Sendable {
        /// With the time in UTC and the level.
        case plain
        /// For journald, which keeps the time itself: with the priority of syslog in front (sd-daemon(3)).
        case journal
    }

    /// In bytes: what is longer is cut.
    private static let limit = 8192

    let level: Logger.Level
    let message: String
    var metadata: Logger.Metadata = [:]

    /// With a line end, and without any other: a control character becomes a space.
    func bytes(_ style: Style, unixNanoseconds: Int64) -> [UInt8] {
        var text =
            switch style {
            case .plain:
                "\(TimeText.utc(unixNanoseconds: unixNanoseconds).prefix(23))Z \(level) \(message)"
            case .journal: "<\(priority)>\(message)"
            }
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
            text += " \(key)=\(Self.quoted("\(value)"))"
        }
        return Printable.blanking(text).utf8.prefix(Self.limit) + [0x0a]
    }

    /// As it is where no reader could mistake its end.
    private static func quoted(_ value: String) -> String {
        let needsQuotes = value.utf8.contains {
            $0 <= 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "=")
        }
        guard needsQuotes || value.isEmpty else { return value }
        return "\"\(value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\""))\""
    }

    /// LOG_CRIT to LOG_DEBUG of syslog(3).
    private var priority: Int {
        switch level {
        case .critical: 2
        case .error: 3
        case .warning: 4
        case .notice: 5
        case .info: 6
        case .debug, .trace: 7
        }
    }
}
