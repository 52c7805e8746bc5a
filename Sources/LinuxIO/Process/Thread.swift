internal import CLinux
internal import Glibc
internal import Synchronization

/// A thread of our own, with all signals blocked: those are for the control thread's SignalFD.
///
/// Concurrency: any thread may join, several times; the first waits and the others return when it is done.
package final class Thread: Sendable {
    private final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void

        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    private let handle: Mutex<pthread_t?>

    private init(_ handle: pthread_t) { self.handle = Mutex(handle) }

    /// `name` is cut to 15 bytes. The stack is in bytes.
    package static func spawn(
        name: String, stackSize: Int = 1 << 20, body: @escaping @Sendable () -> Void
    ) throws(SystemError) -> Thread {
        var attributes = pthread_attr_t()
        unsafe pthread_attr_init(&attributes)
        defer { unsafe pthread_attr_destroy(&attributes) }
        unsafe pthread_attr_setstacksize(&attributes, max(stackSize, 1 << 19))

        // A thread starts with the mask of the one that makes it.
        var all = sigset_t()
        var before = sigset_t()
        unsafe sigfillset(&all)
        unsafe pthread_sigmask(SIG_SETMASK, &all, &before)
        defer { unsafe pthread_sigmask(SIG_SETMASK, &before, nil) }

        let start = unsafe Unmanaged.passRetained(Start(name: name, body: body))
        var handle = pthread_t()
        let code = unsafe pthread_create(
            &handle, &attributes,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                _ = unsafe cl_set_thread_name(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        guard code == 0 else {
            unsafe start.release()
            throw SystemError(call: "pthread_create \(name)", code: code)
        }
        return Thread(handle)
    }

    /// Waits for the end of the body. Not from the body itself.
    package func join() {
        handle.withLock { handle in
            if let thread = handle { pthread_join(thread, nil) }
            handle = nil
        }
    }

    deinit {
        handle.withLock { handle in
            if let thread = handle { pthread_detach(thread) }
        }
    }
}
