package import WireGuard

/// All of the gateway's UDP sockets: the group of its own port, which has number 0, and those of tunnels with a
/// port, a device or a source address of their own. A group may be absent, while its device is.
///
/// A value: the data threads take a new one as a whole, and groups that are in both stay open.
package struct UDPSocketGroups: Sendable {
    /// Groups there may be, absent ones included.
    package static let limit = 64

    private var groups: [UDPSocketGroup?]

    package init(_ first: UDPSocketGroup? = nil) { groups = [first] }

    /// `number` is below `limit`.
    package subscript(number: UInt8) -> UDPSocketGroup? {
        get { Int(number) < groups.count ? groups[Int(number)] : nil }
        set {
            precondition(number < Self.limit)
            while groups.count <= Int(number) { groups.append(nil) }
            groups[Int(number)] = newValue
        }
    }

    /// Those that are there, by number.
    package var present: [(number: UInt8, group: UDPSocketGroup)] {
        groups.enumerated().compactMap { number, group in group.map { (UInt8(number), $0) } }
    }

    package var sockets: [UDPSocket] { present.flatMap { $0.group.sockets } }

    /// What control has to read. None of a group that cannot steer: its handshakes come by the data threads.
    package var handshakeSockets: [GroupSocket] {
        present.flatMap { number, group in group.handshakes.map { sources($0, of: number) } ?? [] }
    }

    /// What control sends through; nil where the group is absent or has no socket of the family.
    package func controlSocket(for path: UnderlayPath) -> UDPSocket? {
        self[path.socket]?.control.socket(for: path.endpoint.address.family)
    }

    /// Datagrams that came while a receive buffer was full, since the sockets were opened.
    package var queueDrops: UInt64 { present.reduce(0) { $0 &+ $1.group.queueDrops } }

    package func setMark(_ mark: UInt32) throws(SystemError) {
        for socket in sockets { try socket.setMark(mark) }
    }
}
