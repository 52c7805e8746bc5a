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
    private let buffer = PacketBuffer()
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
        var packets = 0
        isDrained = false
        while packets < Outbound.batchLimit, !isDrained {
            switch unsafe worker.tun.read(into: buffer.bytes) {
            case .packet(let count): add(count)
            case .empty: isDrained = true
            case .deleted:
                isDevicePresent = false
                isDrained = true
            case .failed:
                outbound.drops.add(.tunReadFailed)
                isDrained = true
            }
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
        if !isDevicePresent { plane.reportDeletion() }
    }

    /// Seals what was read into the buffer, and writes back what there is to say to its sender.
    @inline(__always)
    private mutating func add(_ count: Int) {
        let hasHeader = worker.tun.offloads.vnetHeader
        let size = hasHeader ? TunDevice.headerSize : 0
        guard let base = unsafe buffer.bytes.baseAddress, count > size else {
            return outbound.drops.add(.outboundMalformed)
        }
        let offload = hasHeader ? unsafe VirtioNetHeader(base) : VirtioNetHeader()
        unsafe outbound.add(base + size, count: count - size, offload: offload)
        if let reply = unsafe outbound.reply { unsafe answer(reply) }
    }

    @inline(never)
    private func answer(_ reply: UnsafeRawBufferPointer) {
        var header = VirtioNetHeader()
        unsafe withUnsafeMutableBytes(of: &header) { header in
            let packet = unsafe PacketSlice(
                base: UnsafeMutableRawPointer(mutating: reply.baseAddress), count: reply.count)
            let slices = unsafe [PacketSlice(base: header.baseAddress, count: TunDevice.headerSize), packet]
            unsafe slices.withUnsafeBytes { slices in
                guard let base = slices.baseAddress else { return }
                let skipped = worker.tun.offloads.vnetHeader ? 0 : 1
                _ = unsafe worker.tun.write(
                    base + skipped * MemoryLayout<PacketSlice>.stride, count: 2 - skipped)
            }
        }
    }
}

/// Memory for one packet as a TUN gives it, virtio header included.
@safe private struct PacketBuffer: ~Copyable {
    private let memory: UnsafeMutableRawBufferPointer
    /// Where the kernel may write: the slack behind the packet is not its to fill.
    let bytes: UnsafeMutableRawBufferPointer

    init() {
        unsafe memory = .allocate(byteCount: TunDevice.headerSize + Outbound.packetCapacity, alignment: 16)
        unsafe bytes = UnsafeMutableRawBufferPointer(rebasing: memory[..<(TunDevice.headerSize + 65_536)])
    }

    deinit { unsafe memory.deallocate() }
}
