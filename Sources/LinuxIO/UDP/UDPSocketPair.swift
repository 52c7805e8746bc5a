internal import Glibc
package import WireGuard

/// The two outer sockets, IPv4 and IPv6, on one port.
///
/// Changing the port is: bind a new pair, hand it to the data threads, let the old pair go. A pair that
/// cannot be bound throws while the old one still works, so a failed change never leaves the gateway without
/// a socket.
package struct UDPSocketPair: Sendable {
    /// Nil where the kernel lacks the family, or `source` is of the other one; never both.
    package let v4: UDPSocket?
    package let v6: UDPSocket?
    package let port: UInt16

    package var sockets: [UDPSocket] { [v4, v6].compactMap(\.self) }

    package func socket(for family: IPAddress.Family) -> UDPSocket? { family == .v4 ? v4 : v6 }

    /// `port` 0 takes one that is free in both families.
    package static func bind(
        port: UInt16, options: UDPSocketOptions = UDPSocketOptions()
    ) throws(SystemError) -> UDPSocketPair {
        var attempts = 0
        while true {
            attempts += 1
            let v4 = try bindIfPresent(.v4, port, options)
            let chosen = v4?.port ?? port
            do throws(SystemError) {
                let v6 = try bindIfPresent(.v6, chosen, options)
                guard let port = v4?.port ?? v6?.port else {
                    throw SystemError(call: "bind UDP port \(port)", code: EAFNOSUPPORT)
                }
                return UDPSocketPair(v4: v4, v6: v6, port: port)
            } catch {
                // The kernel's choice for IPv4 may be taken in IPv6: choose again.
                guard port == 0, error.code == EADDRINUSE, attempts < 100 else { throw error }
            }
        }
    }

    private static func bindIfPresent(
        _ family: IPAddress.Family, _ port: UInt16, _ options: UDPSocketOptions
    ) throws(SystemError) -> UDPSocket? {
        if let source = options.source, source.family != family { return nil }
        do throws(SystemError) {
            return try UDPSocket.bind(family: family, port: port, options: options)
        } catch {
            // IPv6 absent from the kernel, or off by the disable_ipv6 sysctl.
            if error.code == EAFNOSUPPORT
                || (family == .v6 && error.code == EADDRNOTAVAIL && options.source == nil)
            {
                return nil
            }
            throw error
        }
    }
}
