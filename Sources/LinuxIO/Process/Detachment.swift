internal import CLinux
internal import Glibc

/// A second process of the same program in the background: `fork` alone is unsafe once there are threads, so
/// the program is executed anew, and says through a pipe when it is ready, or why it will not be.
package enum Detachment {
    package enum Outcome: Hashable, Sendable {
        case ready
        /// The second process has ended, or is about to. `reason` is what it said; nil where it was silent.
        case failed(reason: String?)
    }

    /// What comes before a reason is not needed: nothing that is said begins with it.
    private static let readyByte: UInt8 = 1
    private static let reasonLimit = 4096

    /// Starts `arguments` (the first is the program's name; the running executable is what is executed) in a
    /// session of its own, and waits. The descriptor to report on is the value of `variable` in its
    /// environment.
    package static func start(
        arguments: [String], environment: [String: String], variable: String, keepsOutput: Bool
    ) throws(SystemError) -> Outcome {
        var ends: [Int32] = [0, 0]
        try System.check("pipe") { unsafe Int(pipe(&ends)) }
        let reading = FileDescriptor(owning: ends[0])
        let writing = FileDescriptor(owning: ends[1])
        try System.setCloseOnExec(reading.rawValue)

        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0)
        if !keepsOutput {
            unsafe posix_spawn_file_actions_adddup2(&actions, 0, 1)
            unsafe posix_spawn_file_actions_adddup2(&actions, 0, 2)
        }
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        let newSession: Int16 = 0x80  // POSIX_SPAWN_SETSID, which Glibc hides from Swift
        unsafe posix_spawnattr_setflags(&attributes, newSession)

        var variables = environment
        variables[variable] = String(writing.rawValue)
        _ = try unsafe System.spawn(
            "/proc/self/exe", "start in the background", &actions, &attributes, arguments: arguments,
            environment: variables.map { "\($0.key)=\($0.value)" })

        _ = consume writing
        return outcome(reading)
    }

    /// Reads until the first byte says that the second process is ready, or until it has no more to say.
    private static func outcome(_ pipe: borrowing FileDescriptor) -> Outcome {
        var said: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1024)
        while said.count < reasonLimit {
            let count = unsafe chunk.withUnsafeMutableBytes { chunk in
                guard let base = chunk.baseAddress else { return 0 }
                return unsafe System.read(pipe.rawValue, base, chunk.count)
            }
            guard count > 0 else { break }
            said += chunk[..<count]
            if said.first == readyByte { return .ready }
        }
        return .failed(reason: said.isEmpty ? nil : String(decoding: said, as: UTF8.self))
    }

    /// In the second process, from its first thread, once it is ready.
    package static func reportReady(_ descriptor: Int32) {
        // It was executed as /proc/self/exe, and `ps` and `pgrep` would know it as `exe`.
        _ = unsafe cl_set_thread_name("vgwd")
        report([readyByte], on: descriptor)
    }

    /// In the second process, when it ends before it was ready.
    package static func reportFailure(_ reason: String, on descriptor: Int32) {
        report(Array(reason.utf8.prefix(reasonLimit)), on: descriptor)
    }

    private static func report(_ bytes: [UInt8], on descriptor: Int32) {
        let owned = FileDescriptor(owning: descriptor)
        _ = StandardError.write(bytes, to: owned.rawValue)
    }
}
