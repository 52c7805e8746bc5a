/// `POST /v1/routes`: send what is for `prefix` to `connection`, and take from it what comes from there.
package struct RouteRequest: Codable, Hashable, Sendable {
    package var prefix: String
    package var connection: String
    /// Whether it is there again after a restart. Nil is false.
    package var save: Bool?

    package init(prefix: String, connection: String, save: Bool? = nil) {
        self.prefix = prefix
        self.connection = connection
        self.save = save
    }
}

package struct RouteEntry: Codable, Hashable, Sendable {
    package enum Origin: String, Codable, Hashable, Sendable {
        case configured
        /// Added through the control API; gone after a restart unless it was saved.
        case runtime
        /// A routing daemon's, through the far end's inside address.
        case learned
    }

    package var prefix: String
    package var connection: String
    package var origin: Origin
    /// Whether the kernel has it. Under `table = "off"` it is somebody else's work, and this is false.
    package var installed: Bool
    /// Why not, where it should be.
    package var reason: String?
    /// A runtime route is there again after a restart.
    package var isSaved: Bool?
    /// Metric of the kernel's route, where one was configured or learned.
    package var metric: UInt32?
    /// True for a learned prefix that nobody announces now: it is unreachable. `connection` is the one that learned it
    /// last, and empty where only an earlier run knew.
    package var isGuarded: Bool?

    package init(prefix: String, connection: String, origin: Origin, installed: Bool, reason: String? = nil) {
        self.prefix = prefix
        self.connection = connection
        self.origin = origin
        self.installed = installed
        self.reason = reason
    }
}

package struct RouteList: Codable, Hashable, Sendable {
    package var routes: [RouteEntry]

    package init(routes: [RouteEntry]) { self.routes = routes }
}

/// `GET /v1/routes/get?destination=ADDRESS`, with `from=ADDRESS` and `iif=DEVICE` for a packet that is forwarded: which way
/// a packet to there would take, and why.
package struct RouteExplanation: Codable, Hashable, Sendable {
    /// An open set, as an answer of a newer daemon may know more.
    package struct Verdict: Codable, Hashable, Sendable, RawRepresentable {
        package var rawValue: String

        package init(rawValue: String) { self.rawValue = rawValue }

        /// It goes through `tunnel`.
        package static let tunnel = Verdict(rawValue: "tunnel")
        /// It belongs to `connection`, which has no usable tunnel now: its sender is told so, or it waits for
        /// a session.
        package static let unreachable = Verdict(rawValue: "unreachable")
        /// No connection has a route to it: the kernel sends it elsewhere.
        package static let elsewhere = Verdict(rawValue: "elsewhere")
    }

    package var destination: String
    package var verdict: Verdict
    package var connection: String?
    package var tunnel: String?
    /// The far end's outer address and port.
    package var endpoint: String?
    /// By which the outer packet, or under `elsewhere` the packet itself, leaves this host.
    package var interface: String?
    /// Source of the outer packet.
    package var source: String?
    /// In the order in which they decide, each a sentence.
    package var steps: [String]

    package init(
        destination: String, verdict: Verdict, connection: String? = nil, tunnel: String? = nil,
        endpoint: String? = nil, interface: String? = nil, source: String? = nil, steps: [String] = []
    ) {
        self.destination = destination
        self.verdict = verdict
        self.connection = connection
        self.tunnel = tunnel
        self.endpoint = endpoint
        self.interface = interface
        self.source = source
        self.steps = steps
    }
}
