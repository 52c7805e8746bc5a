/// `GET /v1/status`: the whole gateway at one moment. Holds no secret: of keys, only public ones.
package struct GatewayStatus: Codable, Hashable, Sendable {
    /// Version of vgwd, such as `0.1.0`.
    package var version: String
    /// The gateway's name in its configuration; the interface's where it runs without one.
    package var name: String
    package var interface: String
    /// False while the interface is set down: tunnels keep their sessions, and no packet passes.
    package var isInterfaceUp: Bool
    package var mtu: Int
    package var addresses: [String]
    /// What the UDP sockets are bound to, also where the configuration left the choice to the kernel.
    package var listenPort: UInt16
    /// Base64. Nil while no private key is set (`vgwd INTERFACE` before `wg set`).
    package var publicKey: String?
    package var firewallMark: UInt32?
    /// Seconds since the daemon was ready.
    package var uptime: Double
    package var offloads: OffloadStatus
    /// Pairs of data threads, or single threads where each does both directions.
    package var workers: Int
    package var isSingleThreaded: Bool
    package var connections: [ConnectionStatus]
    /// Packets that went no further, by the name of the reason; reasons that never occurred may be left out.
    package var drops: [String: UInt64]
    /// What is amiss on this host beside the connections' own prefixes, a sentence each for people.
    package var notices: [String]?
    /// Nil where no hook is configured.
    package var hooks: HookStatus?
    /// Learned prefixes that nobody announces now: they are unreachable until somebody does, or until an operator lets
    /// go of them. Nil where no connection is dynamic.
    package var guarded: [String]?
    /// Addresses that the interface should have and has not; nil when it has all.
    package var missingAddresses: [MissingAddress]?
    /// Where the routes go; nil where somebody else installs them.
    package var routeTable: UInt32?
    /// Rules, and unreachable routes, that somebody else removed and that were put back, in this run.
    package var repairs: UInt64?

    package init(
        version: String, name: String, interface: String, isInterfaceUp: Bool, mtu: Int, addresses: [String],
        listenPort: UInt16,
        publicKey: String?, firewallMark: UInt32?, uptime: Double, offloads: OffloadStatus,
        workers: Int, isSingleThreaded: Bool, connections: [ConnectionStatus], drops: [String: UInt64]
    ) {
        self.version = version
        self.name = name
        self.interface = interface
        self.isInterfaceUp = isInterfaceUp
        self.mtu = mtu
        self.addresses = addresses
        self.listenPort = listenPort
        self.publicKey = publicKey
        self.firewallMark = firewallMark
        self.uptime = uptime
        self.offloads = offloads
        self.workers = workers
        self.isSingleThreaded = isSingleThreaded
        self.connections = connections
        self.drops = drops
    }
}

package struct MissingAddress: Codable, Hashable, Sendable {
    package var address: String
    /// As a clause for a person.
    package var reason: String

    package init(address: String, reason: String) {
        self.address = address
        self.reason = reason
    }
}

/// Programs started for events, in this run.
package struct HookStatus: Codable, Hashable, Sendable {
    package var started: UInt64
    /// Ended with another status than 0, by a signal or by their time limit, or could not be started.
    package var failures: UInt64
    /// Events that were not given to a hook, since as many as it may have waited already.
    package var queueFull: UInt64

    package init(started: UInt64, failures: UInt64, queueFull: UInt64) {
        self.started = started
        self.failures = failures
        self.queueFull = queueFull
    }
}

/// Which of the kernel's offloads are in use: probed at start, switched off for the run when one fails.
package struct OffloadStatus: Codable, Hashable, Sendable {
    package var udpGSO: Bool
    package var udpGRO: Bool
    package var tunTSO: Bool
    package var tunUSO: Bool

    package init(udpGSO: Bool, udpGRO: Bool, tunTSO: Bool, tunUSO: Bool) {
        self.udpGSO = udpGSO
        self.udpGRO = udpGRO
        self.tunTSO = tunTSO
        self.tunUSO = tunUSO
    }
}

package struct ConnectionStatus: Codable, Hashable, Sendable {
    package enum State: String, Codable, Hashable, Sendable {
        /// At least one tunnel carries traffic.
        case up
        /// No tunnel has failed, and none has a session: it comes up on the first packet.
        case idle
        /// No tunnel works, or the gateway's interface is down.
        case down
    }

    package var name: String
    package var state: State
    /// Prefixes, configured and added at run time.
    package var routes: [String]
    package var policy: String
    package var tunnels: [TunnelStatus]

    // Later than the first version of this answer: nil where the daemon does not know.

    /// Whether some tunnel can carry traffic.
    package var isUsable: Bool?
    /// Names of those that carry it now: one under failover, none while none has a session.
    package var activeTunnels: [String]?
    /// Seconds since `isUsable` changed.
    package var since: Double?
    /// What becomes of the kernel's routes while it is not usable: `unreachable`, `withdraw`.
    package var onDown: String?
    /// Metric of its routes in the kernel.
    package var metric: UInt32?
    /// How often it became unusable in this run.
    package var flaps: Int?
    /// What somebody should look at though it may carry traffic, a clause each for people.
    package var notices: [String]?
    /// The recovery time objective that drills are held against, in seconds.
    package var rto: Double?

    package init(name: String, state: State, routes: [String], policy: String, tunnels: [TunnelStatus]) {
        self.name = name
        self.state = state
        self.routes = routes
        self.policy = policy
        self.tunnels = tunnels
    }
}

package struct TunnelStatus: Codable, Hashable, Sendable {
    package var name: String
    package var connection: String
    /// The peer's, in base64.
    package var publicKey: String
    package var hasPresharedKey: Bool
    /// As in the configuration: `chacha20-poly1305`, `aes-256-gcm`.
    package var cipher: String
    package var state: TunnelState
    /// Why it is not up, as a clause for a person: `no answer from 192.0.2.7:51820 for 35 s`. Nil when up.
    package var reason: String?
    /// What to look at, where that can be said.
    package var hint: String?
    /// `192.0.2.7:51820`, `[2001:db8::7]:51820`. Nil while none is known.
    package var endpoint: String?
    /// As the configuration says it, where that is a name.
    package var configuredEndpoint: String?
    /// Unix time in whole seconds. Nil: never in this run.
    package var lastHandshake: Int64?
    /// Seconds since then on the monotonic clock, which is right also when the wall clock was set.
    package var lastHandshakeAge: Double?
    /// Outer bytes, as `wg show` counts them.
    package var rxBytes: UInt64
    package var txBytes: UInt64
    package var rxPackets: UInt64
    package var txPackets: UInt64
    /// Seconds since anything authentic arrived. Nil: never in this run.
    package var lastReceivedAge: Double?
    /// Seconds; 0 is off.
    package var persistentKeepalive: UInt16
    /// Packets that wait for a session.
    package var stagedPackets: Int

    // Later than the first version of this answer: nil where the daemon does not know, or it does not apply.

    /// Seconds in `state`.
    package var since: Double?
    /// Why it is in `state`, for programs: `probe-timeout`.
    package var reasonCode: String?
    /// It has a session, and its connection's traffic, or a share of it, goes by it now.
    package var isActive: Bool?
    /// An operator prefers it.
    package var isPreferred: Bool?
    /// The lowest healthy one is taken.
    package var priority: Int?
    /// Its share under `balance`.
    package var weight: Int?
    /// Inside addresses, which probes go between.
    package var insideLocal: String?
    package var insideRemote: String?
    /// What probes found, the shortest window first. Nil while none is answered: then nothing is measured.
    package var windows: [WindowStatus]?
    /// Whether probes tell how it is; else handshakes do, and `notProbed` says why.
    package var isProbed: Bool?
    /// As a clause for a person: `no inside addresses`. Nil where it is probed.
    package var notProbed: String?
    /// Seconds left that probes must be answered before it is up again; until then it is used only where no other is up.
    /// Nil when it is not held down.
    package var holdDown: Double?
    /// Bytes of an inner packet that pass without being cut, as probes have found. Nil before, and without probes.
    package var pathMTU: Int?
    /// The same while nothing is found: what is used until then. Nil where it is not searched for.
    package var assumedMTU: Int?
    /// The device that its outer packets leave by, where it is bound to one.
    package var underlayDevice: String?

    package init(
        name: String, connection: String, publicKey: String, hasPresharedKey: Bool, cipher: String,
        state: TunnelState, reason: String?, hint: String?, endpoint: String?, configuredEndpoint: String?,
        lastHandshake: Int64?,
        lastHandshakeAge: Double?, rxBytes: UInt64, txBytes: UInt64, rxPackets: UInt64, txPackets: UInt64,
        lastReceivedAge: Double?, persistentKeepalive: UInt16, stagedPackets: Int
    ) {
        self.name = name
        self.connection = connection
        self.publicKey = publicKey
        self.hasPresharedKey = hasPresharedKey
        self.cipher = cipher
        self.state = state
        self.reason = reason
        self.hint = hint
        self.endpoint = endpoint
        self.configuredEndpoint = configuredEndpoint
        self.lastHandshake = lastHandshake
        self.lastHandshakeAge = lastHandshakeAge
        self.rxBytes = rxBytes
        self.txBytes = txBytes
        self.rxPackets = rxPackets
        self.txPackets = txPackets
        self.lastReceivedAge = lastReceivedAge
        self.persistentKeepalive = persistentKeepalive
        self.stagedPackets = stagedPackets
    }
}

/// What probes through a tunnel found over the last `seconds`.
package struct WindowStatus: Codable, Hashable, Sendable {
    package var seconds: Int
    /// Mean round-trip time, and the mean difference between successive ones, in seconds. Nil without an
    /// answer.
    package var roundTrip: Double?
    package var jitter: Double?
    /// Share of the probes without an answer, 0 to 1. Nil without a probe.
    package var loss: Double?

    package init(seconds: Int, roundTrip: Double? = nil, jitter: Double? = nil, loss: Double? = nil) {
        self.seconds = seconds
        self.roundTrip = roundTrip
        self.jitter = jitter
        self.loss = loss
    }
}

package struct ConnectionList: Codable, Hashable, Sendable {
    package var connections: [ConnectionStatus]

    package init(connections: [ConnectionStatus]) { self.connections = connections }
}

package struct TunnelList: Codable, Hashable, Sendable {
    package var tunnels: [TunnelStatus]

    package init(tunnels: [TunnelStatus]) { self.tunnels = tunnels }
}
