internal import LinuxIO
internal import WireGuard

/// One worker of the data plane: a queue of the TUN device, a socket of each family, and what its threads have
/// to say to control.
///
/// Concurrency: the worker's threads append events, count drops and mark their batches; control drains, reads
/// and signals.
final class DataWorker: Sendable {
    /// Handshakes and staged packets wait here for control; past an eighth of it, we are under load.
    private static let ringCapacity = 1 << 20

    let number: Int
    let tun: TunDevice

    let outboundEvents = EventRing(capacity: ringCapacity)
    let inboundEvents = EventRing(capacity: ringCapacity)
    let outboundDrops = DropCounters()
    let inboundDrops = DropCounters()
    let outboundEpoch = DataThreadEpoch()
    let inboundEpoch = DataThreadEpoch()

    /// Readable when a thread shall look at the plane's sockets.
    let outboundSocketSignal: EventCounter
    let inboundSocketSignal: EventCounter

    init(number: Int, tun: TunDevice) throws(SystemError) {
        self.number = number
        self.tun = tun
        outboundSocketSignal = try EventCounter()
        inboundSocketSignal = try EventCounter()
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
