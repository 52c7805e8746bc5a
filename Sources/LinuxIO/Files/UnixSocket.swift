internal import CLinux
internal import Glibc

/// A listening Unix stream socket at a path, as the `wg` program expects one.
package struct UnixListener: ~Copyable, Sendable {
    package let path: String
    private let descriptor: FileDescriptor
    private let identity: FileIdentity
    /// Given up for a moment when descriptors run out, so that the waiting client can be turned away: else it
    /// would stay in the queue, and the socket would poll as readable for ever.
    private var spare: FileDescriptor?

    package var fd: Int32 { descriptor.rawValue }

    /// A socket file that nobody answers at is replaced; one that is answered is EADDRINUSE, and what is no socket is
    /// EEXIST and stays.
    ///
    /// The file has its name only once the socket listens and has its mode: `wg` removes one that refuses it.
    package init(path: String, mode: UInt32 = 0o600, backlog: Int32 = 16) throws(SystemError) {
        let hidden = AtomicFile.hidden(path)
        try Self.removeStale(path)
        try Self.removeStale(hidden)
        let descriptor = try System.socket(AF_UNIX, SOCK_STREAM, "socket unix")
        do throws(SystemError) {
            // Linux gives the file the mode of the socket, less the umask.
            try System.fchmod(descriptor.rawValue, mode)
            try System.bindUnix(descriptor.rawValue, hidden)
            defer { try? System.unlink(hidden) }
            try System.chmod(hidden, mode)
            try System.listen(descriptor.rawValue, backlog, hidden)
            identity = try Self.publish(hidden, as: path)
        } catch {
            throw SystemError(call: "bind \(path)", code: error.code)
        }
        self.path = path
        self.descriptor = descriptor
        spare = try? System.open("/dev/null", O_RDONLY)
    }

    /// The name beside `path` that a socket has until it listens; each of a process has one of its own.
    package static func hidden(_ path: String, generation: Int) -> String {
        "\(AtomicFile.hidden(path))\(generation)"
    }

    /// Moves a socket that listens to its name. EADDRINUSE where something is there: it stays.
    package static func publish(_ hidden: String, as path: String) throws(SystemError) -> FileIdentity {
        defer { try? System.unlink(hidden) }
        guard let identity = FileIdentity(path: hidden) else {
            throw SystemError(call: "stat \(hidden)", code: ENOENT)
        }
        do throws(SystemError) {
            // Unlike a renaming, it does not take the place of one that has come meanwhile.
            try System.link(hidden, path)
        } catch {
            throw SystemError(call: "bind \(path)", code: error.code == EEXIST ? EADDRINUSE : error.code)
        }
        return identity
    }

    /// Takes over a listening socket that another program opened (WG_UAPI_FD).
    package init(adopting fd: Int32) throws(SystemError) {
        let descriptor = FileDescriptor(owning: fd)
        try System.setNonblocking(fd)
        try System.setCloseOnExec(fd)
        guard let path = System.unixPath(fd), let status = System.status(path: path) else {
            throw SystemError(call: "adopt descriptor \(fd) as a Unix socket", code: EINVAL)
        }
        self.path = path
        self.descriptor = descriptor
        identity = FileIdentity(status)
        spare = try? System.open("/dev/null", O_RDONLY)
    }

    /// Takes the file with it, if it is still ours.
    deinit {
        if isPresent { try? System.unlink(path) }
    }

    /// Whether the path still leads here: `wg-quick down` ends a daemon by removing the file.
    package var isPresent: Bool { FileIdentity(path: path) == identity }

    /// The next client, or nil when none waits. When descriptors have run out (EMFILE, ENFILE) the client is
    /// turned away before the error is thrown, so the caller may just go on.
    package mutating func accept() throws(SystemError) -> UnixStream? {
        let result = System.attempt { Int(cl_accept(descriptor.rawValue)) }
        if result >= 0 { return UnixStream(FileDescriptor(owning: Int32(result))) }
        switch Int32(-result) {
        case EAGAIN, ECONNABORTED: return nil
        case let code:
            if code == EMFILE || code == ENFILE {
                spare = nil
                let refused = System.attempt { Int(cl_accept(descriptor.rawValue)) }
                if refused >= 0 { System.close(Int32(refused)) }
                spare = try? System.open("/dev/null", O_RDONLY)
                // The kernel wants a descriptor before it looks whether anybody waits.
                if refused == -Int(EAGAIN) { return nil }
            }
            throw SystemError(call: "accept \(path)", code: code)
        }
    }

    /// Whether somebody listens at the path; a full queue is a living listener too.
    package static func isAnswered(path: String) -> Bool {
        guard let probe = try? System.socket(AF_UNIX, SOCK_STREAM, "socket unix") else { return false }
        do throws(SystemError) {
            try System.connectUnix(probe.rawValue, path)
            return true
        } catch {
            return error.code == EAGAIN
        }
    }

    /// Makes room for a socket: one that nobody answers at is removed. One that is answered is EADDRINUSE; what is no
    /// socket is EEXIST, and stays.
    package static func removeStale(_ path: String) throws(SystemError) {
        guard let status = System.status(path: path) else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw SystemError(call: "bind \(path), where something is that is no socket", code: EEXIST)
        }
        let probe = try System.socket(AF_UNIX, SOCK_STREAM, "socket unix")
        do throws(SystemError) {
            try System.connectUnix(probe.rawValue, path)
        } catch {
            switch error.code {
            case ENOENT: return
            case ECONNREFUSED: return try AtomicFile.remove(path)
            // A full queue is a living listener.
            case EAGAIN: break
            default: throw error
            }
        }
        throw SystemError(call: "bind \(path)", code: EADDRINUSE)
    }
}

/// One client of a Unix socket, nonblocking.
package struct UnixStream: ~Copyable, Sendable {
    package enum ReadOutcome: Hashable, Sendable {
        case bytes(Int)
        case wouldBlock
        /// The end of the stream, or a connection that broke.
        case closed
    }

    package struct Credentials: Hashable, Sendable {
        package let process: UInt32
        package let user: UInt32
    }

    private let descriptor: FileDescriptor

    package var fd: Int32 { descriptor.rawValue }

    init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }

    package static func connect(path: String) throws(SystemError) -> UnixStream {
        let descriptor = try System.socket(AF_UNIX, SOCK_STREAM, "socket unix")
        try System.connectUnix(descriptor.rawValue, path)
        return UnixStream(descriptor)
    }

    /// Appends at most `limit` bytes.
    package func read(into bytes: inout [UInt8], limit: Int = 4096) -> ReadOutcome {
        let result = unsafe withUnsafeTemporaryAllocation(byteCount: min(limit, 65536), alignment: 1) {
            chunk in
            guard let base = chunk.baseAddress else { return -Int(EINVAL) }
            let count = unsafe System.read(descriptor.rawValue, base, chunk.count)
            if count > 0 {
                unsafe bytes.append(contentsOf: chunk[..<count])
                // It may have been a key.
                unsafe explicit_bzero(base, count)
            }
            return count
        }
        if result > 0 { return .bytes(result) }
        return result == -Int(EAGAIN) ? .wouldBlock : .closed
    }

    /// Bytes of the slice that the kernel took, 0 when it takes none now; nil when the connection is gone.
    package func write(_ bytes: ArraySlice<UInt8>) -> Int? {
        if bytes.isEmpty { return 0 }
        let result = unsafe bytes.withUnsafeBytes { bytes in
            unsafe System.sendStream(descriptor.rawValue, bytes)
        }
        if result >= 0 { return result }
        return result == -Int(EAGAIN) ? 0 : nil
    }

    /// Nothing more is written; the other end sees that, and may answer.
    package func finishWriting() { _ = shutdown(descriptor.rawValue, Int32(SHUT_WR)) }

    /// Who was at the other end when it connected (SO_PEERCRED).
    package var credentials: Credentials? {
        var (process, user, group) = (UInt32(0), UInt32(0), UInt32(0))
        let result = unsafe cl_peer_credentials(descriptor.rawValue, &process, &user, &group)
        return result == 0 ? Credentials(process: process, user: user) : nil
    }
}
