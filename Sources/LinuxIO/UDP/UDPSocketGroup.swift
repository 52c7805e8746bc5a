internal import Glibc
package import WireGuard

/// Every outer socket on one port, device and source address: a pair for handshakes, and one for each worker.
///
/// The kernel delivers a datagram to one of them by what it is (``PortSteering``). So a handshake never waits
/// behind bulk data, a flood of handshakes takes no room from data, and a peer's packets are all received by
/// one thread.
///
/// Several groups may be on one port if they differ in device or source: what the kernel steers among is the
/// sockets that are equal in both. Of groups that a datagram fits it does not always take the one bound closest
/// (``GroupSocket``).
package struct UDPSocketGroup: Sendable {
    /// Nil where the kernel cannot steer: there is one worker then, whose pair receives everything.
    package let handshakes: UDPSocketPair?
    /// One or more.
    package let workers: [UDPSocketPair]
    package let port: UInt16
    package let device: String?
    /// Index of the device as it was when they were bound; 0 for none.
    package let deviceIndex: UInt32
    package let source: IPAddress?

    private init(handshakes: UDPSocketPair?, workers: [UDPSocketPair], options: UDPSocketOptions) {
        self.handshakes = handshakes
        self.workers = workers
        port = workers[0].port
        device = options.device
        deviceIndex = workers[0].sockets.first?.deviceIndex ?? 0
        source = options.source
    }

    /// What control sends through.
    package var control: UDPSocketPair { handshakes ?? workers[0] }

    package var sockets: [UDPSocket] { ([handshakes].compactMap(\.self) + workers).flatMap(\.sockets) }

    /// `port` 0 takes one that is free in both families. A kernel that cannot steer gives one worker, however
    /// many were asked for.
    ///
    /// `others` are our own groups that stay open beside it. On the port of one of them EADDRINUSE is only for
    /// the same device and source. What is bound to neither there lets any socket of this user onto the port that
    /// shares it, so that another process is not noticed any more.
    package static func bind(
        port: UInt16, workers: Int, options: UDPSocketOptions = UDPSocketOptions(),
        beside others: UDPSocketGroups = UDPSocketGroups()
    ) throws(SystemError) -> UDPSocketGroup {
        let neighbours = others.present.map(\.group).filter { port != 0 && $0.port == port }
        if neighbours.contains(where: { $0.device == options.device && $0.source == options.source }) {
            // The kernel would make one group of both, and steer by the wrong numbers.
            throw SystemError(call: "bind a second group to UDP port \(port)", code: EADDRINUSE)
        }
        var options = options
        options.sharesPort = neighbours.contains { $0.overlaps(options) }
        if let group = try bindSteered(port: port, workers: workers, options: options) { return group }
        return UDPSocketGroup(
            handshakes: nil, workers: [try UDPSocketPair.bind(port: port, options: options)],
            options: options)
    }

    /// Whether a datagram could be for both, so that the kernel gives the port to both only if both share it.
    private func overlaps(_ options: UDPSocketOptions) -> Bool {
        let isSameDevice = device == nil || options.device == nil || device == options.device
        let isSameSource = source == nil || options.source == nil || source == options.source
        return isSameDevice && isSameSource
    }

    private static func bindSteered(
        port: UInt16, workers: Int, options: UDPSocketOptions
    ) throws(SystemError) -> UDPSocketGroup? {
        // Not shared yet, but with ourselves: so a port that another process has is refused, also to a second vgwd
        // of this user. With UDP_GRO like the others: the kernel joins datagrams only if a socket of the port that
        // it picks without looking at them takes joined ones.
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
        return UDPSocketGroup(handshakes: handshakes, workers: pairs, options: options)
    }

    /// Datagrams that came while a receive buffer was full, since the sockets were opened.
    package var queueDrops: UInt64 { sockets.reduce(0) { $0 &+ $1.queueDrops } }

    package func setMark(_ mark: UInt32) throws(SystemError) {
        for socket in sockets { try socket.setMark(mark) }
    }

    /// From the next datagram on, of whichever thread: see `UDPSocket`.
    package func setDontFragment(_ isOn: Bool) throws(SystemError) {
        for socket in sockets { try socket.setDontFragment(isOn) }
    }
}
