internal import CLinux

/// Wakes a thread that polls: an eventfd.
///
/// Concurrency: any thread may signal; one drains.
package final class EventFD: Sendable {
    private let descriptor: FileDescriptor

    package var fd: Int32 { descriptor.rawValue }

    package init() throws(SystemError) {
        descriptor = FileDescriptor(owning: Int32(try System.check("eventfd") { Int(cl_eventfd()) }))
    }

    /// Readable from now until drained. Cannot fail: a counter that is full is readable.
    package func signal() {
        let one: UInt64 = 1
        unsafe withUnsafeBytes(of: one) { bytes in
            guard let base = bytes.baseAddress else { return }
            _ = unsafe System.write(descriptor.rawValue, base, bytes.count)
        }
    }

    /// Signals since the last call.
    @discardableResult
    package func drain() -> UInt64 {
        var count: UInt64 = 0
        unsafe withUnsafeMutableBytes(of: &count) { bytes in
            guard let base = bytes.baseAddress else { return }
            _ = unsafe System.read(descriptor.rawValue, base, bytes.count)
        }
        return count
    }
}
