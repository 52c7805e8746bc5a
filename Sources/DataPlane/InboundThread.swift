internal import LinuxIO
internal import Synchronization
internal import WireGuard

/// UDP → open → TUN:
///
/// 1. Wait for the sockets, for news of them, for messages that came to other threads, and for the end.
/// 2. Receive a batch from each that is ready; each datagram may be up to 64 messages.
/// 3. Open, check and coalesce all of it, then write it to the TUN, and send the answers to probes.
func runInbound(_ plane: DataPlane, _ worker: DataWorker) {
    var thread = InboundThread(plane, worker)
    let own = [worker.inboundSignal.fd, plane.stopSignal.fd]
    var ready = PollSet(own + thread.descriptors)
    while !plane.isStopping.load(ordering: .acquiring), thread.isDevicePresent {
        _ = ready.wait(timeout: nil)
        if ready.isReadable(0) {
            worker.inboundSignal.drain()
            thread.refreshSockets()
            thread.passStrays()
            ready.replaceAll(with: own + thread.descriptors)
            continue
        }
        for source in 0..<thread.sourceCount where ready.isReadable(own.count + source) {
            thread.passBatch(source)
        }
    }
}

/// What the thread owns.
struct InboundThread: ~Copyable {
    private let plane: DataPlane
    private let worker: DataWorker
    private var inbound: Inbound
    private var table: Published<ForwardingTable>.Reader
    private var groups: Published<UDPSocketGroups>.Reader
    private var sockets: WorkerSockets
    private var receiver = DatagramReceiver()
    private(set) var isDevicePresent = true

    init(_ plane: DataPlane, _ worker: DataWorker) {
        self.plane = plane
        self.worker = worker
        table = Published.Reader(plane.table)
        groups = Published.Reader(plane.sockets)
        sockets = WorkerSockets(groups.value, worker: worker.number)
        worker.inboundSockets.store(groups.generation, ordering: .releasing)
        let offloads = worker.tun.offloads
        inbound = Inbound(
            keypairs: plane.keypairs, worker: worker.number, events: worker.inboundEvents,
            drops: worker.inboundDrops, vnetHeader: offloads.vnetHeader, tcpOffload: offloads.tso,
            udpOffload: offloads.uso)
    }

    mutating func refreshSockets() {
        guard groups.refresh() else { return }
        sockets = WorkerSockets(groups.value, worker: worker.number)
        worker.inboundSockets.store(groups.generation, ordering: .releasing)
        plane.wake.signal()
    }

    var sourceCount: Int { sockets.sources.count }

    /// By number of source.
    var descriptors: [Int32] { sockets.sources.map(\.socket.fd) }

    /// What waits at the socket now, up to the receiver's capacity.
    mutating func passBatch(_ number: Int) {
        let errors = receiver.errors
        let count = receiver.receive(from: sockets.sources[number])
        guard count > 0 else {
            if receiver.errors != errors { worker.inboundDrops.add(.receiveFailed) }
            return
        }
        beginBatch()
        for datagram in 0..<count {
            receiver.deliver(datagram, to: &inbound)
            if inbound.isFull { write() }
        }
        endBatch()
    }

    /// What waits of messages that came to other threads.
    mutating func passStrays() {
        beginBatch()
        _ = worker.strays.drain { event in
            guard case .stray(let message, let underlay, let trafficClass) = event else { return }
            let isWritten = worker.tun.write(
                message, from: underlay, trafficClass: trafficClass, through: &inbound)
            if !isWritten { isDevicePresent = false }
        }
        endBatch()
    }

    private mutating func beginBatch() {
        worker.inboundEpoch.enter()
        table.refresh()
        inbound.begin(table: table.value, now: SystemClock.now())
    }

    private mutating func endBatch() {
        write()
        if inbound.runCount > 0 { sockets.send(from: &inbound) }
        inbound.finish()
        worker.inboundEpoch.leave()
        if worker.inboundEvents.takeSignal() { plane.wake.signal() }
        if !isDevicePresent { plane.reportDeletion() }
    }

    private mutating func write() {
        if !worker.tun.write(from: &inbound) { isDevicePresent = false }
    }
}
