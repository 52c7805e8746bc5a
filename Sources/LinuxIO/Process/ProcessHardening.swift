internal import CLinux
internal import Glibc

/// What a process that holds keys does once at its start.
package enum ProcessHardening {
    /// No core file, no debugger of the same user, no other user's look into `/proc` (PR_SET_DUMPABLE).
    package static func apply() {
        cl_set_undumpable()
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
    }
}
