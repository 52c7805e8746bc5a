internal import CLinux
internal import Glibc

/// Level-triggered epoll for the control loop. Each descriptor has a token of its owner's choosing.
@safe package struct Epoll: ~Copyable, Sendable {
    package struct Interest: OptionSet, Hashable, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }

        package static let readable = Interest(rawValue: 0x001)
        package static let writable = Interest(rawValue: 0x004)
    }

    package struct Event: Hashable, Sendable {
        package let token: UInt64
        package let events: Interest

        package init(token: UInt64, events: Interest) {
            self.token = token
            self.events = events
        }
    }

    private static let batch = 64
    private let descriptor: FileDescriptor

    package init() throws(SystemError) {
        descriptor = FileDescriptor(
            owning: Int32(try System.check("epoll_create1") { Int(cl_epoll_create()) }))
    }

    package func add(fd: Int32, token: UInt64, events: Interest = .readable) throws(SystemError) {
        let epoll = descriptor.rawValue
        try System.check("epoll add") { Int(cl_epoll_add(epoll, fd, events.rawValue, token)) }
    }

    package func modify(fd: Int32, token: UInt64, events: Interest) throws(SystemError) {
        let epoll = descriptor.rawValue
        try System.check("epoll modify") { Int(cl_epoll_modify(epoll, fd, events.rawValue, token)) }
    }

    /// Before the descriptor is closed; without error if it is not there.
    package func remove(fd: Int32) { _ = cl_epoll_remove(descriptor.rawValue, fd) }

    /// Up to 64 events; none after the timeout (nil waits for ever), or when a signal came in between.
    package func wait(timeout: Duration?) throws(SystemError) -> [Event] {
        let epoll = descriptor.rawValue
        let milliseconds = System.milliseconds(timeout)
        var failure: Int32 = 0
        let ready = unsafe withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Self.batch) { tokens in
            unsafe withUnsafeTemporaryAllocation(of: UInt32.self, capacity: Self.batch) { events in
                let count = unsafe cl_epoll_wait(
                    epoll, tokens.baseAddress, events.baseAddress, Int32(Self.batch), milliseconds)
                if count < 0 { failure = errno }
                return (0..<Int(max(count, 0))).map {
                    unsafe Event(token: tokens[$0], events: Interest(rawValue: events[$0]))
                }
            }
        }
        if failure != 0, failure != EINTR { throw SystemError(call: "epoll_wait", code: failure) }
        return ready
    }
}
