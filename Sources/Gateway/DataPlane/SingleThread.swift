internal import LinuxIO
internal import Synchronization
internal import WireGuard

/// Both directions on one thread, for a host with one processor: two would only take it from each other.
///
/// A round of it takes a batch from every place where something waits, so neither direction starves the other.
func runBoth(_ plane: DataPlane, _ worker: DataWorker) {
    var outbound = OutboundThread(plane, worker)
    var inbound = InboundThread(plane, worker)
    var ready = PollSet(
        worker.tun.fd, inbound.descriptor(.v4), inbound.descriptor(.v6), worker.inboundSocketSignal.fd,
        plane.stopSignal.fd)
    while !plane.isStopping.load(ordering: .acquiring), outbound.isDevicePresent, inbound.isDevicePresent {
        _ = ready.wait(timeout: outbound.isDrained ? nil : .zero)
        if ready.isReadable(3) {
            worker.inboundSocketSignal.drain()
            outbound.refreshSockets()
            inbound.refreshSockets()
            ready.replace(1, with: inbound.descriptor(.v4))
            ready.replace(2, with: inbound.descriptor(.v6))
            continue
        }
        if ready.isReadable(1) { inbound.passBatch(.v4) }
        if ready.isReadable(2) { inbound.passBatch(.v6) }
        if ready.isReadable(0) || !outbound.isDrained { outbound.passBatch() }
    }
}
