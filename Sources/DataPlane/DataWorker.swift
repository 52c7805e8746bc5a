internal import LinuxIO
internal import Synchronization
internal import WireGuard

/// One worker of the data plane: a queue of the TUN device, a socket of each family, and what its threads have
/// to say to control.
///
/// Concurrency: the worker's threads append events, count drops and mark their batches; control drains, reads,
/// appends strays and signals.
final class DataWorker: Sendable {
    /// Handshakes and staged packets wait here for control; once handshakes fill an eighth of it, we are under load.
    private static let ringCapacity = 1 << 20
    /// A whole datagram's segments, and their records.
    private static let strayCapacity = 1 << 18

    let number: Int
    let tun: TunDevice

    let outboundEvents = EventRing(capacity: ringCapacity)
    let inboundEvents = EventRing(capacity: ringCapacity)
    /// Messages to this worker's peers that came to another thread: see `DataPlane.passOn`.
    let strays = EventRing(capacity: strayCapacity)
    let outboundDrops = DropCounters()
    let inboundDrops = DropCounters()
    let outboundEpoch = DataThreadEpoch()
    let inboundEpoch = DataThreadEpoch()

    /// Readable when the thread shall look at the plane's sockets.
    let outboundSignal: EventFD
    /// Readable when the thread shall look at the plane's sockets, and at `strays`.
    let inboundSignal: EventFD
    /// The generation of the plane's sockets that each thread has gone over to. It holds none of an older one.
    let outboundSockets = Atomic<UInt64>(0)
    let inboundSockets = Atomic<UInt64>(0)

    init(number: Int, tun: TunDevice) throws(SystemError) {
        self.number = number
        self.tun = tun
        outboundSignal = try EventFD()
        inboundSignal = try EventFD()
    }

    /// True if some are left.
    func drainEvents(limit: Int, _ body: (DatapathEvent) -> Void) -> Bool {
        let inboundLeft = inboundEvents.drain(limit: limit, body)
        let outboundLeft = outboundEvents.drain(limit: limit, body)
        return inboundLeft || outboundLeft
    }

    var drops: [DropReason: UInt64] {
        outboundDrops.snapshot.merging(inboundDrops.snapshot, uniquingKeysWith: +)
    }
}
