internal import CLinux
internal import Glibc

/// Memory for a batch of datagrams, and the two calls that move it: sendmmsg and recvmmsg on a connected or
/// bound socket. No offload of any kind: what is measured shall meet single packets.
@safe struct DatagramBatch: ~Copyable {
    let capacity: Int
    /// Bytes of each.
    let size: Int

    private let memory: UnsafeMutableRawPointer
    private let slices: UnsafeMutablePointer<iovec>
    private let headers: UnsafeMutablePointer<cl_mmsghdr>

    init(capacity: Int, size: Int) {
        precondition(capacity > 0 && size > 0)
        self.capacity = capacity
        self.size = size
        unsafe memory = .allocate(byteCount: capacity * size, alignment: 64)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: capacity * size)
        unsafe slices = .allocate(capacity: capacity)
        unsafe headers = .allocate(capacity: capacity)
        for i in 0..<capacity {
            unsafe (slices + i).initialize(to: iovec(iov_base: memory + i * size, iov_len: size))
            var header = unsafe msghdr()
            unsafe header.msg_iov = slices + i
            unsafe header.msg_iovlen = 1
            unsafe (headers + i).initialize(to: cl_mmsghdr(msg_hdr: header, msg_len: 0))
        }
    }

    deinit {
        unsafe memory.deallocate()
        unsafe slices.deallocate()
        unsafe headers.deallocate()
    }

    /// The first `count`, each in its whole size. Waits while the socket's buffer is full. How many went, or
    /// minus errno when the first one did not.
    func send(_ count: Int, on fd: Int32) -> Int {
        precondition(count <= capacity)
        let sent = unsafe Int(cl_sendmmsg(fd, headers, UInt32(count), 0))
        return sent < 0 ? -Int(errno) : sent
    }

    /// What waits on the socket, 0 when nothing does. Errors are of other datagrams and count as nothing.
    func receive(on fd: Int32) -> Int {
        max(0, unsafe Int(cl_recvmmsg(fd, headers, UInt32(capacity), Int32(MSG_DONTWAIT))))
    }

    /// Bytes of datagram `i` of the last batch received.
    func length(_ i: Int) -> Int {
        precondition(i >= 0 && i < capacity)
        return unsafe min(size, Int(headers[i].msg_len))
    }

    /// Eight bytes at `offset` of datagram `i`, in this machine's order: both ends are on it.
    func word(_ i: Int, at offset: Int) -> UInt64 {
        unsafe address(i, offset, MemoryLayout<UInt64>.size).loadUnaligned(as: UInt64.self)
    }

    func setWord(_ i: Int, at offset: Int, _ value: UInt64) {
        unsafe address(i, offset, MemoryLayout<UInt64>.size).storeBytes(of: value, as: UInt64.self)
    }

    func bytes(_ i: Int) -> [UInt8] {
        let count = length(i)
        let start = unsafe address(i, 0, count)
        return unsafe [UInt8](UnsafeRawBufferPointer(start: start, count: count))
    }

    func setBytes(_ i: Int, _ bytes: [UInt8]) {
        let start = unsafe address(i, 0, bytes.count)
        unsafe bytes.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { unsafe start.copyMemory(from: base, byteCount: bytes.count) }
        }
    }

    private func address(_ i: Int, _ offset: Int, _ count: Int) -> UnsafeMutableRawPointer {
        precondition(i >= 0 && i < capacity && offset >= 0 && offset + count <= size)
        return unsafe memory + i * size + offset
    }
}
