internal import CLinux
internal import Glibc

/// A second process of the same program in the background: `fork` alone is unsafe once there are threads, so
/// the program is executed anew, and says through a pipe when it is ready.
package enum Detachment {
    /// Starts `arguments` (the first is the program's name; the running executable is what is executed) in a
    /// session of its own, and waits. The descriptor to report on is the value of `variable` in its
    /// environment. True when it was ready; false when it ended without.
    package static func start(
        arguments: [String], environment: [String: String], variable: String, keepsOutput: Bool
    ) throws(SystemError) -> Bool {
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
        var byte: UInt8 = 0
        return System.attempt { unsafe Glibc.read(reading.rawValue, &byte, 1) } == 1
    }

    /// In the second process, from its first thread, once it is ready.
    package static func reportReady(_ descriptor: Int32) {
        // It was executed as /proc/self/exe, and `ps` and `pgrep` would know it as `exe`.
        _ = unsafe cl_set_thread_name("vgwd")
        let owned = FileDescriptor(owning: descriptor)
        var byte: UInt8 = 1
        _ = unsafe System.write(owned.rawValue, &byte, 1)
    }
}
