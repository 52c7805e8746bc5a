internal import CLinux
internal import Glibc
internal import Synchronization

/// The users and groups of this host.
package enum Users {
    /// The one that this process runs as.
    package static var current: UInt32 { geteuid() }

    /// Nil if there is none of that name.
    package static func user(named name: String) -> UInt32? { fileUser(named: name)?.user }

    /// Nil if there is none of that number.
    package static func name(of user: UInt32) -> String? {
        unsafe withUnsafeTemporaryAllocation(byteCount: scratchSize, alignment: 16) { scratch in
            var entry = unsafe passwd()
            var found: UnsafeMutablePointer<passwd>?
            let text = unsafe scratch.baseAddress?.assumingMemoryBound(to: CChar.self)
            guard let text = unsafe text, unsafe getpwuid_r(user, &entry, text, scratchSize, &found) == 0,
                unsafe found != nil, let name = unsafe entry.pw_name
            else { return nil }
            return unsafe String(cString: name)
        }
    }

    package static func group(named name: String) -> UInt32? {
        unsafe withUnsafeTemporaryAllocation(byteCount: scratchSize, alignment: 16) { scratch in
            var entry = unsafe Glibc.group()
            var found: UnsafeMutablePointer<Glibc.group>?
            let text = unsafe scratch.baseAddress?.assumingMemoryBound(to: CChar.self)
            guard let text = unsafe text, unsafe getgrnam_r(name, &entry, text, scratchSize, &found) == 0,
                unsafe found != nil
            else { return nil }
            return unsafe entry.gr_gid
        }
    }

    /// The one who opens files, with all of his groups; nil if there is none of that name.
    static func fileUser(named name: String) -> (user: UInt32, groups: [UInt32])? {
        unsafe withUnsafeTemporaryAllocation(byteCount: scratchSize, alignment: 16) { scratch in
            var entry = unsafe passwd()
            var found: UnsafeMutablePointer<passwd>?
            let text = unsafe scratch.baseAddress?.assumingMemoryBound(to: CChar.self)
            guard let text = unsafe text, unsafe getpwnam_r(name, &entry, text, scratchSize, &found) == 0,
                unsafe found != nil
            else { return nil }
            var groups = [gid_t](repeating: 0, count: groupLimit)
            var count = Int32(groupLimit)
            let own = unsafe entry.pw_gid
            guard unsafe getgrouplist(name, own, &groups, &count) >= 0 else { return nil }
            // The first is the one that the user's own line names.
            let others = groups[..<Int(count)].filter { $0 != own }
            return unsafe (entry.pw_uid, [own] + others)
        }
    }

    /// NGROUPS_MAX of limits.h.
    private static let groupLimit = 65536
    /// More than any line of /etc/passwd and /etc/group that is ours to find.
    private static let scratchSize = 16384
}

/// Whether files could be opened, as the kernel answers for whoever opens them on this thread.
package enum FileAccess: Int32, Sendable {
    // R_OK, W_OK and X_OK of access(2).
    case read = 4
    case write = 2
    case execute = 1

    /// Nil if it is given; else why not, ENOENT where there is nothing.
    package func refusal(at path: String) -> SystemError? {
        do throws(SystemError) {
            // Without the flag it is the real user who is asked for.
            try System.check("access \(path)") {
                unsafe Int(faccessat(AT_FDCWD, path, rawValue, AT_EACCESS))
            }
            return nil
        } catch {
            return error
        }
    }

    /// The first folder on the way to a path that may not be entered, from the root on.
    package static func closedFolder(before path: String) -> String? {
        var end = path.startIndex
        while let slash = path[end...].firstIndex(of: "/") {
            let folder = slash == path.startIndex ? "/" : String(path[..<slash])
            if FileAccess.execute.refusal(at: folder)?.code == EACCES { return folder }
            end = path.index(after: slash)
        }
        return nil
    }
}

private final class FileUserOutcome<Result: Sendable>: Sendable {
    let value = Mutex<(result: Result?, code: Int32)>((nil, 0))
}

extension Users {
    /// Runs `body` where files are opened as another user, with all of his groups and none of root's rights over files:
    /// on a thread of its own, as Linux keeps for each thread who opens files (setfsuid). All else, such as what netlink
    /// tells, is as for this process. Only root may; nil if there is no such user.
    package static func asFileUser<Result: Sendable>(
        _ name: String, _ body: @escaping @Sendable () -> Result
    ) throws(SystemError) -> Result? {
        guard let (user, groups) = fileUser(named: name) else { return nil }
        let outcome = FileUserOutcome<Result>()
        let thread = try Thread.spawn(name: "files of \(name)", stackSize: 8 << 20) {
            let code = System.attempt {
                unsafe Int(cl_take_file_user(user, groups[0], groups, groups.count))
            }
            let result = code < 0 ? nil : body()
            outcome.value.withLock { $0 = (result, Int32(max(0, -code))) }
        }
        thread.join()
        let (result, code) = outcome.value.withLock { $0 }
        guard let result else { throw SystemError(call: "open files as user \(name)", code: code) }
        return result
    }
}
