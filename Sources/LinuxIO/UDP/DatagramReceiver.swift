internal import CLinux
internal import Glibc
package import WireGuard

/// Receives batches of datagrams with recvmmsg into memory taken once. With UDP_GRO each may be up to 64
/// segments of one sender, in order.
///
/// One receiver serves the sockets of both families in turn. What `receive` found is valid until the next
/// call.
@safe package struct DatagramReceiver: ~Copyable {
    private struct Arrival {
        var segmentSize: Int
        var source: LocalSource?
        var isTruncated: Bool
        var tos: UInt8 = 0
    }

    private static let controlSize = 128

    private let capacity: Int
    private let bufferSize: Int
    private let buffers: UnsafeMutableRawPointer
    private let names: UnsafeMutableRawPointer
    private let controls: UnsafeMutableRawPointer
    private let slices: UnsafeMutablePointer<iovec>
    private let headers: UnsafeMutablePointer<cl_mmsghdr>
    private let arrivals: UnsafeMutablePointer<Arrival>

    /// What tells the socket group of each datagram of the last batch.
    private var group: UInt8 = 0
    private var closer: [GroupSocket.Closer] = []

    /// Calls that failed other than by finding nothing, since the start.
    package private(set) var errors: UInt64 = 0

    /// 65,536 bytes hold any datagram, coalesced or not; with less a longer one is truncated.
    package init(capacity: Int = 16, bufferSize: Int = 65536) {
        self.capacity = capacity
        self.bufferSize = bufferSize
        unsafe buffers = .allocate(byteCount: capacity * bufferSize, alignment: 4096)
        unsafe names = .allocate(byteCount: capacity * DatagramAddress.capacity, alignment: 16)
        unsafe controls = .allocate(byteCount: capacity * Self.controlSize, alignment: 16)
        unsafe slices = .allocate(capacity: capacity)
        unsafe headers = .allocate(capacity: capacity)
        unsafe arrivals = .allocate(capacity: capacity)
        unsafe arrivals.initialize(
            repeating: Arrival(segmentSize: 0, source: nil, isTruncated: false), count: capacity)
        for i in 0..<capacity {
            unsafe (slices + i).initialize(
                to: iovec(iov_base: buffers + i * bufferSize, iov_len: bufferSize))
            var header = unsafe msghdr()
            unsafe header.msg_name = names + i * DatagramAddress.capacity
            unsafe header.msg_iov = slices + i
            unsafe header.msg_iovlen = 1
            unsafe header.msg_control = controls + i * Self.controlSize
            unsafe (headers + i).initialize(to: cl_mmsghdr(msg_hdr: header, msg_len: 0))
        }
    }

    deinit {
        unsafe buffers.deallocate()
        unsafe names.deallocate()
        unsafe controls.deallocate()
        unsafe slices.deallocate()
        unsafe headers.deallocate()
        unsafe arrivals.deallocate()
    }

    /// Datagrams taken, at most the capacity; 0 when none waits. Never blocks.
    ///
    /// An error counts and is otherwise nothing: it was of one moment (ENOMEM, or an ICMP error left on the
    /// socket), and a receiver that gave up would be deaf for good. Where memory is short it waits a
    /// millisecond, since the socket still polls as readable.
    package mutating func receive(from socket: UDPSocket) -> Int { receive(from: GroupSocket(socket)) }

    package mutating func receive(from source: GroupSocket) -> Int {
        group = source.group
        closer = source.closer
        for i in 0..<capacity {
            // The kernel has written the lengths of the last batch over the capacities.
            unsafe headers[i].msg_hdr.msg_namelen = socklen_t(DatagramAddress.capacity)
            unsafe headers[i].msg_hdr.msg_controllen = Self.controlSize
            unsafe headers[i].msg_hdr.msg_flags = 0
        }
        let count = unsafe System.recvmmsg(source.socket.fd, headers, capacity)
        guard count > 0 else {
            if count < 0, count != -Int(EAGAIN) {
                errors &+= 1
                System.pause(milliseconds: 1)
            }
            return 0
        }
        for i in 0..<count { unsafe arrivals[i] = examine(headers + i) }
        return count
    }

    private func examine(_ header: UnsafeMutablePointer<cl_mmsghdr>) -> Arrival {
        let flags = unsafe header.pointee.msg_hdr.msg_flags
        let lost = Int32(MSG_TRUNC | MSG_CTRUNC)
        var arrival = unsafe Arrival(
            segmentSize: Int(header.pointee.msg_len), source: nil, isTruncated: flags & lost != 0)
        let message = unsafe UnsafeMutableRawPointer(header).assumingMemoryBound(to: msghdr.self)
        var next = unsafe cl_control_first(message)
        while let control = unsafe next {
            guard let data = unsafe cl_control_data(control) else { break }
            let size = unsafe cl_control_size(control)
            switch unsafe (control.pointee.cmsg_level, control.pointee.cmsg_type) {
            case (CL_SOL_UDP, CL_UDP_GRO) where size >= 4:
                let segment = unsafe data.loadUnaligned(as: Int32.self)
                if segment > 0 { arrival.segmentSize = Int(segment) }
            case (Int32(IPPROTO_IP), CL_IP_PKTINFO) where size >= 12:
                arrival.source = unsafe DatagramAddress.readSourceV4(data)
            case (Int32(IPPROTO_IPV6), CL_IPV6_PKTINFO) where size >= 20:
                arrival.source = unsafe DatagramAddress.readSourceV6(data)
            case (Int32(IPPROTO_IP), CL_IP_TOS) where size >= 1:
                arrival.tos = unsafe data.load(as: UInt8.self)
            case (Int32(IPPROTO_IPV6), CL_IPV6_TCLASS) where size >= 4:
                arrival.tos = unsafe UInt8(
                    truncatingIfNeeded: data.loadUnaligned(as: Int32.self))
            default: break
            }
            unsafe next = unsafe cl_control_next(message, control)
        }
        return arrival
    }

    /// The bytes of datagram `i` of the last batch: all segments, one after the other.
    package func bytes(_ i: Int) -> UnsafeMutableRawBufferPointer {
        precondition(i >= 0 && i < capacity)
        let count = unsafe min(Int(headers[i].msg_len), bufferSize)
        return unsafe UnsafeMutableRawBufferPointer(start: buffers + i * bufferSize, count: count)
    }

    /// Copies of the datagrams as they were sent, one or more.
    package func segments(_ i: Int) -> [[UInt8]] {
        let whole = unsafe Array(bytes(i))
        let size = max(segmentSize(i), 1)
        guard size < whole.count else { return [whole] }
        return stride(from: 0, to: whole.count, by: size).map { start in
            Array(whole[start..<min(start + size, whole.count)])
        }
    }

    /// Bytes of each segment but the last, which may be shorter; the whole length where nothing was
    /// coalesced.
    package func segmentSize(_ i: Int) -> Int {
        precondition(i >= 0 && i < capacity)
        return unsafe arrivals[i].segmentSize
    }

    /// TOS or traffic class of its packets. The kernel joins none that differ in it (since 6.10 and the stable
    /// kernels of that time; before, all segments have the first one's).
    package func tos(_ i: Int) -> UInt8 {
        precondition(i >= 0 && i < capacity)
        return unsafe arrivals[i].tos
    }

    /// The sender, the address of ours that it wrote to, and the socket group that it came by.
    package func underlay(_ i: Int) -> UnderlayPath {
        precondition(i >= 0 && i < capacity)
        let source = unsafe arrivals[i].source
        return unsafe UnderlayPath(
            endpoint: DatagramAddress.read(names + i * DatagramAddress.capacity), source: source,
            socket: closer.isEmpty ? group : closestGroup(source))
    }

    private func closestGroup(_ source: LocalSource?) -> UInt8 {
        let found = closer.first { each in
            (each.device == 0 || each.device == source?.interface)
                && (each.source == nil || each.source == source?.address)
        }
        return found?.group ?? group
    }

    /// Bytes, or what is known of them, are missing: to be dropped.
    package func isTruncated(_ i: Int) -> Bool {
        precondition(i >= 0 && i < capacity)
        return unsafe arrivals[i].isTruncated
    }
}
