internal import ControlAPI
internal import WireGuard

/// A wire that tunnels leave by, as the shell has it: index 0 is the gateway's own port.
package struct UnderlayState: Hashable, Sendable {
    package var binding: UnderlayBinding
    /// Tunnels can leave by it.
    package var isUp: Bool
    /// Why nothing can leave by it, as a clause for people; nil when it can.
    package var problem: String?
    /// What to do about `problem`; nil where that says it.
    package var remedy: String?

    package init(
        _ binding: UnderlayBinding, isUp: Bool = true, problem: String? = nil, remedy: String? = nil
    ) {
        self.binding = binding
        self.isUp = isUp
        self.problem = problem
        self.remedy = remedy
    }
}

/// How the kernel sends outer packets to a peer.
package struct WayOut: Hashable, Sendable {
    /// False where the kernel has no route.
    package var isThere: Bool
    /// Index of the interface that they left by before, where they leave by another now, and the source of the path is an
    /// address of the old link.
    package var left: UInt32?

    package init(isThere: Bool, left: UInt32? = nil) {
        self.isThere = isThere
        self.left = left
    }
}

/// The TUN interface, as the kernel has it.
package struct InterfaceState: Hashable, Sendable {
    package var mtu: Int
    package var isUp: Bool
    /// False while it is in another network namespace: its addresses and routes are then somebody else's.
    package var isHere: Bool

    package init(mtu: Int, isUp: Bool, isHere: Bool = true) {
        self.mtu = mtu
        self.isUp = isUp
        self.isHere = isHere
    }
}

/// A line for the log. What others may wait for is a `GatewayEvent` instead.
package struct LogNote: Hashable, Sendable {
    package var level: EventLevel
    package var message: String
    /// Names are among them, under `connection` and `tunnel`.
    package var fields: [String: String]
}

/// How much an event matters to who reads the log.
package enum EventLevel: Hashable, Sendable {
    case debug, info, notice, warning, error
}

/// What connections and tunnels act on and look at: the protocol's device, what is around the gateway, the time, and
/// what is to be done outside.
struct GatewayContext: ~Copyable {
    var device: Device
    let settings: Gateway.Settings
    let probeSecret: ProbeSecret
    /// The mark of outer packets; 0 is none.
    var firewallMark: UInt32
    /// By the socket number of a tunnel.
    var underlays: [UnderlayState]
    var interface: InterfaceState
    /// A name server on this host was asked for an endpoint's name, and had no answer.
    var hasLocalStubFailed = false
    var now: Instant
    /// Whose order is being followed, and for which connection; nil while things happen by themselves.
    var order: (connection: String, by: Caller)?
    /// The forwarding table is not what the connections say.
    var isTableStale = false
    /// Nor is what the kernel routes.
    var areRoutesStale = false

    private var outputs: [Gateway.Output] = []
    private var outputsTaken = 0

    init(
        device: consuming Device, settings: Gateway.Settings, probeSecret: ProbeSecret,
        firewallMark: UInt32, underlays: [UnderlayState], interface: InterfaceState, now: Instant
    ) {
        self.device = device
        self.settings = settings
        self.probeSecret = probeSecret
        self.firewallMark = firewallMark
        self.underlays = underlays
        self.interface = interface
        self.now = now
    }

    mutating func emit(_ output: Gateway.Output) { outputs.append(output) }

    mutating func takeOutput() -> Gateway.Output? {
        if outputsTaken < outputs.count {
            outputsTaken += 1
            return outputs[outputsTaken - 1]
        }
        outputs.removeAll(keepingCapacity: outputs.count <= 64)
        outputsTaken = 0
        return nil
    }

    /// Nil past the limit of sockets.
    func socket(of binding: UnderlayBinding) -> UInt8? {
        underlays.firstIndex { $0.binding == binding }.flatMap { UInt8(exactly: $0) }
    }

    /// Who orders what is happening to a connection; nil where it happens by itself.
    func orderer(of connection: String) -> Caller? {
        order?.connection == connection ? order?.by : nil
    }

    // MARK: News

    /// `message` is one sentence for people; `isDrill` is for what a drill has made happen.
    mutating func raise(
        _ kind: GatewayEvent.Kind, connection: String? = nil, tunnel: String? = nil, from: String? = nil,
        to: String? = nil, reason: String? = nil, _ message: String, details: [String: String] = [:],
        isDrill: Bool = false, level: EventLevel = .info
    ) {
        let unix = WallClock.unixNanoseconds(of: now, realtimeOffset: device.realtimeOffset)
        emit(
            .raise(
                GatewayEvent(
                    time: TimeText.utc(unixNanoseconds: unix), sequence: 0, kind: kind,
                    connection: connection, tunnel: tunnel, from: from, to: to, reason: reason,
                    message: message, details: details, drill: isDrill ? true : nil), level))
    }

    mutating func note(_ level: EventLevel, _ message: String, _ fields: [String: String] = [:]) {
        emit(.note(LogNote(level: level, message: message, fields: fields)))
    }

    // MARK: Times in words

    func seconds(since instant: Instant) -> Double { (now - min(instant, now)).seconds }

    func span(since instant: Instant) -> String { TimeText.span(seconds(since: instant)) }
}

extension Duration {
    package var seconds: Double { Double(wholeNanoseconds) / 1e9 }
}
