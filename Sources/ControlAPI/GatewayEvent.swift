/// Something that changed in the gateway: in its log, in `GET /v1/events` and given to hooks. Holds no secret.
package struct GatewayEvent: Codable, Hashable, Sendable {
    /// UTC, always with nine digits of a second: as text it sorts, and it is exact, which a number in JSON past
    /// 2^53 is not everywhere.
    package var time: String
    /// Counts up from 1 in each run of the daemon, without a gap.
    package var sequence: UInt64
    package var kind: Kind
    /// What it is about; nil where it is about the gateway, or about the connection as a whole.
    package var connection: String?
    package var tunnel: String?
    /// What it was before, and what it is now: states; for `failover`, tunnels.
    package var from: String?
    package var to: String?
    /// Why, for programs: kebab-case, such as `probe-timeout`.
    package var reason: String?
    /// All of it in one sentence for people.
    package var message: String
    /// What else is known, such as the prefix of a route, or the `user` whose order it was.
    package var details: [String: String]
    /// True where a drill has made it happen, and nothing is broken. Else nil.
    package var drill: Bool?

    package init(
        time: String, sequence: UInt64, kind: Kind, connection: String? = nil, tunnel: String? = nil,
        from: String? = nil, to: String? = nil, reason: String? = nil, message: String,
        details: [String: String] = [:], drill: Bool? = nil
    ) {
        self.time = time
        self.sequence = sequence
        self.kind = kind
        self.connection = connection
        self.tunnel = tunnel
        self.from = from
        self.to = to
        self.reason = reason
        self.message = message
        self.details = details
        self.drill = drill
    }

    /// An open set: a newer daemon may send kinds that this program does not know.
    package struct Kind: Codable, Hashable, Sendable, RawRepresentable {
        package var rawValue: String

        package init(rawValue: String) { self.rawValue = rawValue }

        // The states of a tunnel, each named for the one that it is in now.
        package static let tunnelUp = Kind(rawValue: "tunnel-up")
        package static let tunnelDegraded = Kind(rawValue: "tunnel-degraded")
        package static let tunnelDown = Kind(rawValue: "tunnel-down")
        package static let tunnelConnecting = Kind(rawValue: "tunnel-connecting")
        package static let tunnelIdle = Kind(rawValue: "tunnel-idle")
        package static let tunnelDisabled = Kind(rawValue: "tunnel-disabled")
        /// An operator's choice among the tunnels of a connection, and its end.
        package static let tunnelPreferred = Kind(rawValue: "tunnel-preferred")
        package static let tunnelUnpreferred = Kind(rawValue: "tunnel-unpreferred")
        /// A tunnel of a balance takes a share of the flows, or leaves its own to the others, which carry on.
        package static let tunnelJoined = Kind(rawValue: "tunnel-joined")
        package static let tunnelLeft = Kind(rawValue: "tunnel-left")
        /// A connection has a tunnel that carries traffic, or has none any more.
        package static let connectionUp = Kind(rawValue: "connection-up")
        package static let connectionDown = Kind(rawValue: "connection-down")
        /// Traffic goes another way: no tunnel that carried a connection's traffic before carries it now.
        package static let failover = Kind(rawValue: "failover")
        /// Health targets answer by no tunnel of a connection, which takes none of them down; or do so again.
        package static let targetsUnanswered = Kind(rawValue: "targets-unanswered")
        package static let targetsAnswered = Kind(rawValue: "targets-answered")
        package static let routeAdded = Kind(rawValue: "route-added")
        package static let routeRemoved = Kind(rawValue: "route-removed")
        /// By `on-down`, while no tunnel of its connection is usable.
        package static let routeUnreachable = Kind(rawValue: "route-unreachable")
        package static let routeRestored = Kind(rawValue: "route-restored")
        /// A route or a rule of somebody else takes packets of a carried prefix past the tunnels.
        package static let routeBypassed = Kind(rawValue: "route-bypassed")
        /// Somebody began handshakes with this gateway, which it refused: a wrong key at one of the two ends.
        package static let handshakeRefused = Kind(rawValue: "handshake-refused")
        /// A tunnel brought packets from an address that is not behind it: a prefix is missing here, or the links
        /// inside are not the same at both ends.
        package static let sourceRefused = Kind(rawValue: "source-refused")
        /// A far end asks for sessions and uses none of the answers.
        package static let answersLost = Kind(rawValue: "answers-lost")
        /// Two hosts use the key of a tunnel's far end, and take the session from each other; or one alone again.
        package static let keyShared = Kind(rawValue: "key-shared")
        package static let keyUnshared = Kind(rawValue: "key-unshared")
        /// This host does not forward what goes between its network and the tunnels, or does so again.
        package static let forwardingBlocked = Kind(rawValue: "forwarding-blocked")
        package static let forwardingRestored = Kind(rawValue: "forwarding-restored")
        /// `wg` has changed what the configuration file says.
        package static let changedByWg = Kind(rawValue: "changed-by-wg")
        /// The gateway's interface is in another network namespace, or back.
        package static let interfaceMoved = Kind(rawValue: "interface-moved")
        package static let interfaceReturned = Kind(rawValue: "interface-returned")
        package static let drillStarted = Kind(rawValue: "drill-started")
        package static let drillFinished = Kind(rawValue: "drill-finished")
        /// Starts no hook, lest a hook that fails starts itself.
        package static let hookFailed = Kind(rawValue: "hook-failed")
        package static let started = Kind(rawValue: "started")
        package static let stopping = Kind(rawValue: "stopping")

        /// Those that this version raises.
        package static let all: [Kind] = [
            tunnelUp, tunnelDegraded, tunnelDown, tunnelConnecting, tunnelIdle, tunnelDisabled,
            tunnelPreferred, tunnelUnpreferred, tunnelJoined, tunnelLeft, connectionUp, connectionDown,
            failover, targetsUnanswered, targetsAnswered, routeAdded, routeRemoved, routeUnreachable,
            routeRestored, routeBypassed, handshakeRefused, sourceRefused, answersLost, keyShared,
            keyUnshared, forwardingBlocked, forwardingRestored, changedByWg, interfaceMoved,
            interfaceReturned, drillStarted, drillFinished, hookFailed, started, stopping,
        ]
    }
}

/// One line of `GET /v1/events`.
package enum EventLine: Hashable, Sendable {
    case event(GatewayEvent)
    /// So many events are missing here: they are past what the daemon keeps, or the reader was too slow for
    /// them.
    case lost(count: UInt64)
}

extension EventLine: Codable {
    private static let lostKind = GatewayEvent.Kind(rawValue: "events-lost")

    private enum Key: String, CodingKey { case kind, count }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: Key.self)
        if try container.decode(GatewayEvent.Kind.self, forKey: .kind) == Self.lostKind {
            self = .lost(count: try container.decode(UInt64.self, forKey: .count))
        } else {
            self = .event(try GatewayEvent(from: decoder))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        switch self {
        case .event(let event): try event.encode(to: encoder)
        case .lost(let count):
            var container = encoder.container(keyedBy: Key.self)
            try container.encode(Self.lostKind, forKey: .kind)
            try container.encode(count, forKey: .count)
        }
    }
}
