package import ControlAPI

/// The last events of this run, and the numbers of all. Owned by the control thread.
package struct EventLog {
    package static let capacity = 1000

    private var events: Ring<GatewayEvent>
    /// Sequence number of the last event; 0 before the first.
    package private(set) var last: UInt64 = 0

    package init(capacity: Int = EventLog.capacity) { events = Ring(capacity: capacity) }

    /// The event with its number.
    package mutating func append(_ event: GatewayEvent) -> GatewayEvent {
        last += 1
        var numbered = event
        numbered.sequence = last
        events.append(numbered)
        return numbered
    }

    /// What came after `sequence`, with a note where some of that is no longer kept. Nil: all that is kept. A
    /// number that was not reached yet is of an earlier run, whose reader has seen nothing of this one.
    package func lines(after sequence: UInt64?) -> [EventLine] {
        let kept = events.all
        guard var sequence, let first = kept.first?.sequence else { return kept.map { .event($0) } }
        if sequence > last { sequence = 0 }
        var lines: [EventLine] = []
        if first > sequence + 1 { lines.append(.lost(count: first - sequence - 1)) }
        return lines + kept.drop { $0.sequence <= sequence }.map { .event($0) }
    }
}
