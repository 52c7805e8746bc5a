internal import CLinux
package import WireGuard

/// A timer on CLOCK_BOOTTIME that can be polled: unlike the timeout of epoll it is due at once after a
/// suspend.
package struct TimerFD: ~Copyable, Sendable {
    private let descriptor: FileDescriptor

    package var fd: Int32 { descriptor.rawValue }

    package init() throws(SystemError) {
        descriptor = FileDescriptor(owning: Int32(try System.check("timerfd_create") { Int(cl_timerfd()) }))
    }

    /// Readable from `deadline` (of `SystemClock.now()`) on, until drained or armed again; nil disarms.
    package func arm(at deadline: Instant?) {
        // 0 would disarm; past the range of time_t is never.
        let time = deadline.map { min(max($0.nanoseconds, 1), UInt64(Int64.max)) } ?? 0
        _ = cl_timerfd_arm(descriptor.rawValue, time)
    }

    package func drain() {
        var expirations: UInt64 = 0
        unsafe withUnsafeMutableBytes(of: &expirations) { bytes in
            guard let base = bytes.baseAddress else { return }
            _ = unsafe System.read(descriptor.rawValue, base, bytes.count)
        }
    }
}
