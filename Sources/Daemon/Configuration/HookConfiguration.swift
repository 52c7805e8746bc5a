package import ControlAPI

/// A program that is started for events.
package struct HookConfiguration: Hashable, Sendable {
    package static let defaultTimeout: Duration = .seconds(10)

    /// As they were written: kinds of events, `tunnel-*`, `*`.
    package var on: [String]
    /// The path of the program, then its arguments.
    package var run: [String]
    /// What runs longer is ended.
    package var timeout: Duration

    package init(on: [String], run: [String], timeout: Duration = defaultTimeout) {
        self.on = on
        self.run = run
        self.timeout = timeout
    }

    package var program: String { run.first ?? "" }

    /// Kinds that a hook may be for: all but its own failure, which would start it again.
    package static let kinds = GatewayEvent.Kind.all.filter { $0 != .hookFailed }

    package func wants(_ kind: GatewayEvent.Kind) -> Bool {
        kind != .hookFailed && on.contains { Self.matches($0, kind.rawValue) }
    }

    /// `*` stands for everything, and at the end of a pattern for any rest of a name.
    package static func matches(_ pattern: String, _ kind: String) -> Bool {
        pattern.hasSuffix("*") ? kind.hasPrefix(pattern.dropLast()) : kind == pattern
    }
}
