internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What happened, told to everybody: the log, those who follow, hooks.
extension ControlLoop {
    /// One line in the log, with the kind in words and the rest as keys; a place in the event log; a line to
    /// each follower; and a start of each hook that is for it. `message` is one sentence for people; `isDrill` is for what a drill has made happen.
    func raise(
        _ kind: GatewayEvent.Kind, connection: String? = nil, tunnel: String? = nil, from: String? = nil,
        to: String? = nil, reason: String? = nil, _ message: String, details: [String: String] = [:],
        isDrill: Bool = false, level: Logger.Level = .info
    ) {
        let unix = Int64(truncatingIfNeeded: now.nanoseconds) &+ device.realtimeOffset
        let event = eventLog.append(
            GatewayEvent(
                time: TimeText.utc(unixNanoseconds: unix), sequence: 0, kind: kind, connection: connection,
                tunnel: tunnel, from: from, to: to, reason: reason, message: message, details: details,
                drill: isDrill ? true : nil))
        log.log(
            level: level, "\(kind.rawValue.replacing("-", with: " "))", metadata: Self.metadata(of: event))
        events.publish(event)
        hooks?.post(event)
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
    func eventPage(since: UInt64?, follow: Bool) throws(APIError) -> EventPage {
        EventPage(lines: eventLog.lines(after: since), follower: follow ? try events.follow() : nil)
    }

    /// The log has these two lines in words of their own.
    func tellOfStart() { raise(.started, "gateway \(settings.name) has started", level: .debug) }

    func tellOfEnd() {
        let (reason, why) =
            switch ending {
            case .stopped(let text): ("asked", text)
            case .handedOver(let text): ("restart", text)
            case .failed(let text, _): ("failure", text)
            case nil: ("asked", "")
            }
        raise(
            .stopping, reason: reason, "gateway \(settings.name) ends: \(why)", details: ["why": why],
            level: .debug)
    }

    /// The runner has logged it, with what the program said.
    func hookHasFailed(_ failure: HookRunner.Failure) {
        raise(
            .hookFailed, connection: failure.event.connection, tunnel: failure.event.tunnel,
            reason: failure.reason,
            "hook \(failure.program) for \(failure.event.kind.rawValue) \(failure.problem)",
            details: ["program": failure.program, "event": failure.event.kind.rawValue], level: .debug)
    }
}
