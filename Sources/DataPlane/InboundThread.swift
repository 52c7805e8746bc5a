internal import LinuxIO
internal import Synchronization
internal import WireGuard

/// UDP → open → TUN:
///
/// 1. Wait for the sockets, for news of them, for messages that came to other threads, and for the end.
/// 2. Receive a batch from each that is ready; each datagram may be up to 64 messages.
/// 3. Open, check and coalesce all of it, then write it to the TUN, and send the replies to probes.
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
            add(datagram)
            if inbound.isFull { write() }
        }
        endBatch()
    }

    /// What waits of messages that came to other threads.
    mutating func passStrays() {
        beginBatch()
        _ = worker.strays.drain { event in
            guard case .stray(let message, let underlay, let tos) = event else { return }
            var copy = message
            unsafe copy.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                unsafe inbound.add(
                    base, count: bytes.count, segmentSize: 0, from: underlay, tos: tos)
                // The message is gone after this.
                write()
            }
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
        sockets.send(from: &inbound)
        inbound.finish()
        worker.inboundEpoch.leave()
        if worker.inboundEvents.takeSignal() { plane.wake.signal() }
        if !isDevicePresent { plane.reportDeletion() }
    }

    /// Opens the messages of a datagram of the last batch.
    @inline(__always)
    private mutating func add(_ datagram: Int) {
        guard !receiver.isTruncated(datagram) else { return inbound.drops.add(.datagramOversized) }
        let bytes = unsafe receiver.bytes(datagram)
        guard let base = bytes.baseAddress else { return }
        unsafe inbound.add(
            base, count: bytes.count, segmentSize: receiver.segmentSize(datagram),
            from: receiver.underlay(datagram), tos: receiver.tos(datagram))
    }

    /// Writes all that `inbound` has for the device.
    private mutating func write() {
        while let slices = unsafe inbound.nextWrite() {
            guard let base = slices.baseAddress else { continue }
            switch unsafe worker.tun.write(UnsafeRawPointer(base), count: slices.count) {
            case .written: break
            case .down, .refused: inbound.drops.add(.tunWriteFailed)
            case .deleted:
                inbound.drops.add(.tunWriteFailed)
                isDevicePresent = false
            }
        }
        inbound.written()
    }
}
