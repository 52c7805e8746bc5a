internal import LinuxIO
internal import Synchronization
internal import WireGuard

/// TUN → seal → UDP:
///
/// 1. Wait for the TUN, for news of the sockets, and for the end.
/// 2. Read without blocking until it is empty, or a batch is full; each packet is sealed as it is read.
/// 3. Send the runs. A batch forms from what already waits: no packet is ever delayed for company.
func runOutbound(_ plane: DataPlane) {
    var outbound = Outbound(events: plane.outboundEvents, drops: plane.outboundDrops)
    var table = Published.Reader(plane.table)
    var sockets = Published.Reader(plane.sockets)
    var ready = PollSet(plane.tun.fd, plane.outboundSocketSignal.fd, plane.stopSignal.fd)
    let buffer = TunBuffer()
    var isDrained = true
    while !plane.isStopping.load(ordering: .acquiring) {
        if isDrained {
            _ = ready.wait(timeout: nil)
            if ready.isReadable(1) {
                plane.outboundSocketSignal.drain()
                sockets.refresh()
            }
            guard ready.isReadable(0) else { continue }
        }
        plane.outboundEpoch.enter()
        table.refresh()
        sockets.refresh()
        outbound.begin(table: table.value, now: SystemClock.now())
        var outcome = TunDevice.ReadOutcome.packet
        var packets = 0
        while packets < Outbound.batchLimit {
            outcome = plane.tun.read(into: &outbound, by: buffer)
            guard outcome == .packet else { break }
            packets += 1
            if outbound.isFull {
                sockets.value.send(from: &outbound)
                outbound.finish()
            }
        }
        sockets.value.send(from: &outbound)
        outbound.finish()
        plane.outboundEpoch.leave()
        if plane.outboundEvents.takeSignal() { plane.wake.signal() }
        if outcome == .deleted {
            plane.reportDeletion()
            return
        }
        isDrained = outcome == .empty
    }
}
