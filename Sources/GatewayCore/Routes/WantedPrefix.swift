package import WireGuard

/// What the kernel shall do with a prefix.
package struct WantedPrefix: Hashable, Sendable {
    package enum State: Hashable, Sendable {
        /// Into the TUN, before an equal prefix of anybody else's; a learned one by its routing daemon's route.
        case carried
        /// Into the TUN, where a shorter prefix takes it, and behind an equal one of anybody else's.
        case covered
        /// Nowhere, unless somebody else has an equal or longer prefix.
        case unreachable
        /// As if the gateway did not know it.
        case withdrawn
    }

    package let prefix: IPPrefix
    /// Metric of the route into the TUN where that is among others', in the main table; nil is the plan's.
    package let metric: UInt32?
    package let state: State
    /// True if only a routing daemon says, or said, that it is behind a connection.
    package let isLearned: Bool
    /// No route of others inside it is taken.
    package var isExclusive = false
    /// What this host sends there from; nil leaves it to the kernel.
    package var source: IPAddress?

    package init(
        _ prefix: IPPrefix, metric: UInt32? = nil, state: State = .carried, isLearned: Bool = false
    ) {
        self.prefix = prefix.network
        self.metric = metric
        self.state = state
        self.isLearned = isLearned
    }
}
