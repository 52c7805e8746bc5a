package import WireGuard

/// One worker's sockets of every group: what a data thread receives from and sends by.
///
/// Concurrency: a local of the thread; it keeps the sockets open for as long as it is held.
package struct WorkerSockets: Sendable {
    /// Where the worker receives.
    package let sources: [GroupSocket]
    /// By number of group.
    private let pairs: [UDPSocketPair?]

    package init(_ groups: UDPSocketGroups, worker: Int) {
        var pairs: [UDPSocketPair?] = []
        var sources: [GroupSocket] = []
        for (number, group) in groups.present {
            // Of a group that cannot steer only the first worker receives, and all send.
            let isOwn = group.workers.indices.contains(worker)
            let pair = group.workers[isOwn ? worker : 0]
            pairs += [UDPSocketPair?](repeating: nil, count: Int(number) - pairs.count) + [pair]
            if isOwn { sources += groups.sources(pair, of: number) }
        }
        self.pairs = pairs
        self.sources = sources
    }

    /// Nil where the group is absent, or has no socket of the family.
    @inline(__always)
    package func socket(for path: UnderlayPath) -> UDPSocket? {
        let number = Int(path.socket)
        guard number < pairs.count else { return nil }
        return pairs[number]?.socket(for: path.endpoint.address.family)
    }
}
