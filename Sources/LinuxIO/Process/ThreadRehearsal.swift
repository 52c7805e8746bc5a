internal import CLinux
internal import Glibc

/// Finds out whether the process may have as many threads as it is going to need, by having them for a moment.
///
/// Limits on threads (RLIMIT_NPROC, a cgroup's pids.max) and on address space (RLIMIT_AS) show only where they are met,
/// and libraries that make threads of their own end the process there.
package enum ThreadRehearsal {
    /// In bytes: with less, threads of the libraries run over its end.
    private static let leastStack = 1 << 20
    /// In bytes: what a thread gets whose maker does not say (RLIMIT_STACK).
    private static var stackSize: Int {
        var attributes = pthread_attr_t()
        unsafe pthread_attr_init(&attributes)
        defer { unsafe pthread_attr_destroy(&attributes) }
        var size = 0
        return unsafe pthread_attr_getstacksize(&attributes, &size) == 0 ? size : 8 << 20
    }

    /// Before any thread is made. Where address space is limited, threads must not reserve more of it than they use: they
    /// would take the room of the stacks that come later.
    package static func prepare() {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0,
            limit.rlim_cur != rlim_t.max
        else { return }
        cl_limit_arenas(1)
    }

    /// `count` threads at once, with stacks of the usual size, and `heap` bytes of address space beside them. Nothing of
    /// it is left when this returns.
    package static func run(threads count: Int, heap: Int) throws(SystemError) {
        let stackSize = stackSize
        guard stackSize >= leastStack else {
            throw SystemError(
                call: "make threads with \(stackSize) bytes of stack (ulimit -s), less than \(leastStack)",
                code: ENOMEM)
        }
        let gate = try EventFD()
        var threads: [Thread] = []
        defer {
            gate.signal()
            for thread in threads { thread.join() }
        }
        for _ in 0..<count {
            threads.append(
                try Thread.spawn(name: "vgwd-rehearsal", stackSize: stackSize) {
                    var open = PollSet(gate.fd)
                    while open.wait(timeout: nil) == 0 {}
                })
        }
        let space = unsafe mmap(nil, heap, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard unsafe space != MAP_FAILED else {
            throw SystemError(call: "reserve \(heap) bytes", code: errno)
        }
        unsafe munmap(space, heap)
    }
}
