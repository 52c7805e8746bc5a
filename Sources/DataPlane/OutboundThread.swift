internal import LinuxIO
internal import Synchronization
internal import WireGuard

/// TUN → seal → UDP:
///
/// 1. Wait for the TUN, for news of the sockets, for the time of what a rate limit holds back, and for the end.
/// 2. Read without blocking until it is empty, or a batch is full; each packet is sealed as it is read.
/// 3. Send the runs. A batch forms from what already waits: no packet is ever delayed for company.
func runOutbound(_ plane: DataPlane, _ worker: DataWorker) {
    var thread = OutboundThread(plane, worker)
    var ready = PollSet(worker.tun.fd, worker.outboundSignal.fd, plane.stopSignal.fd)
    while !plane.isStopping.load(ordering: .acquiring), thread.isDevicePresent {
        if thread.isDrained {
            _ = ready.wait(timeout: thread.timeout)
            if ready.isReadable(1) {
                worker.outboundSignal.drain()
                thread.refreshSockets()
            }
            guard ready.isReadable(0) || thread.isHolding else { continue }
        }
        thread.passBatch()
    }
}

/// What the thread owns.
struct OutboundThread: ~Copyable {
    private let plane: DataPlane
    private let worker: DataWorker
    private var outbound: Outbound
    private var table: Published<ForwardingTable>.Reader
    private var groups: Published<UDPSocketGroups>.Reader
    private var sockets: WorkerSockets
    private let buffer = TunBuffer()
    /// Nothing waited at the TUN when it was last read.
    private(set) var isDrained = true
    private(set) var isDevicePresent = true
    /// When what a rate limit holds back may go.
    private var nextOpening: Instant?

    init(_ plane: DataPlane, _ worker: DataWorker) {
        self.plane = plane
        self.worker = worker
        outbound = Outbound(events: worker.outboundEvents, drops: worker.outboundDrops)
        table = Published.Reader(plane.table)
        groups = Published.Reader(plane.sockets)
        sockets = WorkerSockets(groups.value, worker: worker.number)
        worker.outboundSockets.store(groups.generation, ordering: .releasing)
    }

    mutating func refreshSockets() {
        guard groups.refresh() else { return }
        sockets = WorkerSockets(groups.value, worker: worker.number)
        worker.outboundSockets.store(groups.generation, ordering: .releasing)
        plane.wake.signal()
    }

    var isHolding: Bool { nextOpening != nil }

    /// How long to wait for the TUN; nil while nothing is held.
    var timeout: Duration? { nextOpening.map { $0 - SystemClock.now() } }

    /// What waits at the TUN now, up to a batch.
    mutating func passBatch() {
        worker.outboundEpoch.enter()
        table.refresh()
        refreshSockets()
        sockets.beginBatch()
        outbound.begin(table: table.value, now: SystemClock.now())
        var outcome = TunDevice.ReadOutcome.packet
        var packets = 0
        while packets < Outbound.batchLimit {
            outcome = worker.tun.read(into: &outbound, by: buffer)
            guard outcome == .packet else { break }
            packets += 1
            if outbound.isFull {
                sockets.send(from: &outbound)
                outbound.finish()
            }
        }
        while outbound.releaseHeld() {
            sockets.send(from: &outbound)
            outbound.finish()
        }
        sockets.send(from: &outbound)
        outbound.finish()
        nextOpening = outbound.nextOpening
        worker.outboundEpoch.leave()
        if worker.outboundEvents.takeSignal() { plane.wake.signal() }
        isDrained = outcome == .empty
        if outcome == .deleted {
            isDevicePresent = false
            plane.reportDeletion()
        }
    }
}
