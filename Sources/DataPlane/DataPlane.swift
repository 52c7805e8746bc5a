package import LinuxIO
internal import Synchronization
package import WireGuard

/// The data threads, and all that they share with control.
///
/// There is a pair of them a worker: `TUN → seal → UDP` and `UDP → open → TUN`. A peer's packets are received
/// by one worker. What is to be sent of a flow the kernel hands to the queue that packets of the flow were
/// written to, or, before there were any, to one that its hash names: a flow changes its queue once at most,
/// with its first answer. Where there is one processor, one thread does both directions.
///
/// Concurrency: control starts, publishes, drains and stops. `table` and `sockets` go down through
/// ``Published``; events come up through one ring a thread and `wake`; drops and stamps are atomics.
package final class DataPlane: Sendable {
    let workers: [DataWorker]
    let keypairs: KeypairTable
    let table: Published<ForwardingTable>
    let sockets: Published<UDPSocketGroups>
    let wake: EventFD
    /// Whether each worker is one thread for both directions.
    package let isSingleThreaded: Bool

    /// Readable once the threads shall end.
    let stopSignal: EventFD
    let isStopping = Atomic<Bool>(false)
    let isTunDeleted = Atomic<Bool>(false)
    private let threads = Mutex<[Thread]>([])

    /// A worker for each queue of the TUN device; every group of `sockets`, and `keypairs`, are made for as many.
    /// `wake` becomes readable when there are events to drain, and when the TUN is gone.
    package init(
        queues: [TunDevice], sockets: UDPSocketGroups, keypairs: KeypairTable, wake: EventFD,
        isSingleThreaded: Bool
    ) throws(SystemError) {
        precondition(queues.count == keypairs.workers)
        var workers: [DataWorker] = []
        for (number, queue) in queues.enumerated() {
            workers.append(try DataWorker(number: number, tun: queue))
        }
        self.workers = workers
        self.keypairs = keypairs
        self.wake = wake
        self.sockets = Published(sockets)
        self.isSingleThreaded = isSingleThreaded
        table = Published(.empty)
        stopSignal = try EventFD()
    }

    package func start() throws(SystemError) {
        for worker in workers {
            keypairs.register(worker.outboundEpoch)
            keypairs.register(worker.inboundEpoch)
            let suffix = workers.count > 1 ? "\(worker.number)" : ""
            if isSingleThreaded {
                try spawn("vgwd-data\(suffix)") { plane in runBoth(plane, worker) }
            } else {
                try spawn("vgwd-out\(suffix)") { plane in runOutbound(plane, worker) }
                try spawn("vgwd-in\(suffix)") { plane in runInbound(plane, worker) }
            }
        }
    }

    private func spawn(_ name: String, _ body: @escaping @Sendable (DataPlane) -> Void) throws(SystemError) {
        let thread = try Thread.spawn(name: name) { body(self) }
        threads.withLock { $0.append(thread) }
    }

    /// Returns when all threads have ended.
    package func stop() {
        isStopping.store(true, ordering: .releasing)
        stopSignal.signal()
        let running = threads.withLock { threads in
            defer { threads = [] }
            return threads
        }
        for thread in running { thread.join() }
        for worker in workers {
            keypairs.unregister(worker.outboundEpoch)
            keypairs.unregister(worker.inboundEpoch)
        }
    }

    /// What the threads forward by from their next batch on.
    package func publish(_ newTable: ForwardingTable) { table.publish(newTable) }

    /// Another port or device, more groups or fewer: all threads go over to these with their next batch. Sockets that
    /// are in both go on as if nothing had been. Nothing is waited for: a thread may use the old sockets until
    /// `socketGeneration` has reached the generation that this returns, and `wake` tells when a thread has gone over.
    package func replaceSockets(_ groups: UDPSocketGroups) -> UInt64 {
        let generation = sockets.publish(groups)
        for worker in workers {
            worker.inboundSignal.signal()
            worker.outboundSignal.signal()
        }
        return generation
    }

    /// The oldest generation of sockets that a thread may use.
    package var socketGeneration: UInt64 {
        workers.map { worker in
            min(
                worker.outboundSockets.load(ordering: .acquiring),
                worker.inboundSockets.load(ordering: .acquiring))
        }.min() ?? .max
    }

    /// What the threads had to say, at most `limit` events each. True if there is more.
    package func drainEvents(limit: Int = 256, _ body: (DatapathEvent) -> Void) -> Bool {
        var isMore = false
        for worker in workers where worker.drainEvents(limit: limit, body) { isMore = true }
        return isMore
    }

    /// Leads a transport message that came to control, or by control from another worker, to the inbound thread that it
    /// is for: the kernel joins datagrams of one sender, and delivers all by what the first one is.
    package func passOn(
        _ message: [UInt8], from underlay: UnderlayPath, tos: UInt8
    ) throws(DropReason) {
        let worker = workers[try keypairs.worker(for: message)]
        guard worker.strays.stray(message, from: underlay, tos: tos) else {
            throw .strayQueueFull
        }
        if worker.strays.takeSignal() { worker.inboundSignal.signal() }
    }

    /// Share of the handshake queue in use, 0 to 1, as far as handshakes come by the data threads.
    package var handshakeQueueFill: Double { workers.map(\.inboundEvents.handshakeFill).max() ?? 0 }

    /// The TUN was deleted under us: the threads have ended.
    package var isDeviceGone: Bool { isTunDeleted.load(ordering: .acquiring) }

    package var drops: [DropReason: UInt64] {
        workers.reduce(into: [:]) { $0.merge($1.drops, uniquingKeysWith: +) }
    }

    /// Says to control, once, that the device is no more.
    func reportDeletion() {
        isTunDeleted.store(true, ordering: .releasing)
        wake.signal()
    }
}
