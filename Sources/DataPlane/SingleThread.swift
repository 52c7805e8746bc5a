internal import LinuxIO
internal import Synchronization
internal import WireGuard

/// Both directions on one thread, for a host with one processor: two would only take it from each other.
///
/// A round of it takes a batch from every place where something waits, so neither direction starves the other.
func runBoth(_ plane: DataPlane, _ worker: DataWorker) {
    var outbound = OutboundThread(plane, worker)
    var inbound = InboundThread(plane, worker)
    let own = [worker.tun.fd, worker.inboundSignal.fd, plane.stopSignal.fd]
    var ready = PollSet(own + inbound.descriptors)
    while !plane.isStopping.load(ordering: .acquiring), outbound.isDevicePresent, inbound.isDevicePresent {
        _ = ready.wait(timeout: outbound.isDrained ? outbound.timeout : .zero)
        if ready.isReadable(1) {
            worker.inboundSignal.drain()
            outbound.refreshSockets()
            inbound.refreshSockets()
            inbound.passStrays()
            ready.replaceAll(with: own + inbound.descriptors)
            continue
        }
        for source in 0..<inbound.sourceCount where ready.isReadable(own.count + source) {
            inbound.passBatch(source)
        }
        if ready.isReadable(0) || !outbound.isDrained || outbound.isHolding { outbound.passBatch() }
    }
}
