package import WireGuard

/// A socket of one of the gateway's groups, as one to receive from.
///
/// Its group's number is not always that of the datagrams: of several groups on a port that fit a datagram, Linux
/// takes the one that it finds first and that shares the port, which for IPv6 is the one bound first, and not the
/// one bound to the device that it came by (udp6_lib_lookup2). So it is looked at where the datagram came. Which
/// worker it is for is the same in all groups.
package struct GroupSocket: Sendable {
    /// A group on the same port that is bound closer.
    struct Closer: Sendable {
        /// 0 is any.
        let device: UInt32
        /// Nil is any.
        let source: IPAddress?
        let group: UInt8
    }

    package let socket: UDPSocket
    package let group: UInt8
    /// The closest first.
    let closer: [Closer]

    package var family: IPAddress.Family { socket.family }

    /// A socket of a group that is alone on its port.
    package init(_ socket: UDPSocket, group: UInt8 = 0) {
        self.init(socket, group: group, closer: [])
    }

    init(_ socket: UDPSocket, group: UInt8, closer: [Closer]) {
        self.socket = socket
        self.group = group
        self.closer = closer
    }
}

extension UDPSocketGroups {
    /// Where a worker receives. Where a group cannot steer, only the first one does.
    package func sources(of worker: Int) -> [GroupSocket] {
        present.flatMap { number, group in
            group.workers.indices.contains(worker) ? sources(group.workers[worker], of: number) : []
        }
    }

    /// The sockets of one pair of group `number`.
    func sources(_ pair: UDPSocketPair, of number: UInt8) -> [GroupSocket] {
        guard let own = self[number] else { return [] }
        let closer = present.filter { other, group in
            other != number && group.port == own.port
                && (group.device == nil) == (group.deviceIndex == 0)
                && (own.device == nil || own.deviceIndex == group.deviceIndex)
                && (own.source == nil || own.source == group.source)
        }.map { GroupSocket.Closer(device: $1.deviceIndex, source: $1.source, group: $0) }
        // Both before a device, and that before a source.
        func rank(_ each: GroupSocket.Closer) -> Int {
            (each.device == 0 ? 2 : 0) + (each.source == nil ? 1 : 0)
        }
        return pair.sockets.map {
            GroupSocket($0, group: number, closer: closer.sorted { rank($0) < rank($1) })
        }
    }
}
