internal import Glibc
package import WireGuard

/// Files written whole or not at all, and files read with a limit.
package enum AtomicFile {
    /// Writes `.NAME.new` beside `path`, makes it durable, and renames it over `path`. Any failure leaves
    /// what was at `path` untouched. `mode` is given exactly, whatever the umask. What is no regular file, a link
    /// to one too, is not replaced (EEXIST): it is somebody else's.
    ///
    /// A writer that is killed leaves at most that one file, which the next writer takes over under its lock.
    package static func write(_ bytes: [UInt8], to path: String, mode: UInt32) throws(SystemError) {
        if let there = System.status(path: path), there.st_mode & S_IFMT != S_IFREG {
            throw SystemError(call: "replace \(path), which is no regular file", code: EEXIST)
        }
        let directory = split(path).directory
        let temporary = hidden(path)
        let file = try openLocked(temporary, mode)
        do throws(SystemError) {
            try System.fchmod(file.rawValue, mode)
            try System.truncate(file.rawValue, temporary)
            try writeAll(bytes, to: file.rawValue, temporary)
            try System.fsync(file.rawValue, temporary)
            try System.rename(temporary, path)
        } catch {
            try? System.unlink(temporary)
            throw error
        }
        // The rename is durable only with its directory.
        let parent = try System.open(directory, O_RDONLY | O_DIRECTORY)
        try System.fsync(parent.rawValue, directory)
    }

    /// At most `limit` bytes of a regular file, with its permission bits and owner; EFBIG past the limit.
    package static func read(
        _ path: String, limit: Int
    ) throws(SystemError) -> (bytes: [UInt8], mode: UInt32, owner: UInt32) {
        let file = try openToRead(path)
        let status = try regularStatus(file.rawValue, path)
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while true {
            let count = try System.check("read \(path)") {
                unsafe chunk.withUnsafeMutableBytes { chunk in
                    guard let base = chunk.baseAddress else { return 0 }
                    return unsafe Glibc.read(file.rawValue, base, chunk.count)
                }
            }
            if count == 0 { break }
            bytes += chunk[..<count]
            if bytes.count > limit { throw SystemError(call: "read \(path)", code: EFBIG) }
        }
        return (bytes, status.st_mode & 0o7777, status.st_uid)
    }

    /// The same for a file with a secret in it: its bytes are in locked memory and nowhere else. Zeros fill
    /// what the file leaves of it.
    package static func readSecret(
        _ path: String, limit: Int
    ) throws(SystemError) -> (bytes: SecretBytes, mode: UInt32, owner: UInt32) {
        let file = try openToRead(path)
        let status = try regularStatus(file.rawValue, path)
        var total = 0
        var result = 0
        let bytes = unsafe SecretBytes(count: limit + 1) { storage in
            repeat {
                result = unsafe System.read(file.rawValue, storage + total, limit + 1 - total)
                total += max(result, 0)
            } while result > 0
        }
        if result < 0 { throw SystemError(call: "read \(path)", code: Int32(-result)) }
        if total > limit { throw SystemError(call: "read \(path)", code: EFBIG) }
        return (bytes, status.st_mode & 0o7777, status.st_uid)
    }

    /// Without error when it is gone already.
    package static func remove(_ path: String) throws(SystemError) {
        do throws(SystemError) {
            try System.unlink(path)
        } catch {
            if error.code != ENOENT { throw error }
        }
    }

    /// One level; without error when a directory is there already. Where there is the `group`, whoever is in it may
    /// add to the directory too, and take away only what is his own (mode 1775).
    package static func makeDirectory(
        _ path: String, mode: UInt32, sharedWith group: String? = nil
    ) throws(SystemError) {
        do throws(SystemError) {
            try System.mkdir(path, mode)
            if let group, let number = Users.group(named: group) {
                try System.chown(path, group: number)
                try System.chmod(path, 0o1775)
            } else {
                try System.chmod(path, mode)
            }
        } catch {
            guard error.code == EEXIST, let there = FileStatus(path), there.kind == .directory else {
                throw error
            }
        }
    }

    /// Nonblocking so that a FIFO cannot hold us up before it is refused.
    private static func openToRead(_ path: String) throws(SystemError) -> FileDescriptor {
        try System.open(path, O_RDONLY | O_NONBLOCK)
    }

    private static func regularStatus(_ fd: Int32, _ path: String) throws(SystemError) -> stat {
        let status = try System.status(fd, "fstat \(path)")
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw SystemError(call: "read \(path)", code: EINVAL)
        }
        return status
    }

    /// The temporary file, locked, and surely the one that has the name: another writer may have renamed it
    /// away between our opening and our locking it.
    private static func openLocked(_ path: String, _ mode: UInt32) throws(SystemError) -> FileDescriptor {
        while true {
            let file = try System.open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, mode: mode)
            try System.flock(file.rawValue, LOCK_EX, path)
            let opened = try System.status(file.rawValue, "fstat \(path)")
            guard opened.st_mode & S_IFMT == S_IFREG else {
                throw SystemError(call: "replace \(path), which is no regular file", code: EEXIST)
            }
            if let named = System.status(path: path), named.st_ino == opened.st_ino,
                named.st_dev == opened.st_dev
            {
                return file
            }
        }
    }

    private static func writeAll(_ bytes: [UInt8], to fd: Int32, _ path: String) throws(SystemError) {
        var offset = 0
        while offset < bytes.count {
            offset += try System.check("write \(path)") {
                unsafe bytes.withUnsafeBytes { bytes in
                    guard let base = bytes.baseAddress else { return 0 }
                    return unsafe Glibc.write(fd, base + offset, bytes.count - offset)
                }
            }
        }
    }

    /// The name beside `path` that it has while it is not finished.
    static func hidden(_ path: String) -> String {
        let (directory, name) = split(path)
        return "\(directory)/.\(name).new"
    }

    private static func split(_ path: String) -> (directory: String, name: String) {
        guard let slash = path.lastIndex(of: "/") else { return (".", path) }
        let directory = path[..<slash]
        return (directory.isEmpty ? "/" : String(directory), String(path[path.index(after: slash)...]))
    }
}
