package import WireGuard

/// One worker's sockets of every group: what a data thread receives from and sends by.
///
/// Concurrency: a local of the thread; it keeps the sockets open for as long as it is held.
package struct WorkerSockets: Sendable {
    /// Where the worker receives.
    package let sources: [GroupSocket]
    /// By number of group.
    private let pairs: [UDPSocketPair?]
    /// By number of group: how often this batch may still wait for its full queue.
    private var waitsLeft: [Int]
    /// Whether a wait of the last batch is to be given back.
    private var hasWaited = false

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
        waitsLeft = [Int](repeating: UDPSocket.queueWaits, count: pairs.count)
        self.sources = sources
    }

    /// Every group may be waited for again.
    @inline(__always)
    package mutating func beginBatch() {
        guard hasWaited else { return }
        hasWaited = false
        for number in waitsLeft.indices { waitsLeft[number] = UDPSocket.queueWaits }
    }

    @inline(__always)
    func waitsLeft(of path: UnderlayPath) -> Int {
        let number = Int(path.socket)
        return number < waitsLeft.count ? waitsLeft[number] : 0
    }

    @inline(__always)
    mutating func note(waitsLeft count: Int, of path: UnderlayPath) {
        let number = Int(path.socket)
        guard number < waitsLeft.count, waitsLeft[number] != count else { return }
        waitsLeft[number] = count
        hasWaited = true
    }

    /// Nil where the group is absent, or has no socket of the family.
    @inline(__always)
    package func socket(for path: UnderlayPath) -> UDPSocket? {
        let number = Int(path.socket)
        guard number < pairs.count else { return nil }
        return pairs[number]?.socket(for: path.endpoint.address.family)
    }
}
