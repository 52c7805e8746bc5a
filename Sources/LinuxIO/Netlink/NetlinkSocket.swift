internal import CLinux
internal import CNetlink
internal import Glibc

/// One netlink socket of libnl, with the kernel's own errno kept: libnl folds several into one of its own.
@safe struct NetlinkSocket: ~Copyable {
    let handle: OpaquePointer
    private let lastError: UnsafeMutablePointer<Int32>

    /// In the network namespace of the calling thread, for good.
    init(_ protocol: Int32 = NETLINK_ROUTE) throws(SystemError) {
        guard let handle = unsafe nl_socket_alloc() else {
            throw SystemError(call: "open netlink socket", code: ENOMEM)
        }
        let lastError = UnsafeMutablePointer<Int32>.allocate(capacity: 1)
        unsafe lastError.initialize(to: 0)
        let code = unsafe nl_connect(handle, `protocol`)
        guard code >= 0 else {
            unsafe nl_socket_free(handle)
            unsafe lastError.deallocate()
            throw SystemError(call: "open netlink socket", code: Self.errno(libnl: code))
        }
        unsafe self.handle = handle
        unsafe self.lastError = lastError
        unsafe nl_socket_modify_err_cb(handle, NL_CB_CUSTOM, keepError, lastError)
        // Dumps are filtered by the kernel instead of here: a router may hold a million routes that are not
        // ours.
        try? System.setOption(fd, CL_SOL_NETLINK, CL_NETLINK_GET_STRICT_CHK, 1, "NETLINK_GET_STRICT_CHK")
    }

    deinit {
        unsafe nl_socket_free(handle)
        unsafe lastError.deallocate()
    }

    var fd: Int32 { unsafe nl_socket_get_fd(handle) }
    /// No other socket of the namespace has it.
    var port: UInt32 { unsafe nl_socket_get_local_port(handle) }

    /// Runs a libnl call that returns 0 or more, or minus one of libnl's codes.
    @discardableResult
    func run(_ call: @autoclosure () -> String, _ body: (OpaquePointer) -> Int32) throws(SystemError) -> Int32
    {
        unsafe lastError.pointee = 0
        let result = unsafe body(handle)
        guard result < 0 else { return result }
        let code = unsafe lastError.pointee
        throw SystemError(call: call(), code: code != 0 ? code : Self.errno(libnl: result))
    }

    /// Sends `message` and waits for the kernel's verdict.
    func request(_ call: @autoclosure () -> String, _ message: borrowing NetlinkMessage) throws(SystemError) {
        try unsafe run(call()) { handle in
            let sent = unsafe nl_send_auto(handle, message.pointer)
            return sent < 0 ? sent : unsafe nl_wait_for_ack(handle)
        }
    }

    /// Sends `message` and gives each message of the answer to `body`. A dump that the kernel breaks off throws, also
    /// when some messages came before.
    func query(
        _ call: @autoclosure () -> String, _ message: borrowing NetlinkMessage, isDump: Bool,
        _ body: (OpaquePointer) -> Void
    ) throws(SystemError) {
        guard let callbacks = unsafe nl_cb_alloc(NL_CB_DEFAULT) else {
            throw SystemError(call: call(), code: ENOMEM)
        }
        defer { unsafe nl_cb_put(callbacks) }
        try unsafe withoutActuallyEscaping(body) { body throws(SystemError) in
            let receiver = unsafe NetlinkReceiver(body)
            unsafe nl_cb_set(
                callbacks, NL_CB_VALID, NL_CB_CUSTOM, giveToReceiver,
                Unmanaged.passUnretained(receiver).toOpaque())
            unsafe nl_cb_err(callbacks, NL_CB_CUSTOM, keepError, lastError)
            unsafe nl_cb_set(callbacks, NL_CB_FINISH, NL_CB_CUSTOM, keepDumpError, lastError)
            try unsafe run(call()) { handle in
                let sent = unsafe nl_send_auto(handle, message.pointer)
                if sent < 0 { return sent }
                let received = unsafe nl_recvmsgs(handle, callbacks)
                // A single answer is followed by an acknowledgement; a dump ends by itself.
                return received < 0 || isDump ? received : unsafe nl_wait_for_ack(handle)
            }
            unsafe receiver.body = { _ in }
        }
    }

    /// What waits on a subscribed, nonblocking socket: false when nothing does.
    func receive(_ body: (OpaquePointer) -> Void) throws(SystemError) -> Bool {
        guard let callbacks = unsafe nl_cb_alloc(NL_CB_DEFAULT) else {
            throw SystemError(call: "receive netlink events", code: ENOMEM)
        }
        defer { unsafe nl_cb_put(callbacks) }
        unsafe nl_cb_set(callbacks, NL_CB_SEQ_CHECK, NL_CB_CUSTOM, acceptAnything, nil)
        return try unsafe withoutActuallyEscaping(body) { body throws(SystemError) in
            let receiver = unsafe NetlinkReceiver(body)
            unsafe nl_cb_set(
                callbacks, NL_CB_VALID, NL_CB_CUSTOM, giveToReceiver,
                Unmanaged.passUnretained(receiver).toOpaque())
            defer { unsafe receiver.body = { _ in } }
            do throws(SystemError) {
                try unsafe run("receive netlink events") { handle in unsafe nl_recvmsgs(handle, callbacks) }
                return true
            } catch {
                if error.code == EAGAIN { return false }
                throw error
            }
        }
    }

    /// The nearest errno to a code of libnl, for failures that are not the kernel's answer.
    static func errno(libnl code: Int32) -> Int32 {
        switch abs(code) {
        case NLE_AGAIN: EAGAIN
        case NLE_NOMEM: ENOMEM
        case NLE_EXIST: EEXIST
        case NLE_PERM, NLE_NOACCESS: EPERM
        case NLE_NODEV: ENODEV
        case NLE_OBJ_NOTFOUND: ENOENT
        case NLE_BUSY: EBUSY
        case NLE_RANGE: ERANGE
        case NLE_OPNOTSUPP: EOPNOTSUPP
        case NLE_AF_NOSUPPORT: EAFNOSUPPORT
        case NLE_DUMP_INTR: EINTR
        case NLE_INTR: EINTR
        case NLE_NOADDR: EADDRNOTAVAIL
        default: EINVAL
        }
    }
}

/// A message to be sent: a header of its own kind, then attributes.
@safe struct NetlinkMessage: ~Copyable {
    let pointer: OpaquePointer

    /// `header` is the fixed part as bytes in host order: struct rtmsg, ifaddrmsg, fib_rule_hdr.
    init(type: Int, flags: Int32, header: [UInt8]) throws(SystemError) {
        guard let pointer = unsafe nlmsg_alloc_simple(Int32(type), flags) else {
            throw SystemError(call: "make netlink message", code: ENOMEM)
        }
        var header = header
        guard unsafe nlmsg_append(pointer, &header, header.count, Int32(NLMSG_ALIGNTO)) >= 0 else {
            unsafe nlmsg_free(pointer)
            throw SystemError(call: "make netlink message", code: ENOMEM)
        }
        unsafe self.pointer = pointer
    }

    deinit { unsafe nlmsg_free(pointer) }

    /// The kernel's numbers of attributes are enumerators with a type, or without.
    func put(_ attribute: Int, _ value: UInt32) { _ = unsafe nla_put_u32(pointer, Int32(attribute), value) }
    func put(_ attribute: Int, _ value: UInt8) { _ = unsafe nla_put_u8(pointer, Int32(attribute), value) }
    func put(_ attribute: Int, _ bytes: [UInt8]) {
        _ = unsafe nla_put(pointer, Int32(attribute), Int32(bytes.count), bytes)
    }
    func put(_ attribute: some RawRepresentable<UInt32>, _ value: UInt32) {
        put(Int(attribute.rawValue), value)
    }
    func put(_ attribute: some RawRepresentable<UInt32>, _ bytes: [UInt8]) {
        put(Int(attribute.rawValue), bytes)
    }
}

/// Carries a closure through a C callback.
@safe final class NetlinkReceiver {
    var body: (OpaquePointer) -> Void

    init(_ body: @escaping (OpaquePointer) -> Void) { unsafe self.body = unsafe body }
}

/// Remembers errno, then lets libnl make its own code of it.
private func keepError(
    _: UnsafeMutablePointer<sockaddr_nl>?, _ error: UnsafeMutablePointer<nlmsgerr>?,
    _ storage: UnsafeMutableRawPointer?
) -> Int32 {
    guard let error = unsafe error, let storage = unsafe storage else { return Int32(NL_STOP.rawValue) }
    unsafe storage.storeBytes(of: -error.pointee.error, as: Int32.self)
    return Int32(NL_STOP.rawValue)
}

/// At the end of a dump (NLMSG_DONE), where the kernel says with which error it broke the dump off, if it did: libnl
/// 3.7 takes each end for a good one.
private func keepDumpError(_ message: OpaquePointer?, _ storage: UnsafeMutableRawPointer?) -> Int32 {
    guard let message = unsafe message, let storage = unsafe storage,
        let header = unsafe nlmsg_hdr(message), unsafe nlmsg_datalen(header) >= 4,
        let code = unsafe nlmsg_data(header)?.load(as: Int32.self), code < 0
    else { return Int32(NL_OK.rawValue) }
    unsafe storage.storeBytes(of: -code, as: Int32.self)
    return -NLE_FAILURE
}

private func giveToReceiver(_ message: OpaquePointer?, _ receiver: UnsafeMutableRawPointer?) -> Int32 {
    guard let message = unsafe message, let receiver = unsafe receiver else { return Int32(NL_OK.rawValue) }
    unsafe Unmanaged<NetlinkReceiver>.fromOpaque(receiver).takeUnretainedValue().body(message)
    return Int32(NL_OK.rawValue)
}

private func acceptAnything(_: OpaquePointer?, _: UnsafeMutableRawPointer?) -> Int32 { Int32(NL_OK.rawValue) }
