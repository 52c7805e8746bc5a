package import LinuxIO
internal import Synchronization
package import WireGuard

/// The two data threads of a queue, and all that they share with control.
///
/// Concurrency: control starts, publishes, drains and stops. `table` and `sockets` go down through
/// ``Published``; events come up through one ring a thread and `wake`; drops and stamps are atomics.
package final class DataPlane: Sendable {
    /// Handshakes and staged packets wait here for control; past an eighth of it, we are under load.
    private static let ringCapacity = 1 << 20
    /// Milliseconds that both threads have to go over to other sockets.
    private static let closeWaits = 2000

    let tun: TunDevice
    let keypairs: KeypairTable
    let table: Published<ForwardingTable>
    let sockets: Published<UDPSocketPair>
    let wake: EventCounter

    let outboundEvents = EventRing(capacity: ringCapacity)
    let inboundEvents = EventRing(capacity: ringCapacity)
    let outboundDrops = DropCounters()
    let inboundDrops = DropCounters()
    let outboundEpoch = DataThreadEpoch()
    let inboundEpoch = DataThreadEpoch()

    /// Readable once the threads shall end.
    let stopSignal: EventCounter
    /// Readable when a thread shall look at `sockets`.
    let inboundSocketSignal: EventCounter
    let outboundSocketSignal: EventCounter
    let isStopping = Atomic<Bool>(false)
    let isTunDeleted = Atomic<Bool>(false)
    private let threads = Mutex<[Thread]>([])

    /// `wake` becomes readable when there are events to drain, and when the TUN is gone.
    package init(
        tun: TunDevice, sockets: UDPSocketPair, keypairs: KeypairTable, wake: EventCounter
    ) throws(SystemError) {
        self.tun = tun
        self.keypairs = keypairs
        self.wake = wake
        self.sockets = Published(sockets)
        table = Published(.empty)
        stopSignal = try EventCounter()
        inboundSocketSignal = try EventCounter()
        outboundSocketSignal = try EventCounter()
    }

    package func start() throws(SystemError) {
        keypairs.register(outboundEpoch)
        keypairs.register(inboundEpoch)
        let outbound = try Thread.spawn(name: "vgwd-out") { runOutbound(self) }
        threads.withLock { $0.append(outbound) }
        let inbound = try Thread.spawn(name: "vgwd-in") { runInbound(self) }
        threads.withLock { $0.append(inbound) }
    }

    /// Returns when both threads have ended.
    package func stop() {
        isStopping.store(true, ordering: .releasing)
        stopSignal.signal()
        let running = threads.withLock { threads in
            defer { threads = [] }
            return threads
        }
        for thread in running { thread.join() }
        keypairs.unregister(outboundEpoch)
        keypairs.unregister(inboundEpoch)
    }

    /// What the threads forward by from their next batch on.
    package func publish(_ newTable: ForwardingTable) { table.publish(newTable) }

    /// Another port, mark or device: both threads go over to these, and the old ones close with their last
    /// batch. That is waited for, as the port may be asked for again at once; a thread that gets no processor
    /// is not waited for without end. The caller holds none of the old ones any more.
    package func replaceSockets(_ pair: UDPSocketPair) {
        let ends = [sockets.value.v4?.end, sockets.value.v6?.end].compactMap { $0 }
        sockets.publish(pair)
        inboundSocketSignal.signal()
        outboundSocketSignal.signal()
        var pause = PollSet(-1)
        var waits = 0
        while !ends.allSatisfy(\.hasCome), waits < Self.closeWaits {
            _ = pause.wait(timeout: .milliseconds(1))
            waits += 1
        }
    }

    /// What the threads had to say, at most `limit` events each. True if there is more.
    package func drainEvents(limit: Int = 256, _ body: (DatapathEvent) -> Void) -> Bool {
        let inboundLeft = inboundEvents.drain(limit: limit, body)
        let outboundLeft = outboundEvents.drain(limit: limit, body)
        return inboundLeft || outboundLeft
    }

    /// Share of the handshake queue in use, 0 to 1.
    package var handshakeQueueFill: Double { inboundEvents.fill }

    /// The TUN was deleted under us: the threads have ended.
    package var isDeviceGone: Bool { isTunDeleted.load(ordering: .acquiring) }

    package var drops: [DropReason: UInt64] {
        outboundDrops.snapshot.merging(inboundDrops.snapshot, uniquingKeysWith: +)
    }

    /// Says to control, once, that the device is no more.
    func reportDeletion() {
        isTunDeleted.store(true, ordering: .releasing)
        wake.signal()
    }
}
