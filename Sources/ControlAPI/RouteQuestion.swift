/// A packet whose way is asked for. Without a source and an incoming interface it is this host's own.
package struct RouteQuestion: Hashable, Sendable {
    package var destination: String
    package var source: String?
    /// The interface that it comes by.
    package var incoming: String?

    package init(destination: String, source: String? = nil, incoming: String? = nil) {
        self.destination = destination
        self.source = source
        self.incoming = incoming
    }
}
