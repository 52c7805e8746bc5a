internal import CLinux
internal import Glibc
internal import LinuxIO
internal import WireGuard

/// A plain IPv4 datagram socket for the generators: UDP, or ICMP echo without a raw socket (which the lab's
/// namespaces allow; the kernel sets identifier and checksum).
struct DatagramSocket: ~Copyable {
    private let descriptor: FileDescriptor

    var fd: Int32 { descriptor.rawValue }

    private init(type: __socket_type, protocol: Int32, name: String) throws(SystemError) {
        let fd = Glibc.socket(AF_INET, Int32(type.rawValue | SOCK_CLOEXEC.rawValue), `protocol`)
        guard fd >= 0 else { throw SystemError(call: "socket \(name)", code: errno) }
        descriptor = FileDescriptor(owning: fd)
        // 4 MB each way: the generators shall not be what drops.
        for option in [CL_SO_RCVBUFFORCE, CL_SO_SNDBUFFORCE] {
            var bytes: Int32 = 4 << 20
            _ = unsafe setsockopt(fd, SOL_SOCKET, option, &bytes, socklen_t(MemoryLayout<Int32>.size))
        }
    }

    static func udp(connectedTo far: Endpoint) throws(SystemError) -> DatagramSocket {
        let socket = try DatagramSocket(type: SOCK_DGRAM, protocol: 0, name: "udp")
        try unsafe withAddress(far, "connect \(far)") { unsafe Glibc.connect(socket.fd, $0, $1) }
        return socket
    }

    static func udp(boundTo local: Endpoint) throws(SystemError) -> DatagramSocket {
        let socket = try DatagramSocket(type: SOCK_DGRAM, protocol: 0, name: "udp")
        try unsafe withAddress(local, "bind \(local)") { unsafe Glibc.bind(socket.fd, $0, $1) }
        return socket
    }

    static func icmp(connectedTo far: IPAddress) throws(SystemError) -> DatagramSocket {
        let socket = try DatagramSocket(type: SOCK_DGRAM, protocol: Int32(IPPROTO_ICMP), name: "icmp")
        try unsafe withAddress(Endpoint(address: far, port: 0), "connect \(far)") {
            unsafe Glibc.connect(socket.fd, $0, $1)
        }
        return socket
    }

    private static func withAddress(
        _ endpoint: Endpoint, _ call: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) throws(SystemError) {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = endpoint.port.bigEndian
        name.sin_addr.s_addr = UInt32(truncatingIfNeeded: endpoint.address.bits).bigEndian
        let result: Int32 = unsafe withUnsafeBytes(of: &name) { bytes in
            guard let base = bytes.baseAddress else { return -1 }
            return unsafe body(base.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
        }
        guard result == 0 else { throw SystemError(call: call, code: errno) }
    }
}
