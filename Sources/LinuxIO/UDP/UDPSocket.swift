internal import CLinux
internal import Glibc
internal import Synchronization
package import WireGuard

/// What became of a datagram, or of a run of them.
package enum SendResult: Hashable, Sendable {
    case sent
    /// Sent, but not from the source asked for, which is no longer ours: forget it.
    case sourceInvalid
    /// EMSGSIZE: larger than the path takes even in fragments, or than the interface takes where there are to be
    /// none.
    case tooBig
    /// errno. What was not sent is lost; nothing is wrong with the socket.
    case failed(Int32)
}

/// How to open the outer socket of one family.
package struct UDPSocketOptions: Hashable, Sendable {
    /// SO_MARK; 0 for none.
    package var mark: UInt32
    /// SO_BINDTODEVICE.
    package var device: String?
    /// The only local address; nil for all of the family.
    package var source: IPAddress?
    /// False leaves UDP_SEGMENT or UDP_GRO alone, also where the kernel has it.
    package var gso: Bool
    package var gro: Bool
    /// Whether outer packets go whole or not at all: see `setDontFragment`.
    package var dontFragment = false
    /// SO_REUSEPORT: beside another socket on the port that allows it.
    package var sharesPort = false

    package init(
        mark: UInt32 = 0, device: String? = nil, source: IPAddress? = nil, gso: Bool = true, gro: Bool = true
    ) {
        self.mark = mark
        self.device = device
        self.source = source
        self.gso = gso
        self.gro = gro
    }
}

/// A nonblocking UDP socket of one family that names the local address of every datagram, both ways.
///
/// Concurrency: any thread may send, and one at a time receives (`DatagramReceiver`). All state but the flags
/// for UDP_SEGMENT and DF is constant. The descriptor is closed with the last reference, so a thread that holds one
/// may use it.
package final class UDPSocket: Sendable {
    package struct Offloads: Hashable, Sendable {
        package var gso: Bool
        package var gro: Bool

        package init(gso: Bool, gro: Bool) {
            self.gso = gso
            self.gro = gro
        }
    }

    package let fd: Int32
    private let segmentation: Atomic<Bool>
    private let coalescing: Bool
    private let dontFragment: Atomic<Bool>
    package let family: IPAddress.Family
    /// As bound: the kernel's choice where 0 was asked for.
    package let port: UInt16

    /// Held by every UDPSocket: 7 MB, as much as a batch of batches.
    private static let bufferSize: Int32 = 7 << 20
    /// Times that a batch waits for the full queue of one socket, and no oftener, so that a slow interface does not
    /// hold up what goes by others.
    package static let queueWaits = 2
    private static let queueWaitMilliseconds: Int32 = 3

    package var offloads: Offloads { Offloads(gso: segmentation.load(ordering: .relaxed), gro: coalescing) }

    private init(
        descriptor: consuming FileDescriptor, family: IPAddress.Family, port: UInt16, gso: Bool, gro: Bool,
        dontFragment: Bool
    ) {
        fd = descriptor.release()
        self.family = family
        self.port = port
        segmentation = Atomic(gso)
        coalescing = gro
        self.dontFragment = Atomic(dontFragment)
    }

    deinit { System.close(fd) }

    /// `port` 0 takes any. EADDRINUSE when another has it; EAFNOSUPPORT where the kernel lacks the family.
    package static func bind(
        family: IPAddress.Family, port: UInt16, options: UDPSocketOptions = UDPSocketOptions()
    ) throws(SystemError) -> UDPSocket {
        let name = family == .v4 ? "udp4" : "udp6"
        let descriptor = try System.socket(family == .v4 ? AF_INET : AF_INET6, SOCK_DGRAM, "socket \(name)")
        let fd = descriptor.rawValue
        switch family {
        case .v4:
            let ip = Int32(IPPROTO_IP)
            try System.setOption(fd, ip, CL_IP_PKTINFO, 1, "IP_PKTINFO")
            try System.setOption(fd, ip, CL_IP_RECVTOS, 1, "IP_RECVTOS")
        case .v6:
            let ip = Int32(IPPROTO_IPV6)
            try System.setOption(fd, ip, CL_IPV6_V6ONLY, 1, "IPV6_V6ONLY")
            try System.setOption(fd, ip, CL_IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
            try System.setOption(fd, ip, CL_IPV6_RECVTCLASS, 1, "IPV6_RECVTCLASS")
        }
        try setDontFragment(options.dontFragment, fd, family)
        if options.mark != 0 { try setMark(options.mark, of: fd) }
        if let device = options.device {
            try System.setOption(
                fd, SOL_SOCKET, CL_SO_BINDTODEVICE, device, "bind \(name) to device \(device)")
        }
        if options.sharesPort { try sharePort(fd) }
        enlargeBuffers(fd)
        let local = Endpoint(address: options.source ?? .any(family), port: port)
        try System.bind(fd, to: local)
        let bound = try System.localEndpoint(fd)

        let udp = CL_SOL_UDP
        let gso = options.gso && System.option(fd, udp, CL_UDP_SEGMENT) != nil
        var gro = false
        if options.gro { gro = (try? System.setOption(fd, udp, CL_UDP_GRO, 1, "UDP_GRO")) != nil }
        return UDPSocket(
            descriptor: descriptor, family: family, port: bound.port, gso: gso, gro: gro,
            dontFragment: options.dontFragment)
    }

    /// Lets further sockets of this user bind to the port.
    package func sharePort() throws(SystemError) { try Self.sharePort(fd) }

    private static func sharePort(_ fd: Int32) throws(SystemError) {
        try System.setOption(fd, SOL_SOCKET, CL_SO_REUSEPORT, 1, "SO_REUSEPORT")
    }

    /// Index of the device that it is bound to; 0 for none.
    var deviceIndex: UInt32 {
        UInt32(truncatingIfNeeded: System.option(fd, SOL_SOCKET, CL_SO_BINDTOIFINDEX) ?? 0)
    }

    /// Which of the sockets on the port gets a datagram, from here on and for all of them.
    package func attach(_ steering: PortSteering) throws(SystemError) {
        try System.attachSteering(fd, steering.program)
    }

    /// An option that this kernel does not have.
    static func meansUnsupported(_ error: SystemError) -> Bool {
        [ENOPROTOOPT, EOPNOTSUPP, EINVAL].contains(error.code)
    }

    /// Share of the receive buffer in use, 0 to 1.
    package var queueFill: Double { System.receiveQueue(fd).fill }

    /// Datagrams that came while the receive buffer was full, since it was opened.
    package var queueDrops: UInt64 { System.receiveQueue(fd).drops }

    /// Needs a capability only where the mark is another one.
    package func setMark(_ mark: UInt32) throws(SystemError) {
        guard System.option(fd, SOL_SOCKET, CL_SO_MARK) != Int32(bitPattern: mark) else { return }
        try Self.setMark(mark, of: fd)
    }

    private static func setMark(_ mark: UInt32, of fd: Int32) throws(SystemError) {
        try System.setOption(
            fd, SOL_SOCKET, CL_SO_MARK, Int32(bitPattern: mark), "SO_MARK 0x\(String(mark, radix: 16))")
    }

    /// Whether a datagram goes in one packet with DF, or, larger than the interface takes, is refused (EMSGSIZE):
    /// for who finds out himself what passes. No path MTU that somebody else has told is believed then.
    ///
    /// Otherwise IPv4 goes without DF, as the kernel's WireGuard, and IPv6, which nobody but us can fragment, by
    /// the kernel's path MTU.
    ///
    /// A run of segments (UDP_SEGMENT) is measured by its segments, not as a whole: it is refused only where each
    /// of them would be.
    package func setDontFragment(_ isOn: Bool) throws(SystemError) {
        dontFragment.store(isOn, ordering: .sequentiallyConsistent)
        try Self.setDontFragment(isOn, fd, family)
    }

    private static func setDontFragment(
        _ isOn: Bool, _ fd: Int32, _ family: IPAddress.Family
    ) throws(SystemError) {
        switch family {
        case .v4:
            // PROBE and OMIT both take no path MTU from ICMP messages, which anyone can forge.
            try System.setOption(
                fd, Int32(IPPROTO_IP), CL_IP_MTU_DISCOVER,
                isOn ? CL_IP_PMTUDISC_PROBE : CL_IP_PMTUDISC_OMIT, "IP_MTU_DISCOVER")
        case .v6:
            try System.setOption(
                fd, Int32(IPPROTO_IPV6), CL_IPV6_MTU_DISCOVER,
                isOn ? CL_IPV6_PMTUDISC_PROBE : CL_IPV6_PMTUDISC_WANT, "IPV6_MTU_DISCOVER")
        }
    }

    /// Past net.core.{r,w}mem_max with CAP_NET_ADMIN, else up to them. Less than asked for is slower, not
    /// wrong.
    private static func enlargeBuffers(_ fd: Int32) {
        for (force, plain) in [(CL_SO_RCVBUFFORCE, SO_RCVBUF), (CL_SO_SNDBUFFORCE, SO_SNDBUF)] {
            if (try? System.setOption(fd, SOL_SOCKET, force, bufferSize, "buffer")) == nil {
                try? System.setOption(fd, SOL_SOCKET, plain, bufferSize, "buffer")
            }
        }
    }

    // MARK: Sending

    /// Sends `count` bytes at `base` as datagrams of `segmentSize` bytes, the last of which may be shorter. A
    /// segment size of 0, or not below `count`, is one datagram. At most 64 segments and 65,507 bytes.
    ///
    /// Where UDP_SEGMENT fails the same bytes go out one by one: for good after EIO (the interface cannot),
    /// for this run after EMSGSIZE or EINVAL (a segment is longer than the path's MTU, and must be
    /// fragmented; where that is not to be, a shorter last one may still go). `waitsLeft` says how often it may wait for a
    /// full queue, for a few milliseconds each time, and is less by the waits that there were. Nothing allocates.
    package func send(
        _ base: UnsafeRawPointer, count: Int, segmentSize: Int, to path: UnderlayPath, tos: UInt8,
        waitsLeft: inout Int
    ) -> SendResult {
        guard path.endpoint.address.family == family else { return .failed(EAFNOSUPPORT) }
        var delivery = Delivery(
            endpoint: path.endpoint, source: path.source, tos: tos, waitsLeft: waitsLeft)
        defer { waitsLeft = delivery.waitsLeft }
        if delivery.source?.address.family != family { delivery.source = nil }
        guard segmentSize > 0, segmentSize < count else {
            return unsafe transmit(base, count, segmentSize: 0, &delivery)
        }
        if segmentation.load(ordering: .relaxed) {
            let result = unsafe transmit(base, count, segmentSize: segmentSize, &delivery)
            switch result {
            case .failed(EIO): segmentation.store(false, ordering: .relaxed)
            case .tooBig, .failed(EINVAL): break
            default: return result
            }
        }
        return unsafe sendEach(base, count, segmentSize, &delivery)
    }

    /// Sends one datagram that the path does not carry whole, also where the others go with DF: over IPv4 the router
    /// before the narrow link fragments it. Two calls more than `send`; what another thread sends meanwhile goes without
    /// DF too.
    package func sendInFragments(
        _ base: UnsafeRawPointer, count: Int, to path: UnderlayPath, tos: UInt8, waitsLeft: inout Int
    ) -> SendResult {
        try? Self.setDontFragment(false, fd, family)
        let result = unsafe send(
            base, count: count, segmentSize: 0, to: path, tos: tos, waitsLeft: &waitsLeft)
        // As control wants it by now: the last word is whoever's comes last.
        var isOn: Bool
        repeat {
            isOn = dontFragment.load(ordering: .sequentiallyConsistent)
            try? Self.setDontFragment(isOn, fd, family)
        } while dontFragment.load(ordering: .sequentiallyConsistent) != isOn
        return result
    }

    /// One datagram of control's own: a handshake, a keepalive, a packet that was staged. Control waits for no queue:
    /// its own one is never full but where nothing at all leaves the interface.
    package func send(_ datagram: [UInt8], to path: UnderlayPath, tos: UInt8) -> SendResult {
        unsafe datagram.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return .sent }
            var waitsLeft = 0
            return unsafe send(
                base, count: bytes.count, segmentSize: 0, to: path, tos: tos,
                waitsLeft: &waitsLeft)
        }
    }

    /// One call of `send`, with what it has learned.
    private struct Delivery {
        let endpoint: Endpoint
        /// Nil from when the kernel refuses it.
        var source: LocalSource?
        let tos: UInt8
        var waitsLeft: Int
    }

    /// Plain datagrams. One that fails does not keep the others back; the first failure is the result.
    private func sendEach(
        _ base: UnsafeRawPointer, _ count: Int, _ size: Int, _ delivery: inout Delivery
    ) -> SendResult {
        var outcome = SendResult.sent
        var offset = 0
        while offset < count {
            let length = min(size, count - offset)
            let result = unsafe transmit(base + offset, length, segmentSize: 0, &delivery)
            if result != .sent, outcome == .sent || outcome == .sourceInvalid { outcome = result }
            offset += length
        }
        return outcome
    }

    /// One message: again after a wait where a queue or memory is short, and again without the source where that may be
    /// the trouble.
    private func transmit(
        _ base: UnsafeRawPointer, _ count: Int, segmentSize: Int, _ delivery: inout Delivery
    ) -> SendResult {
        // On the stack: address, then control messages: 24 bytes for GSO, 24 for the class, 40 at most for packet
        // information.
        let size = DatagramAddress.capacity + 96
        return unsafe withUnsafeTemporaryAllocation(byteCount: size, alignment: 16) { scratch in
            guard let name = scratch.baseAddress else { return .failed(EINVAL) }
            let control = unsafe name + DatagramAddress.capacity
            var used = 0
            if segmentSize > 0 {
                let size = UInt16(truncatingIfNeeded: segmentSize)
                used = unsafe withUnsafeBytes(of: size) { size in
                    unsafe cl_control_put(control, used, CL_SOL_UDP, CL_UDP_SEGMENT, size.baseAddress, 2)
                }
            }
            if delivery.tos != 0 {
                let level = family == .v4 ? Int32(IPPROTO_IP) : Int32(IPPROTO_IPV6)
                let type = family == .v4 ? CL_IP_TOS : CL_IPV6_TCLASS
                used = unsafe withUnsafeBytes(of: Int32(delivery.tos)) { value in
                    unsafe cl_control_put(control, used, level, type, value.baseAddress, 4)
                }
            }
            // Last, so that it can be left out.
            let withoutSource = used
            if let source = delivery.source {
                used = unsafe DatagramAddress.putSource(source, into: control, at: used)
            }
            var slice = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: base), iov_len: count)
            return unsafe withUnsafeMutablePointer(to: &slice) { slice in
                var message = unsafe msghdr()
                unsafe message.msg_name = name
                unsafe message.msg_namelen = socklen_t(DatagramAddress.write(delivery.endpoint, to: name))
                unsafe message.msg_iov = slice
                unsafe message.msg_iovlen = 1
                unsafe message.msg_control = control
                unsafe message.msg_controllen = used
                // What was wrong with the source.
                var refusal: Int32?
                while true {
                    let result = unsafe System.sendmsg(fd, &message)
                    if result >= 0 { break }
                    let code = Int32(truncatingIfNeeded: -result)
                    if awaitRoom(after: code, &delivery.waitsLeft) { continue }
                    if let refusal { return .failed(refusal) }
                    switch code {
                    case EINVAL, EADDRNOTAVAIL, ENODEV, ENETUNREACH, EHOSTUNREACH, ENETDOWN:
                        guard delivery.source != nil else { return .failed(code) }
                        refusal = code
                        unsafe message.msg_controllen = withoutSource
                    case EMSGSIZE: return .tooBig
                    default: return .failed(code)
                    }
                }
                guard refusal != nil else { return .sent }
                delivery.source = nil
                return .sourceInvalid
            }
        }
    }

    /// Returns true after a wait where a queue or memory is short, and one is left.
    @inline(never)
    private func awaitRoom(after code: Int32, _ waitsLeft: inout Int) -> Bool {
        guard waitsLeft > 0 else { return false }
        switch code {
        case EAGAIN:
            var writable = pollfd(fd: fd, events: Int16(POLLOUT), revents: 0)
            _ = unsafe System.poll(&writable, 1, milliseconds: Self.queueWaitMilliseconds)
        case ENOBUFS, ENOMEM:
            // The socket polls as writable all the while: it is the interface's queue that is full.
            System.pause(milliseconds: 1)
        default: return false
        }
        waitsLeft -= 1
        return true
    }
}
