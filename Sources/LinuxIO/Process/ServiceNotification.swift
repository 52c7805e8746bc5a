internal import CLinux
internal import Glibc

/// Words for the service manager that started us (sd_notify(3)): one datagram to the socket that
/// NOTIFY_SOCKET names.
package enum ServiceNotification {
    /// `READY=1`, `STOPPING=1`. Nothing happens without a service manager, and nobody to tell when it fails.
    package static func send(_ state: String) {
        guard let name = unsafe getenv("NOTIFY_SOCKET") else { return }
        var path = unsafe Array(String(cString: name).utf8)
        // A name in the abstract namespace is written with @ for its zero byte.
        guard let first = path.first, first == UInt8(ascii: "/") || first == UInt8(ascii: "@") else { return }
        if first == UInt8(ascii: "@") { path[0] = 0 }
        guard let socket = try? System.socket(AF_UNIX, SOCK_DGRAM, "socket unix") else { return }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let offset = MemoryLayout<sockaddr_un>.size - MemoryLayout.size(ofValue: address.sun_path)
        guard path.count <= MemoryLayout.size(ofValue: address.sun_path) else { return }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path) }
        let message = Array(state.utf8)
        _ = unsafe withUnsafePointer(to: &address) { address in
            unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe sendto(
                    socket.rawValue, message, message.count, Int32(MSG_NOSIGNAL), address,
                    socklen_t(offset + path.count))
            }
        }
    }
}
