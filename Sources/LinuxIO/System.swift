internal import CLinux
internal import Glibc
internal import WireGuard

/// The system calls of this target that can be interrupted or fail, with EINTR and errno handled once.
///
/// Two forms: those of the packet path return the value or minus errno and never throw; the others throw
/// `SystemError`. EINTR gets out of neither, except that `poll` and `epoll_wait` count it as nothing ready,
/// so that their caller looks at its deadline again.
enum System {
    /// The value of `body`, or minus errno.
    @inline(__always)
    static func attempt(_ body: () -> Int) -> Int {
        while true {
            let result = body()
            if result >= 0 { return result }
            let code = errno
            if code != EINTR { return -Int(code) }
        }
    }

    @discardableResult
    static func check(_ call: @autoclosure () -> String, _ body: () -> Int) throws(SystemError) -> Int {
        let result = attempt(body)
        if result < 0 { throw SystemError(call: call(), code: Int32(-result)) }
        return result
    }

    /// Not retried on EINTR: Linux has closed the descriptor by then, and the number may be another's.
    static func close(_ fd: Int32) { _ = Glibc.close(fd) }

    // MARK: The packet path

    @inline(__always)
    static func sendmsg(_ fd: Int32, _ message: UnsafePointer<msghdr>) -> Int {
        attempt { unsafe Glibc.sendmsg(fd, message, Int32(MSG_DONTWAIT | MSG_NOSIGNAL)) }
    }

    @inline(__always)
    static func recvmmsg(_ fd: Int32, _ messages: UnsafeMutablePointer<cl_mmsghdr>, _ count: Int) -> Int {
        attempt { unsafe Int(cl_recvmmsg(fd, messages, UInt32(count), Int32(MSG_DONTWAIT))) }
    }

    @inline(__always)
    static func read(_ fd: Int32, _ bytes: UnsafeMutableRawPointer, _ count: Int) -> Int {
        attempt { unsafe Glibc.read(fd, bytes, count) }
    }

    @inline(__always)
    static func write(_ fd: Int32, _ bytes: UnsafeRawPointer, _ count: Int) -> Int {
        attempt { unsafe Glibc.write(fd, bytes, count) }
    }

    @inline(__always)
    static func writev(_ fd: Int32, _ slices: UnsafePointer<iovec>, _ count: Int) -> Int {
        attempt { unsafe Glibc.writev(fd, slices, Int32(truncatingIfNeeded: count)) }
    }

    /// Descriptors ready, 0 after the timeout or a signal, or minus errno. A negative timeout waits for ever.
    static func poll(_ set: UnsafeMutablePointer<pollfd>?, _ count: Int, milliseconds: Int32) -> Int {
        let result = unsafe Glibc.poll(set, UInt(count), milliseconds)
        if result >= 0 { return Int(result) }
        return errno == EINTR ? 0 : -Int(errno)
    }

    static func pause(milliseconds: Int32) { _ = unsafe poll(nil, 0, milliseconds: milliseconds) }

    /// Milliseconds for poll and epoll_wait, rounded up so that no timer is looked at too early; nil is -1.
    static func milliseconds(_ timeout: Duration?) -> Int32 {
        guard let timeout else { return -1 }
        let (seconds, attoseconds) = timeout.components
        if seconds < 0 || (seconds == 0 && attoseconds <= 0) { return 0 }
        if seconds >= 86_400 { return 86_400_000 }
        return Int32(seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }

    // MARK: Descriptors and files

    static func open(_ path: String, _ flags: Int32, mode: UInt32 = 0) throws(SystemError) -> FileDescriptor {
        let fd = try check("open \(path)") { unsafe Int(Glibc.open(path, flags | O_CLOEXEC, mode)) }
        return FileDescriptor(owning: Int32(fd))
    }

    static func setNonblocking(_ fd: Int32) throws(SystemError) {
        let flags = try check("fcntl F_GETFL") { Int(fcntl(fd, F_GETFL)) }
        try check("fcntl F_SETFL") { Int(fcntl(fd, F_SETFL, Int32(flags) | O_NONBLOCK)) }
    }

    static func setCloseOnExec(_ fd: Int32) throws(SystemError) {
        try check("fcntl F_SETFD") { Int(fcntl(fd, F_SETFD, FD_CLOEXEC)) }
    }

    static func status(_ fd: Int32, _ call: @autoclosure () -> String) throws(SystemError) -> stat {
        var status = Glibc.stat()
        try check(call()) { unsafe Int(fstat(fd, &status)) }
        return status
    }

    /// Looks at the path itself, or at what a symbolic link there names; nil when there is nothing.
    static func status(path: String, followsLinks: Bool = false) -> stat? {
        var status = Glibc.stat()
        let result = attempt { unsafe Int(followsLinks ? stat(path, &status) : lstat(path, &status)) }
        return result < 0 ? nil : status
    }

    static func fchmod(_ fd: Int32, _ mode: UInt32) throws(SystemError) {
        try check("fchmod \(String(mode, radix: 8))") { Int(Glibc.fchmod(fd, mode)) }
    }

    static func chmod(_ path: String, _ mode: UInt32) throws(SystemError) {
        try check("chmod \(path)") { unsafe Int(Glibc.chmod(path, mode)) }
    }

    static func chown(_ path: String, group: UInt32) throws(SystemError) {
        try check("chown \(path)") { unsafe Int(Glibc.chown(path, uid_t.max, group)) }
    }

    static func flock(_ fd: Int32, _ operation: Int32, _ path: String) throws(SystemError) {
        try check("flock \(path)") { Int(cl_flock(fd, operation)) }
    }

    static func truncate(_ fd: Int32, _ path: String) throws(SystemError) {
        try check("ftruncate \(path)") { Int(Glibc.ftruncate(fd, 0)) }
    }

    static func fsync(_ fd: Int32, _ path: String) throws(SystemError) {
        try check("fsync \(path)") { Int(Glibc.fsync(fd)) }
    }

    static func rename(_ from: String, _ to: String) throws(SystemError) {
        try check("rename \(from) to \(to)") { unsafe Int(Glibc.rename(from, to)) }
    }

    /// A second name. EEXIST when there is something at `to`.
    static func link(_ from: String, _ to: String) throws(SystemError) {
        try check("link \(from) to \(to)") { unsafe Int(Glibc.link(from, to)) }
    }

    static func unlink(_ path: String) throws(SystemError) {
        try check("unlink \(path)") { unsafe Int(Glibc.unlink(path)) }
    }

    static func mkdir(_ path: String, _ mode: UInt32) throws(SystemError) {
        try check("mkdir \(path)") { unsafe Int(Glibc.mkdir(path, mode)) }
    }

    // MARK: Sockets

    static func socket(
        _ family: Int32, _ type: __socket_type, protocol number: Int32 = 0, _ call: String
    ) throws(SystemError) -> FileDescriptor {
        let flags = Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        return FileDescriptor(
            owning: Int32(
                try check(call) { Int(Glibc.socket(family, Int32(type.rawValue) | flags, number)) }))
    }

    static func setOption(
        _ fd: Int32, _ level: Int32, _ option: Int32, _ value: Int32, _ call: @autoclosure () -> String
    ) throws(SystemError) {
        try check(call()) {
            unsafe withUnsafeBytes(of: value) { bytes in
                unsafe Int(setsockopt(fd, level, option, bytes.baseAddress, socklen_t(bytes.count)))
            }
        }
    }

    static func setOption(
        _ fd: Int32, _ level: Int32, _ option: Int32, _ value: String, _ call: @autoclosure () -> String
    ) throws(SystemError) {
        let bytes = Array(value.utf8)
        try check(call()) { unsafe Int(setsockopt(fd, level, option, bytes, socklen_t(bytes.count))) }
    }

    /// A receive call that finds nothing ends with EAGAIN then.
    static func setReceiveTimeout(_ fd: Int32, milliseconds: Int) throws(SystemError) {
        var time = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
        _ = try check("SO_RCVTIMEO") {
            unsafe Int(
                setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size)))
        }
    }

    /// Empties the socket's receive queue.
    static func discardReceived(_ fd: Int32) {
        var byte: UInt8 = 0
        while true {
            let result = attempt { unsafe Glibc.recv(fd, &byte, 1, Int32(MSG_DONTWAIT)) }
            guard result >= 0 || Int32(-result) == ENOBUFS else { return }
        }
    }

    static func attachSteering(_ fd: Int32, _ program: [cl_sock_filter]) throws(SystemError) {
        try check("steer datagrams among the sockets of a port") {
            Int(unsafe cl_attach_filter(fd, CL_SO_ATTACH_REUSEPORT_CBPF, program, UInt16(program.count)))
        }
    }

    /// The program's result is how many bytes of a packet are received; 0 drops it.
    static func attachFilter(_ fd: Int32, _ program: [cl_sock_filter]) throws(SystemError) {
        try check("filter what a socket receives") {
            Int(unsafe cl_attach_filter(fd, CL_SO_ATTACH_FILTER, program, UInt16(program.count)))
        }
    }

    /// The share of a socket's receive buffer in use, 0 to 1, and the datagrams that found it full.
    static func receiveQueue(_ fd: Int32) -> (fill: Double, drops: UInt64) {
        var used: UInt32 = 0
        var size: UInt32 = 0
        var drops: UInt32 = 0
        guard unsafe cl_receive_queue(fd, &used, &size, &drops) == 0, size > 0 else { return (0, 0) }
        return (Double(used) / Double(size), UInt64(drops))
    }

    /// Nil where the kernel does not know the option.
    static func option(_ fd: Int32, _ level: Int32, _ option: Int32) -> Int32? {
        var value: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        return attempt { unsafe Int(getsockopt(fd, level, option, &value, &size)) } < 0 ? nil : value
    }
}

extension System {
    static func bind(_ fd: Int32, to endpoint: Endpoint) throws(SystemError) {
        try check("bind UDP \(endpoint)") {
            unsafe withUnsafeTemporaryAllocation(byteCount: DatagramAddress.capacity, alignment: 8) { name in
                guard let base = name.baseAddress else { return -1 }
                let length = unsafe DatagramAddress.write(endpoint, to: base)
                return unsafe Int(
                    Glibc.bind(fd, base.assumingMemoryBound(to: sockaddr.self), socklen_t(length)))
            }
        }
    }

    /// Where an IPv4 or IPv6 socket is bound.
    static func localEndpoint(_ fd: Int32) throws(SystemError) -> Endpoint {
        var name = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        try check("getsockname") {
            unsafe withUnsafeMutableBytes(of: &name) { bytes in
                guard let base = bytes.baseAddress else { return -1 }
                return unsafe Int(getsockname(fd, base.assumingMemoryBound(to: sockaddr.self), &length))
            }
        }
        return unsafe withUnsafeBytes(of: name) { bytes in
            guard let base = bytes.baseAddress else { return Endpoint(address: .any(.v4), port: 0) }
            return unsafe DatagramAddress.read(base)
        }
    }
}

// MARK: Netlink without libnl

extension System {
    static func bindNetlink(_ fd: Int32, groups: UInt32, _ call: String) throws(SystemError) {
        try check(call) { Int(cl_netlink_bind(fd, groups)) }
    }

    enum NetlinkArrival {
        case nothing
        /// `sender` is 0 for the kernel.
        case message([UInt8], sender: UInt32)
        /// Messages were lost for want of room.
        case overflow
    }

    /// One message of a nonblocking socket, at most 8 KiB of it.
    static func receiveNetlink(_ fd: Int32) -> NetlinkArrival {
        var bytes = [UInt8](repeating: 0, count: 8192)
        var sender: UInt32 = 0
        let count = attempt { unsafe cl_netlink_receive(fd, &bytes, bytes.count, &sender) }
        if count == -Int(ENOBUFS) { return .overflow }
        guard count >= 0 else { return .nothing }
        return .message(Array(bytes.prefix(count)), sender: sender)
    }
}

// MARK: Folders

extension System {
    /// Names in a folder, without "." and ".."; none where it cannot be read.
    static func entries(of folder: String) -> [String] {
        guard let stream = unsafe opendir(folder) else { return [] }
        defer { _ = unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { name in
                unsafe name.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// Where a symbolic link leads; nil where it cannot be read, or is longer than 255 bytes.
    static func linkTarget(_ path: String) -> String? {
        var buffer = [CChar](repeating: 0, count: 256)
        let count = unsafe readlink(path, &buffer, buffer.count)
        guard count >= 0, count < buffer.count else { return nil }
        return text(buffer)
    }
}

// MARK: TUN ioctls

extension System {
    /// The name given.
    static func attachTun(_ fd: Int32, _ name: String, flags: Int32) throws(SystemError) -> String {
        var buffer = Array(name.utf8.prefix(15).map { CChar(bitPattern: $0) })
        buffer += [CChar](repeating: 0, count: 16 - buffer.count)
        try check("make TUN device \(name)") { unsafe Int(cl_tun_attach(fd, &buffer, flags)) }
        return text(buffer)
    }

    /// EBADFD once the device is deleted.
    static func inspectTun(_ fd: Int32) throws(SystemError) -> (name: String, flags: Int32) {
        var buffer = [CChar](repeating: 0, count: 16)
        var flags: Int32 = 0
        try check("TUNGETIFF") { unsafe Int(cl_tun_inspect(fd, &buffer, &flags)) }
        return (text(buffer), flags)
    }

    static func setTunHeaderSize(_ fd: Int32, _ size: Int32) throws(SystemError) {
        try check("TUNSETVNETHDRSZ") { Int(cl_tun_set_header_size(fd, size)) }
    }

    static func setTunOffload(_ fd: Int32, _ flags: UInt32) -> Bool {
        attempt { Int(cl_tun_set_offload(fd, flags)) } >= 0
    }

    /// Inode of the network namespace that the device is in; nil where the kernel cannot tell.
    static func tunNamespace(_ fd: Int32) -> UInt64? {
        let raw = attempt { Int(cl_tun_namespace(fd)) }
        guard raw >= 0 else { return nil }
        let descriptor = FileDescriptor(owning: Int32(raw))
        return (try? status(descriptor.rawValue, "fstat")).map { UInt64($0.st_ino) }
    }

    /// Inode of the calling thread's network namespace.
    static func ownNamespace() -> UInt64? {
        guard let descriptor = try? open("/proc/thread-self/ns/net", O_RDONLY) else { return nil }
        return (try? status(descriptor.rawValue, "fstat")).map { UInt64($0.st_ino) }
    }

    private static func text(_ buffer: [CChar]) -> String {
        String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

// MARK: Unix sockets

extension System {
    static func bindUnix(_ fd: Int32, _ path: String) throws(SystemError) {
        try unsafe withUnixAddress("bind \(path)", path) { name, length in
            unsafe Int(Glibc.bind(fd, name, length))
        }
    }

    static func connectUnix(_ fd: Int32, _ path: String) throws(SystemError) {
        try unsafe withUnixAddress("connect \(path)", path) { name, length in
            unsafe Int(Glibc.connect(fd, name, length))
        }
    }

    /// The path that a Unix socket is bound to; nil for one without a name, or with one that is not a path.
    static func unixPath(_ fd: Int32) -> String? {
        var address = sockaddr_un()
        var size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let result = unsafe withUnsafeMutablePointer(to: &address) { address in
            unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe Int(getsockname(fd, address, &size))
            }
        }
        guard result == 0, address.sun_family == sa_family_t(AF_UNIX) else { return nil }
        let bytes = unsafe withUnsafeBytes(of: address.sun_path) { unsafe Array($0.prefix { $0 != 0 }) }
        return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
    }

    static func listen(_ fd: Int32, _ backlog: Int32, _ path: String) throws(SystemError) {
        try check("listen \(path)") { Int(Glibc.listen(fd, backlog)) }
    }

    /// A peer that is gone is EPIPE, never a signal.
    static func sendStream(_ fd: Int32, _ bytes: UnsafeRawBufferPointer) -> Int {
        attempt { unsafe send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL)) }
    }

    private static func withUnixAddress(
        _ call: String, _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int
    ) throws(SystemError) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path), !bytes.contains(0) else {
            throw SystemError(call: call, code: ENAMETOOLONG)
        }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        try check(call) {
            unsafe withUnsafePointer(to: address) { address in
                unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                    unsafe body(name, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
        }
    }
}

// MARK: Programs

extension System {
    struct Pipe: ~Copyable {
        let reading: FileDescriptor
        let writing: FileDescriptor
    }

    /// Neither end is one of the standard three, whatever was closed before: those are for the child.
    static func pipe() throws(SystemError) -> Pipe {
        var ends: [Int32] = [0, 0]
        try check("pipe") { unsafe Int(cl_pipe(&ends)) }
        let reading = FileDescriptor(owning: ends[0])
        let writing = FileDescriptor(owning: ends[1])
        return Pipe(reading: try moved(past: 2, reading), writing: try moved(past: 2, writing))
    }

    private static func moved(
        past last: Int32, _ descriptor: consuming FileDescriptor
    ) throws(SystemError) -> FileDescriptor {
        let raw = descriptor.rawValue
        if raw > last { return descriptor }
        return FileDescriptor(
            owning: Int32(try check("fcntl F_DUPFD") { Int(fcntl(raw, F_DUPFD_CLOEXEC, last + 1)) }))
    }

    /// The number of the process. `call` is for the error.
    static func spawn(
        _ path: String, _ call: String, _ actions: UnsafePointer<posix_spawn_file_actions_t>,
        _ attributes: UnsafePointer<posix_spawnattr_t>, arguments: [String], environment: [String]
    ) throws(SystemError) -> pid_t {
        func copies(_ texts: [String]) -> [UnsafeMutablePointer<CChar>?] {
            unsafe texts.map { unsafe strdup($0) } + [nil]
        }
        let argv = unsafe copies(arguments)
        let envp = unsafe copies(environment)
        defer { unsafe (argv + envp).forEach { unsafe free($0) } }
        var process = pid_t()
        let code = unsafe posix_spawn(&process, path, actions, attributes, argv, envp)
        guard code == 0 else { throw SystemError(call: call, code: code) }
        return process
    }
}
