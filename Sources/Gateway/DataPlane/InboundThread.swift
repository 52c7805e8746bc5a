internal import LinuxIO
internal import Synchronization
internal import WireGuard

/// UDP → open → TUN:
///
/// 1. Wait for the sockets, for news of them, and for the end.
/// 2. Receive a batch from each that is ready; each datagram may be up to 64 messages.
/// 3. Open, check and coalesce all of it, then write it to the TUN.
func runInbound(_ plane: DataPlane) {
    var thread = InboundThread(plane)
    var sockets = Published.Reader(plane.sockets)
    var ready = PollSet(
        sockets.value.v4?.fd ?? -1, sockets.value.v6?.fd ?? -1, plane.inboundSocketSignal.fd,
        plane.stopSignal.fd)
    while !plane.isStopping.load(ordering: .acquiring), thread.isDevicePresent {
        _ = ready.wait(timeout: nil)
        if ready.isReadable(2) {
            plane.inboundSocketSignal.drain()
            sockets.refresh()
            ready.replace(0, with: sockets.value.v4?.fd ?? -1)
            ready.replace(1, with: sockets.value.v6?.fd ?? -1)
            continue
        }
        if let v4 = sockets.value.v4, ready.isReadable(0) { thread.passBatch(from: v4) }
        if let v6 = sockets.value.v6, ready.isReadable(1) { thread.passBatch(from: v6) }
    }
}

/// What the thread owns.
private struct InboundThread: ~Copyable {
    private let plane: DataPlane
    private var inbound: Inbound
    private var table: Published<ForwardingTable>.Reader
    private var receiver = DatagramReceiver()
    private(set) var isDevicePresent = true

    init(_ plane: DataPlane) {
        self.plane = plane
        table = Published.Reader(plane.table)
        let offloads = plane.tun.offloads
        inbound = Inbound(
            keypairs: plane.keypairs, events: plane.inboundEvents, drops: plane.inboundDrops,
            vnetHeader: offloads.vnetHeader, tcpOffload: offloads.tso, udpOffload: offloads.uso)
    }

    /// What waits at the socket now, up to the receiver's capacity.
    mutating func passBatch(from socket: UDPSocket) {
        let errors = receiver.errors
        let count = receiver.receive(from: socket)
        guard count > 0 else {
            if receiver.errors != errors { plane.inboundDrops.add(.receiveFailed) }
            return
        }
        plane.inboundEpoch.enter()
        table.refresh()
        inbound.begin(table: table.value, now: SystemClock.now())
        for datagram in 0..<count {
            receiver.deliver(datagram, to: &inbound)
            if inbound.isFull { write() }
        }
        write()
        inbound.finish()
        plane.inboundEpoch.leave()
        if plane.inboundEvents.takeSignal() { plane.wake.signal() }
        if !isDevicePresent { plane.reportDeletion() }
    }

    private mutating func write() {
        if !plane.tun.write(from: &inbound) { isDevicePresent = false }
    }
}
