internal import CLinux
internal import CNetlink
internal import Glibc

/// Changes to links, addresses, routes and rules in the namespace of the thread that made it, on a descriptor
/// to poll.
package struct NetlinkMonitor: ~Copyable {
    private let socket: NetlinkSocket

    package var fd: Int32 { socket.fd }

    /// Of rtnetlink.h: link, addresses, routes and rules of both families.
    private static let groups: [Int32] = [1, 5, 9, 7, 11, 8, 19]

    package init() throws(SystemError) {
        let socket = try NetlinkSocket()
        for group in Self.groups {
            try unsafe socket.run("subscribe to netlink group \(group)") { handle in
                unsafe nl_socket_add_membership(handle, group)
            }
        }
        try unsafe socket.run("make netlink socket nonblocking") { handle in
            unsafe nl_socket_set_nonblocking(handle)
        }
        // A routing daemon's full table comes in a burst. Past net.core.rmem_max only with CAP_NET_ADMIN.
        try? System.setOption(socket.fd, SOL_SOCKET, CL_SO_RCVBUFFORCE, 4 << 20, "SO_RCVBUFFORCE")
        self.socket = socket
    }

    /// What has happened since the last call, oldest first. Of a burst it takes some dozens of messages: the
    /// descriptor stays readable while there are more. Empty when nothing has, and also when what has is of no use to us.
    package mutating func next() throws(SystemError) -> [NetlinkEvent] {
        var events: [NetlinkEvent] = []
        var reads = 0
        do throws(SystemError) {
            while reads < 64,
                try unsafe socket.receive({ unsafe NetlinkParsing.parseEvent($0, into: &events) })
            { reads += 1 }
        } catch {
            // ENOBUFS, which libnl gives as want of memory.
            guard error.code == ENOMEM || error.code == ENOBUFS else { throw error }
            events.append(.overflow)
        }
        return events
    }
}
