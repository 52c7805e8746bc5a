/// Every outer socket on one port: a pair for handshakes, and one for each worker.
///
/// The kernel delivers a datagram to one of them by what it is (``PortSteering``). So a handshake never waits
/// behind bulk data, a flood of handshakes takes no room from data, and a peer's packets are all received by
/// one thread.
package struct UDPSocketGroup: Sendable {
    /// Nil where the kernel cannot steer: there is one worker then, whose pair receives everything.
    package let handshakes: UDPSocketPair?
    /// One or more.
    package let workers: [UDPSocketPair]
    package let port: UInt16

    private init(handshakes: UDPSocketPair?, workers: [UDPSocketPair]) {
        self.handshakes = handshakes
        self.workers = workers
        port = workers[0].port
    }

    /// What control sends through.
    package var control: UDPSocketPair { handshakes ?? workers[0] }

    package var sockets: [UDPSocket] { ([handshakes].compactMap(\.self) + workers).flatMap(\.sockets) }

    /// `port` 0 takes one that is free in both families. A kernel that cannot steer gives one worker, however
    /// many were asked for.
    package static func bind(
        port: UInt16, workers: Int, options: UDPSocketOptions = UDPSocketOptions()
    ) throws(SystemError) -> UDPSocketGroup {
        if let group = try bindSteered(port: port, workers: workers, options: options) { return group }
        return UDPSocketGroup(
            handshakes: nil, workers: [try UDPSocketPair.bind(port: port, options: options)])
    }

    private static func bindSteered(
        port: UInt16, workers: Int, options: UDPSocketOptions
    ) throws(SystemError) -> UDPSocketGroup? {
        // Not shared yet: so a port that another process has is refused, also to a second vgwd of this user. With
        // UDP_GRO like the others: the kernel joins datagrams only if a socket of the port that it picks without
        // looking at them takes joined ones.
        let handshakes = try UDPSocketPair.bind(port: port, options: options)
        var sharing = options
        sharing.sharesPort = true
        var pairs: [UDPSocketPair] = []
        do throws(SystemError) {
            for socket in handshakes.sockets { try socket.sharePort() }
            for _ in 0..<workers {
                pairs.append(try UDPSocketPair.bind(port: handshakes.port, options: sharing))
            }
            // Their order on the port is the order in which they came.
            for socket in handshakes.sockets { try socket.attach(PortSteering(workers: workers)) }
        } catch {
            guard UDPSocket.meansUnsupported(error) else { throw error }
            return nil
        }
        return UDPSocketGroup(handshakes: handshakes, workers: pairs)
    }

    /// Datagrams that came while a receive buffer was full, since the sockets were opened.
    package var queueDrops: UInt64 { sockets.reduce(0) { $0 &+ $1.queueDrops } }

    package func setMark(_ mark: UInt32) throws(SystemError) {
        for socket in sockets { try socket.setMark(mark) }
    }
}
