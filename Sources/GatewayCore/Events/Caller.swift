/// Who gives an order by the control socket: for its event, so that others know whom to ask.
package struct Caller: Hashable, Sendable {
    /// `root`, `alice`, or `user 1000` where that user has no name. Nil where the kernel does not tell.
    package let name: String?

    package init(name: String?) { self.name = name }

    /// To stand for the one who did it.
    package var words: String { name ?? "an operator" }

    /// For the details of an event.
    package func details(adding more: [String: String] = [:]) -> [String: String] {
        var details = more
        details["user"] = name
        return details
    }
}
