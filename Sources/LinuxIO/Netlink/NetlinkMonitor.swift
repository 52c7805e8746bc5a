internal import CLinux
internal import CNetlink
internal import Glibc

/// Changes to links, addresses, routes and rules in the namespace of the thread that made it, on a descriptor
/// to poll.
package struct NetlinkMonitor: ~Copyable {
    private let socket: NetlinkSocket

    package var fd: Int32 { socket.fd }

    /// RTNLGRP_* of rtnetlink.h: link, addresses, routes and rules of both families.
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

    /// From now on nothing is told of the routes that the socket with this port (`Netlink.routePort`) adds and removes:
    /// there may be 100,000, more than fit in before they are read, and who made them knows of them.
    package func ignoreRoutes(changedBy port: UInt32) throws(SystemError) {
        // struct nlmsghdr is in the processor's order, and a load is big endian. One notification is one packet.
        try System.attachFilter(
            socket.fd,
            [
                .loadHalf(at: 4),  // nlmsg_type
                .compare(with: UInt32(UInt16(RTM_NEWROUTE).byteSwapped), ifEqualSkip: 1),
                .compare(with: UInt32(UInt16(RTM_DELROUTE).byteSwapped), otherwiseSkip: 2),
                .loadWord(at: 12),  // nlmsg_pid: of whose request it is
                .compare(with: port.byteSwapped, ifEqualSkip: 1),
                .return(.max),
                .return(0),
            ])
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
