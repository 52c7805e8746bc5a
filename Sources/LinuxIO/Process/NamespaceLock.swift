internal import Glibc

/// Held by one process of the calling thread's network namespace at a time. The kernel lets it go when the process ends.
///
/// Nobody can keep a process from starting by it: whoever has waited for two seconds goes on without.
package struct NamespaceLock: ~Copyable {
    private static let attempts = 20
    private static let pause: Int32 = 100

    private let file: FileDescriptor?

    package init() {
        let path = "/proc/thread-self/ns/net"
        guard let file = try? System.open(path, O_RDONLY) else {
            self.file = nil
            return
        }
        for _ in 1...Self.attempts {
            if (try? System.flock(file.rawValue, LOCK_EX | LOCK_NB, path)) != nil { break }
            System.pause(milliseconds: Self.pause)
        }
        self.file = consume file
    }

    package consuming func release() {}
}
