internal import Glibc

/// How many descriptors the process may have (RLIMIT_NOFILE).
package enum DescriptorLimit {
    /// Past this, more would only cost memory.
    private static let enough: rlim_t = 65_536

    /// Raises the limit as far as it may be; what it is then.
    package static func raise() -> Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        let wanted = min(limit.rlim_max, enough)
        if limit.rlim_cur < wanted {
            let before = limit.rlim_cur
            limit.rlim_cur = wanted
            if unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) != 0 {
                limit.rlim_cur = before
            }
        }
        return Int(min(limit.rlim_cur, enough))
    }

    /// Descriptors below `limit` that are open by now, passed on by whoever started the process among them.
    package static func used(below limit: Int) -> Int {
        (0..<Int32(clamping: limit)).count { fcntl($0, F_GETFD) >= 0 }
    }
}
