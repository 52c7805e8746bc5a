internal import Glibc
internal import LinuxIO
internal import WireGuard

/// One worker's sockets of every group: what a data thread receives from and sends by.
///
/// Concurrency: a local of the thread; it keeps the sockets open for as long as it is held.
struct WorkerSockets: Sendable {
    /// Where the worker receives.
    let sources: [GroupSocket]
    /// By number of group.
    private let pairs: [UDPSocketPair?]
    /// By number of group: how often this batch may still wait for its full queue.
    private var waitsLeft: [Int]
    /// Whether a wait of the last batch is to be given back.
    private var hasWaited = false

    init(_ groups: UDPSocketGroups, worker: Int) {
        sources = groups.sources(of: worker)
        var pairs: [UDPSocketPair?] = []
        for (number, group) in groups.present {
            // All send by a group that cannot steer.
            let pair = group.workers[group.workers.indices.contains(worker) ? worker : 0]
            pairs += [UDPSocketPair?](repeating: nil, count: Int(number) - pairs.count) + [pair]
        }
        self.pairs = pairs
        waitsLeft = [Int](repeating: UDPSocket.queueWaits, count: pairs.count)
    }

    /// Every group may be waited for again.
    @inline(__always)
    mutating func beginBatch() {
        guard hasWaited else { return }
        hasWaited = false
        for number in waitsLeft.indices { waitsLeft[number] = UDPSocket.queueWaits }
    }

    /// Nil where the group is absent, or has no socket of the family.
    @inline(__always)
    private func socket(for path: UnderlayPath) -> UDPSocket? {
        let number = Int(path.socket)
        guard number < pairs.count else { return nil }
        return pairs[number]?.socket(for: path.endpoint.address.family)
    }
}

extension WorkerSockets {
    /// Sends all runs of `outbound`, each by its own socket group. What cannot be sent is counted; nothing is
    /// final. A group whose queue is full is waited for a few times a batch (`beginBatch`), and then no more.
    @inline(__always)
    mutating func send(from outbound: inout Outbound) {
        for index in 0..<outbound.runCount {
            let run = outbound.run(index)
            let number = Int(run.underlay.socket)
            let before = number < waitsLeft.count ? waitsLeft[number] : 0
            var left = before
            let result = unsafe send(run, outbound.bytes(of: run), &left, drops: outbound.drops)
            if left != before {
                waitsLeft[number] = left
                hasWaited = true
            }
            switch result {
            case .sent: outbound.runWasSent(run)
            case .failed(let code):
                outbound.runFailed(run, code, isCongestion: [EAGAIN, ENOBUFS, ENOMEM].contains(code))
            case .sourceInvalid: outbound.forgetSource(of: run)
            case .tooBig: outbound.runWasTooBig(run)
            }
        }
        outbound.sent()
    }

    /// Sends the replies to probes that `inbound` has made.
    func send(from inbound: inout Inbound) {
        for index in 0..<inbound.runCount {
            let run = inbound.run(index)
            // This thread receives for everybody, and waits for nobody's full queue. A reply that is too big was
            // asked for in that size: it says nothing of what we send ourselves.
            var waitsLeft = 0
            let result = unsafe send(run, inbound.bytes(of: run), &waitsLeft, drops: inbound.drops)
            if result == .sourceInvalid { inbound.forgetSource(of: run) }
        }
        inbound.sent()
    }

    @inline(__always)
    private func send(
        _ run: SendRun, _ bytes: UnsafeRawBufferPointer, _ waitsLeft: inout Int, drops: DropCounters
    ) -> SendResult {
        guard let socket = socket(for: run.underlay), let base = bytes.baseAddress else {
            drops.add(.sendFailed, count: run.segments)
            return .failed(ENODEV)
        }
        let result =
            if run.mayFragment {
                unsafe socket.sendInFragments(
                    base, count: run.count, to: run.underlay, tos: run.tos,
                    waitsLeft: &waitsLeft)
            } else {
                unsafe socket.send(
                    base, count: run.count, segmentSize: run.segmentSize, to: run.underlay,
                    tos: run.tos, waitsLeft: &waitsLeft)
            }
        switch result {
        case .sent, .sourceInvalid: break
        case .tooBig: drops.add(.sendTooBig, count: run.segments)
        case .failed: drops.add(.sendFailed, count: run.segments)
        }
        return result
    }
}
