package import WireGuard

/// A prefix that others have routed into our TUN, to the far end of a connection.
package struct LearnedRoute: Hashable, Sendable {
    package let prefix: IPPrefix
    package let metric: UInt32
    /// False if every route to it is in a table that somebody else's rules lead to.
    package let isInMainTable: Bool

    package init(_ prefix: IPPrefix, metric: UInt32, isInMainTable: Bool = true) {
        self.prefix = prefix
        self.metric = metric
        self.isInMainTable = isInMainTable
    }
}
