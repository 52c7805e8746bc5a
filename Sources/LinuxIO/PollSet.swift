internal import Glibc

/// The descriptors that a data thread waits on: its device or sockets, and the eventfd that stops it.
@safe package struct PollSet: ~Copyable {
    private var entries: UnsafeMutablePointer<pollfd>
    private var count: Int

    /// A negative descriptor is never ready. They must stay open while they are in the set.
    package init(_ fds: Int32...) { self.init(fds) }

    package init(_ fds: [Int32]) {
        count = fds.count
        unsafe entries = Self.entries(for: fds)
    }

    deinit { unsafe entries.deallocate() }

    private static func entries(for fds: [Int32]) -> UnsafeMutablePointer<pollfd> {
        let entries = UnsafeMutablePointer<pollfd>.allocate(capacity: fds.count)
        for (i, fd) in fds.enumerated() {
            unsafe (entries + i).initialize(to: pollfd(fd: fd, events: Int16(POLLIN), revents: 0))
        }
        return unsafe entries
    }

    /// Other descriptors in place of all; none of them is ready before the next `wait`.
    package mutating func replaceAll(with fds: [Int32]) {
        unsafe entries.deallocate()
        count = fds.count
        unsafe entries = Self.entries(for: fds)
    }

    /// Descriptors with something to tell; 0 after the timeout (nil waits for ever) or a signal. An error of
    /// poll itself is of the moment, for want of memory: it waits a millisecond and says 0.
    package mutating func wait(timeout: Duration?) -> Int {
        let ready = unsafe System.poll(entries, count, milliseconds: System.milliseconds(timeout))
        if ready < 0 {
            for i in 0..<count { unsafe entries[i].revents = 0 }
            System.pause(milliseconds: 1)
        }
        return max(ready, 0)
    }

    /// By the last `wait`: a read would not block, be it for data or for an error.
    package func isReadable(_ i: Int) -> Bool {
        precondition(i >= 0 && i < count)
        return unsafe entries[i].revents != 0
    }
}
