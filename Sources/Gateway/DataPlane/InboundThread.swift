internal import LinuxIO
internal import Synchronization
internal import WireGuard

/// UDP → open → TUN:
///
/// 1. Wait for the sockets, for news of them, and for the end.
/// 2. Receive a batch from each that is ready; each datagram may be up to 64 messages.
/// 3. Open, check and coalesce all of it, then write it to the TUN.
func runInbound(_ plane: DataPlane, _ worker: DataWorker) {
    var thread = InboundThread(plane, worker)
    var ready = PollSet(
        thread.descriptor(.v4), thread.descriptor(.v6), worker.inboundSocketSignal.fd, plane.stopSignal.fd)
    while !plane.isStopping.load(ordering: .acquiring), thread.isDevicePresent {
        _ = ready.wait(timeout: nil)
        if ready.isReadable(2) {
            worker.inboundSocketSignal.drain()
            thread.refreshSockets()
            ready.replace(0, with: thread.descriptor(.v4))
            ready.replace(1, with: thread.descriptor(.v6))
            continue
        }
        if ready.isReadable(0) { thread.passBatch(.v4) }
        if ready.isReadable(1) { thread.passBatch(.v6) }
    }
}

/// What the thread owns.
struct InboundThread: ~Copyable {
    private let plane: DataPlane
    private let worker: DataWorker
    private var inbound: Inbound
    private var table: Published<ForwardingTable>.Reader
    private var group: Published<UDPSocketGroup>.Reader
    private var sockets: UDPSocketPair
    private var receiver = DatagramReceiver()
    private(set) var isDevicePresent = true

    init(_ plane: DataPlane, _ worker: DataWorker) {
        self.plane = plane
        self.worker = worker
        table = Published.Reader(plane.table)
        group = Published.Reader(plane.sockets)
        sockets = group.value.workers[worker.number]
        let offloads = worker.tun.offloads
        inbound = Inbound(
            keypairs: plane.keypairs, worker: worker.number, events: worker.inboundEvents,
            drops: worker.inboundDrops, vnetHeader: offloads.vnetHeader, tcpOffload: offloads.tso,
            udpOffload: offloads.uso)
    }

    mutating func refreshSockets() {
        if group.refresh() { sockets = group.value.workers[worker.number] }
    }

    /// -1 where there is no socket of the family.
    func descriptor(_ family: IPAddress.Family) -> Int32 { sockets.socket(for: family)?.fd ?? -1 }

    /// What waits at the socket now, up to the receiver's capacity.
    mutating func passBatch(_ family: IPAddress.Family) {
        guard let socket = sockets.socket(for: family) else { return }
        let errors = receiver.errors
        let count = receiver.receive(from: socket)
        guard count > 0 else {
            if receiver.errors != errors { worker.inboundDrops.add(.receiveFailed) }
            return
        }
        worker.inboundEpoch.enter()
        table.refresh()
        inbound.begin(table: table.value, now: SystemClock.now())
        for datagram in 0..<count {
            receiver.deliver(datagram, to: &inbound)
            if inbound.isFull { write() }
        }
        write()
        inbound.finish()
        worker.inboundEpoch.leave()
        if worker.inboundEvents.takeSignal() { plane.wake.signal() }
        if !isDevicePresent { plane.reportDeletion() }
    }

    private mutating func write() {
        if !worker.tun.write(from: &inbound) { isDevicePresent = false }
    }
}
