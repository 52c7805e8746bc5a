internal import LinuxIO
internal import Logging
internal import WireGuard

/// The time of a round, and what tells that this machine may be running a second time from the same memory: then the
/// other run has used the same keys with the same counters, or will.
extension ControlLoop {
    func refreshClock() {
        now = SystemClock.now()
        device.realtimeOffset = SystemClock.unixNanoseconds() &- Int64(truncatingIfNeeded: now.nanoseconds)
        if let parting = clocks.parting(realtimeOffset: device.realtimeOffset) {
            retireSessions("the wall clock was set by \(parting.formatted)")
        }
    }

    func readGeneration() {
        guard generation?.next() ?? false else { return }
        retireSessions("the kernel says so (NEW_VMGENID), or events of its were lost")
    }

    private func retireSessions(_ reason: String) {
        let count = device.retireSessions(now: now)
        log.notice(
            "sessions replaced: this machine may have been restored from a snapshot or cloned",
            metadata: ["reason": "\(reason)", "sessions": "\(count)"])
    }
}

extension Duration {
    /// In seconds, with the sign: "+86400 s".
    fileprivate var formatted: String {
        let half: Int64 = self < .zero ? -500_000_000 : 500_000_000
        return "\(self < .zero ? "" : "+")\((wholeNanoseconds &+ half) / 1_000_000_000) s"
    }
}
