internal import ControlAPI
internal import GatewayCore
internal import Logging
internal import WireGuard

/// What happened, told to everybody: the log, the event log, those who follow, hooks.
///
/// Owned by the control thread.
struct EventJournal {
    private let log: Logger
    private var kept = EventLog()
    private let followers = EventHub()
    /// Nil where no hook is configured.
    let hooks: HookRunner?

    init(log: Logger, hooks: HookRunner?) {
        self.log = log
        self.hooks = hooks
    }

    /// One line in the log, with the kind in words and the rest as keys; a place in the event log; a line to
    /// each follower; and a start of each hook that is for it.
    mutating func raise(_ event: GatewayEvent, _ level: EventLevel) {
        let event = kept.append(event)
        log.log(
            level: Logger.Level(level), "\(event.kind.rawValue.replacing("-", with: " "))",
            metadata: Self.metadata(of: event))
        followers.publish(event)
        hooks?.post(event)
    }

    func note(_ note: LogNote, hint: String? = nil) {
        var metadata = Logger.Metadata()
        for (key, value) in note.fields { metadata[key] = "\(value)" }
        if let hint { metadata["hint"] = "\(hint)" }
        log.log(level: Logger.Level(note.level), "\(note.message)", metadata: metadata)
    }

    private static func metadata(of event: GatewayEvent) -> Logger.Metadata {
        var metadata = Logger.Metadata()
        for (key, value) in event.details { metadata[key] = "\(value)" }
        for (key, value) in [
            ("connection", event.connection), ("tunnel", event.tunnel), ("from", event.from),
            ("to", event.to),
            ("reason", event.reason), ("drill", event.drill.map { "\($0)" }),
        ] {
            if let value { metadata[key] = "\(value)" }
        }
        return metadata
    }

    /// Both at once, so that a follower misses nothing between them.
    func page(since: UInt64?, follow: Bool) throws(APIError) -> EventPage {
        EventPage(lines: kept.lines(after: since), follower: follow ? try followers.follow() : nil)
    }

    func end() {
        followers.end()
        hooks?.stop()
    }
}

extension Logger.Level {
    fileprivate init(_ level: EventLevel) {
        self =
            switch level {
            case .debug: .debug
            case .info: .info
            case .notice: .notice
            case .warning: .warning
            case .error: .error
            }
    }
}
