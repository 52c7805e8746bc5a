internal import Glibc
internal import Synchronization

/// Ctrl-C, a hang-up and SIGTERM end the work in hand but not the cleaning up after it.
enum Interrupt {
    /// The signal that came, or 0.
    private static let received = Atomic<Int32>(0)

    static var signal: Int32 { received.load(ordering: .relaxed) }

    /// Runs the body as a task that a signal cancels.
    static func watching<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws
        -> Value
    {
        install()
        let work = Task { try await body() }
        let watch = Task {
            // A handler can do no more than set a number; a tenth of a second is not felt.
            while signal == 0 { try await Task.sleep(for: .milliseconds(100)) }
            work.cancel()
        }
        defer { watch.cancel() }
        return try await work.value
    }

    private static func install() {
        // Made now: a handler must not be the first to use it.
        _ = signal
        for number in [SIGINT, SIGTERM, SIGHUP] {
            _ = Glibc.signal(number) { Interrupt.received.store($0, ordering: .relaxed) }
        }
        // `vgw-bench | head` must not leave namespaces behind.
        _ = Glibc.signal(SIGPIPE, SIG_IGN)
    }
}
