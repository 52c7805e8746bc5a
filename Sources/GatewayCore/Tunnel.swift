internal import ControlAPI
package import WireGuard

/// One path to a far site: what it is to be, its machines, and what is told of it. Its session is the device's, under
/// `peer`. Its connection owns it, and alone changes it.
package struct Tunnel {
    /// What it is to be: as its connection's spec has it.
    package internal(set) var spec: TunnelSpec
    package let peer: PeerID
    /// The sockets that it leaves by.
    package let socket: UInt8
    /// The link that probes go over; nil where it is not probed.
    package let probedLink: InsideLink?

    package internal(set) var health: TunnelHealth
    package internal(set) var endpoints: EndpointSelector
    /// Nil where the MTU is given, or nobody would answer.
    package internal(set) var pathMTU: PathMTUSearch?
    /// Up to when `pathMTU` knows of traffic.
    var trafficSeenAt = Instant(nanoseconds: 0)

    // For the log and the status.

    var isUp = false
    package internal(set) var hasGivenUp = false
    /// When the first unanswered initiation went out.
    var askingSince: Instant?
    /// errno of what control sent last; nil while that works.
    var sendError: Int32?
    /// errno that the log has told of.
    var toldSendError: Int32?
    /// Whether two hosts share the far end's key.
    var sharing = KeySharing()
    /// Changes of endpoint are not logged before, only counted.
    var roamingQuietUntil: Instant?
    var roamsUnreported = 0
    /// A drill has cut it, and it has not shown since that it works: what becomes of it is the drill's doing.
    var isDrilled = false
    /// A new session is to be asked for, once it is decided where.
    var wantsSession = false

    package var name: String { spec.name }

    var nextTimeout: Instant? {
        .earliest(.earliest(health.nextTimeout, endpoints.nextTimeout), pathMTU?.nextTimeout)
    }

    /// Nil where the device does not take it: the log says why.
    init?(_ spec: TunnelSpec, of connection: ConnectionSpec, _ context: inout GatewayContext) {
        let fields = ["connection": connection.name, "tunnel": spec.name]
        guard let socket = context.socket(of: spec.binding) else {
            context.note(
                .error, "tunnel cannot be added: too many ports, devices and source addresses", fields)
            return nil
        }
        let peer = context.device.addPeer(
            PeerConfiguration(
                publicKey: spec.publicKey, privateKey: spec.privateKey, presharedKey: spec.presharedKey,
                cipher: spec.cipher, persistentKeepalive: spec.persistentKeepalive, socket: socket,
                inside: spec.inside),
            now: context.now)
        guard let peer else {
            context.note(
                .error, "tunnel cannot be added: its public key is our own, or there are too many", fields)
            return nil
        }
        let isProbed = spec.inside != nil && connection.health.isOn
        self.spec = spec
        self.peer = peer
        self.socket = socket
        probedLink = isProbed ? spec.inside : nil
        health = TunnelHealth(
            settings: connection.health, phase: Self.phase(of: peer), canProbe: isProbed, now: context.now)
        endpoints = EndpointSelector(spec.endpoints, now: context.now)
        pathMTU =
            isProbed && context.settings.findsPathMTU ? PathMTUSearch(maximum: context.interface.mtu) : nil
    }

    /// Probes of many tunnels go out together, in forty groups an interval: a wake-up costs more than a probe.
    private static func phase(of peer: PeerID) -> UInt32 {
        UInt32.max / 40 * UInt32(truncatingIfNeeded: peer.rawValue * 17 % 40)
    }

    // MARK: What the data threads and the sockets have seen

    /// Tells health what the data threads noticed.
    mutating func noteHeard(_ context: borrowing GatewayContext) {
        guard let path = context.device.path(of: peer) else { return }
        if let heard = path.lastReceived { health.handle(.heard(at: heard), now: context.now) }
        if let word = path.farEndsWord {
            health.handle(.heardByFarEnd(at: word.heardAt, said: word.saidAt), now: context.now)
        }
    }

    /// Tells health where the tunnel leads to.
    mutating func noteEndpoint(_ context: borrowing GatewayContext) {
        let knowledge: TunnelHealth.EndpointKnowledge
        if endpoints.current != nil || context.device.path(of: peer)?.underlay != nil {
            knowledge = .known
        } else {
            let isAwaited = endpoints.awaitedNames != nil
            knowledge = endpoints.problem != nil ? .unresolved : isAwaited ? .awaited : .unknown
        }
        health.handle(.endpoint(knowledge), now: context.now)
    }

    /// Tells health whether the wire is there.
    mutating func noteUnderlay(_ context: borrowing GatewayContext) {
        health.handle(.interface(isUp: context.underlays[Int(socket)].isUp), now: context.now)
    }

    /// A data thread that has nothing to send cannot find that it could again: control's own messages show it, once the
    /// data thread's failure is not of the same moment.
    private static let dataFailureAge: Duration = .seconds(2)

    mutating func noteSent(_ context: borrowing GatewayContext) {
        sendError = nil
        guard let path = context.device.path(of: peer), let failure = path.sendFailure else { return }
        if context.now - failure.at > Self.dataFailureAge { path.sendWorks() }
    }

    /// What this host does not let out, whoever found it: control or a data thread. Nil while sending works.
    func sendProblem(_ context: borrowing GatewayContext) -> SendProblem? {
        guard let path = context.device.path(of: peer), let endpoint = path.underlay?.endpoint,
            let code = sendError ?? path.sendFailure?.code
        else { return nil }
        return SendProblem(
            code, context.settings.errorText(code), to: endpoint,
            by: context.underlays[Int(socket)].binding, mark: context.firewallMark)
    }

    /// Nil where nothing says that the key is shared.
    var sharedKeyWords: String? {
        guard !sharing.hosts.isEmpty else { return nil }
        let hosts = sharing.hosts.map(\.description)
        return "\(hosts.count == 2 ? "two" : "\(hosts.count)") hosts use the key of tunnel \(name): "
            + "\(hosts.joined(separator: " and ")); give each a key of its own"
    }
}
