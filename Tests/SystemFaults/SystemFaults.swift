internal import Glibc
internal import Synchronization

/// Makes sendmsg, recvmmsg and socket fail as they rarely do by themselves. The functions below stand before
/// those of the C library for the whole test program, and pass on every call on a descriptor without a fault.
package enum SystemFaults {
    package struct Fault {
        package var code: Int32
        /// Calls that fail before the rest succeed.
        package var count: Int = .max
        /// Only those with a control message of this level and type.
        package var control: (level: Int32, type: Int32)?
        /// How many calls it has failed.
        fileprivate(set) var hits = 0

        package init(code: Int32, count: Int = .max, control: (level: Int32, type: Int32)? = nil) {
            self.code = code
            self.count = count
            self.control = control
        }
    }

    package static let udpSegment: (level: Int32, type: Int32) = (17, 103)
    private static let faults = Mutex<[Int32: Fault]>([:])

    /// Until `body` returns.
    package static func with<Result>(_ fault: Fault, on fd: Int32, _ body: () throws -> Result) rethrows
        -> Result
    {
        faults.withLock { $0[fd] = fault }
        defer { faults.withLock { $0[fd] = nil } }
        return try body()
    }

    /// How often the fault has struck that is now on the descriptor.
    package static func hits(on fd: Int32) -> Int { faults.withLock { $0[fd]?.hits ?? 0 } }

    private static let absentFamilies = Mutex<[pthread_t: Int32]>([:])

    /// As in a kernel that lacks the family, for the calling thread and until `body` returns.
    package static func without<Result>(family: Int32, _ body: () throws -> Result) rethrows -> Result {
        let thread = pthread_self()
        absentFamilies.withLock { $0[thread] = family }
        defer { absentFamilies.withLock { $0[thread] = nil } }
        return try body()
    }

    fileprivate static func isAbsent(_ family: Int32) -> Bool {
        absentFamilies.withLock { $0[pthread_self()] == family }
    }

    /// errno, or 0 to go on.
    fileprivate static func next(_ fd: Int32, _ message: UnsafePointer<msghdr>?) -> Int32 {
        faults.withLock { faults in
            guard var fault = faults[fd], fault.count > 0 else { return 0 }
            if let control = fault.control {
                guard let message = unsafe message, unsafe message.pointee.msg_controllen >= 16,
                    let header = unsafe message.pointee.msg_control?.assumingMemoryBound(to: cmsghdr.self),
                    unsafe header.pointee.cmsg_level == control.level,
                    unsafe header.pointee.cmsg_type == control.type
                else { return 0 }
            }
            fault.count -= 1
            fault.hits += 1
            faults[fd] = fault
            return fault.code
        }
    }
}

private typealias Send = @convention(c) (Int32, UnsafePointer<msghdr>?, Int32) -> Int
private typealias Receive =
    @convention(c) (Int32, UnsafeMutableRawPointer?, UInt32, Int32, UnsafeMutablePointer<timespec>?) -> Int32

private typealias Open = @convention(c) (Int32, Int32, Int32) -> Int32

private func following<Function>(_ name: String, _: Function.Type) -> Function {
    // RTLD_NEXT
    guard let symbol = unsafe dlsym(UnsafeMutableRawPointer(bitPattern: -1), name) else { fatalError(name) }
    return unsafe unsafeBitCast(symbol, to: Function.self)
}

private let realSend = unsafe following("sendmsg", Send.self)
private let realReceive = unsafe following("recvmmsg", Receive.self)

private let realSocket = following("socket", Open.self)

@_cdecl("socket")
func faultySocket(_ family: Int32, _ type: Int32, _ protocol: Int32) -> Int32 {
    if SystemFaults.isAbsent(family) {
        errno = EAFNOSUPPORT
        return -1
    }
    return realSocket(family, type, `protocol`)
}

@_cdecl("sendmsg")
func faultySend(_ fd: Int32, _ message: UnsafePointer<msghdr>?, _ flags: Int32) -> Int {
    let code = unsafe SystemFaults.next(fd, message)
    if code != 0 {
        errno = code
        return -1
    }
    return unsafe realSend(fd, message, flags)
}

@_cdecl("recvmmsg")
func faultyReceive(
    _ fd: Int32, _ messages: UnsafeMutableRawPointer?, _ count: UInt32, _ flags: Int32,
    _ timeout: UnsafeMutablePointer<timespec>?
) -> Int32 {
    let code = unsafe SystemFaults.next(fd, nil)
    if code != 0 {
        errno = code
        return -1
    }
    return unsafe realReceive(fd, messages, count, flags, timeout)
}
