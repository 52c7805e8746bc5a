package import WireGuard

/// Which way a packet to an address takes and why, in sentences: `vgwctl route get`. Pure.
///
/// 1. The kernel: into the TUN, by another route, or nowhere.
/// 2. The connections whose prefixes hold the address: longest prefix, then metric, then health, as in
///    `PrefixChoice`.
/// 3. The connection's tunnel in use, its endpoint, and the local interface and source to there.
package struct RouteTrace: Hashable, Sendable {
    package struct Tunnel: Hashable, Sendable {
        package var name: String
        /// As the status shows it: `up`, `degraded`, `down`.
        package var state: String
        /// In words for people; nil when there is nothing to say.
        package var reason: String?
        /// Its connection sends by it now; of a balanced connection several are.
        package var isActive: Bool
        package var endpoint: Endpoint?

        package init(
            name: String, state: String, reason: String? = nil, isActive: Bool, endpoint: Endpoint?
        ) {
            self.name = name
            self.state = state
            self.reason = reason
            self.isActive = isActive
            self.endpoint = endpoint
        }
    }

    package struct Connection: Hashable, Sendable {
        package var name: String
        package var candidate: PrefixChoice.Candidate
        /// Why it is not usable, in words.
        package var reason: String?
        package var isBalanced: Bool
        package var tunnels: [Tunnel]

        package init(
            name: String, candidate: PrefixChoice.Candidate, reason: String? = nil, isBalanced: Bool = false,
            tunnels: [Tunnel]
        ) {
            self.name = name
            self.candidate = candidate
            self.reason = reason
            self.isBalanced = isBalanced
            self.tunnels = tunnels
        }
    }

    /// What the kernel answered about an address.
    package enum Way: Hashable, Sendable {
        case tun
        case link(name: String, gateway: IPAddress?, source: IPAddress?)
        /// No route, or one of type unreachable: the reason in words.
        case nowhere(String)
    }

    package enum Verdict: Hashable, Sendable {
        /// `interface` and `source` are nil where the kernel was not asked or does not say.
        case tunnel(
            connection: String, tunnel: String, endpoint: Endpoint, interface: String?, source: IPAddress?)
        /// By the flow's 5-tuple to one of several.
        case spread(connection: String, tunnels: [String])
        /// By vgwd, for the reason in words.
        case dropped(String)
        /// By the kernel, which answers the sender.
        case unreachable
        /// By another route than ours, in clear or through another gateway.
        case elsewhere(interface: String)
    }

    /// What is asked about.
    package struct Packet: Hashable, Sendable {
        package var destination: IPAddress
        package var source: IPAddress?
        /// The name of the interface that it comes by; nil for one of this host.
        package var incoming: String?

        package init(to destination: IPAddress, from source: IPAddress? = nil, by incoming: String? = nil) {
            self.destination = destination
            self.source = source
            self.incoming = incoming
        }
    }

    package let destination: IPAddress
    /// The prefix that decided; nil when no connection has one.
    package private(set) var prefix: IPPrefix?
    package private(set) var steps: [String] = []
    package private(set) var verdict: Verdict = .dropped("no connection has a prefix with it")

    /// `kernel` is the way of the packet, and `match` a sentence on the route that
    /// decided; nil where it cannot be asked, as for a TUN
    /// in another namespace. `leftOut` tells of a prefix around the destination that is not carried now. `way` is
    /// that of an outer packet of the named tunnel to its endpoint.
    package init(
        of packet: Packet, connections: [Connection], interface: String, kernel: Way?,
        match: String? = nil, leftOut: String? = nil, way: (_ tunnel: String, Endpoint) -> Way?
    ) {
        destination = packet.destination
        if let source = packet.source {
            let by = packet.incoming.map { " that comes by \($0)" } ?? ""
            steps.append("The packet is one from \(source)\(by).")
        }
        let candidates = Self.candidates(for: destination, connections)
        prefix = candidates.first?.prefix
        switch kernel {
        case .tun:
            steps.append("The kernel sends \(destination) into \(interface).")
            if let match { steps.append(match) }
        case nil: steps.append("The kernel's own routes were not looked at.")
        case .nowhere(let reason):
            steps.append("The kernel sends \(destination) nowhere: \(reason).")
            explainAbsence(candidates)
            verdict = .unreachable
            return
        case .link(let name, let gateway, let source):
            let next = gateway.map { " via \($0)" } ?? ""
            let from = source.map { " from \($0)" } ?? ""
            steps.append("The kernel sends \(destination) by \(name)\(next)\(from), not into \(interface).")
            if let match { steps.append(match) }
            if let leftOut { steps.append("\(leftOut).") }
            explainAbsence(candidates)
            verdict = .elsewhere(interface: name)
            return
        }
        guard let chosen = choose(among: candidates) else {
            steps.append("No connection has a prefix with \(destination).")
            return
        }
        explainTunnel(of: chosen.connection, way)
    }

    // MARK: Connections

    private struct Candidate {
        let prefix: IPPrefix
        let metric: UInt32
        let connection: Connection

        var health: PrefixChoice.Health { connection.candidate.health }
        var words: String { "\(prefix) of \(connection.name), metric \(metric)" }
        var reason: String { connection.reason.map { ": \($0)" } ?? "" }
    }

    /// The best first.
    private static func candidates(for destination: IPAddress, _ connections: [Connection]) -> [Candidate] {
        let all = connections.enumerated().flatMap { number, connection in
            connection.candidate.claims.filter { $0.prefix.contains(destination) }.map {
                (number, Candidate(prefix: $0.prefix, metric: $0.metric, connection: connection))
            }
        }
        let sorted = all.sorted { a, b in
            (-a.1.prefix.length, a.1.metric, a.0) < (-b.1.prefix.length, b.1.metric, b.0)
        }
        // One that a connection has twice, as configured and learned, is told once.
        var known: Set<[Int]> = []
        return sorted.filter { known.insert([$0.0, $0.1.prefix.length]).inserted }.map(\.1)
    }

    private mutating func choose(among candidates: [Candidate]) -> Candidate? {
        guard let first = candidates.first else { return nil }
        for (position, candidate) in candidates.enumerated() {
            guard candidate.health.isUsable else {
                steps.append("\(candidate.words): passed over, as it is not usable\(candidate.reason).")
                continue
            }
            let why = position == 0 ? "the longest prefix, then the least metric" : "the next that is usable"
            steps.append("\(candidate.words): taken, \(why).")
            if let second = candidates.dropFirst(position + 1).first {
                steps.append("\(second.words): would be next.")
            }
            prefix = candidate.prefix
            return candidate
        }
        let equals = candidates.prefix { $0.prefix == first.prefix }
        let chosen = equals.first { $0.health != .dead } ?? first
        steps.append("None is usable: \(chosen.words) keeps it.")
        return chosen
    }

    /// Why the kernel does not send into the TUN what a connection has a prefix for.
    private mutating func explainAbsence(_ candidates: [Candidate]) {
        guard let first = candidates.first else {
            steps.append("No connection has a prefix with \(destination).")
            return
        }
        let equals = candidates.prefix { $0.prefix == first.prefix }
        for candidate in equals {
            steps.append(
                "\(candidate.words): \(candidate.health.isUsable ? "usable" : "not usable\(candidate.reason)")."
            )
        }
        if equals.contains(where: { $0.health != .dead }) {
            steps.append(
                "The kernel has no way into the TUN for it, or somebody else's route comes first: "
                    + "'vgwctl route list' says which of ours are missing.")
        } else {
            switch first.connection.candidate.onDown {
            case .unreachable:
                steps.append(
                    "Its connection is down: \(first.prefix) is unreachable unless another route has it "
                        + "(on-down = \"unreachable\").")
            case .withdraw:
                steps.append(
                    "Its connection is down and \(first.prefix) withdrawn: the next shorter route has it "
                        + "(on-down = \"withdraw\").")
            }
        }
    }

    // MARK: Tunnels

    private mutating func explainTunnel(of connection: Connection, _ way: (String, Endpoint) -> Way?) {
        for tunnel in connection.tunnels {
            let use = tunnel.isActive ? "in use" : "not in use"
            steps.append(
                "Tunnel \(tunnel.name) is \(tunnel.state), \(use)\(tunnel.reason.map { ": \($0)" } ?? "").")
        }
        let active = connection.tunnels.filter(\.isActive)
        guard let first = active.first else {
            verdict = .dropped("\(connection.name) has no tunnel to send by")
            return
        }
        var verdicts: [Verdict] = []
        for tunnel in active { verdicts.append(leave(by: tunnel, of: connection, way)) }
        guard connection.isBalanced, active.count > 1 else {
            verdict = verdicts.first ?? .dropped("\(first.name) has no way")
            return
        }
        steps.append(
            "\(connection.name) spreads flows over \(active.count) tunnels by their addresses and ports.")
        verdict = .spread(connection: connection.name, tunnels: active.map(\.name))
    }

    private mutating func leave(
        by tunnel: Tunnel, of connection: Connection, _ way: (String, Endpoint) -> Way?
    ) -> Verdict {
        guard let endpoint = tunnel.endpoint else {
            steps.append("The endpoint of \(tunnel.name) is not known: packets wait or are dropped.")
            return .dropped("the endpoint of \(tunnel.name) is not known")
        }
        func verdict(_ interface: String?, _ source: IPAddress?) -> Verdict {
            .tunnel(
                connection: connection.name, tunnel: tunnel.name, endpoint: endpoint, interface: interface,
                source: source)
        }
        switch way(tunnel.name, endpoint) {
        case nil:
            steps.append("Outer packets of \(tunnel.name) go to \(endpoint).")
            return verdict(nil, nil)
        case .link(let name, let gateway, let source):
            let next = gateway.map { " via \($0)" } ?? ""
            let from = source.map { " from \($0)" } ?? ""
            steps.append("Outer packets of \(tunnel.name) go to \(endpoint) by \(name)\(next)\(from).")
            return verdict(name, source)
        case .tun:
            steps.append("A route leads \(endpoint) of \(tunnel.name) into the tunnel itself: a loop.")
            return .dropped("a route over \(endpoint.address) leads the tunnel into itself")
        case .nowhere(let reason):
            steps.append("There is no way to \(endpoint) of \(tunnel.name): \(reason).")
            return .dropped("there is no way to \(endpoint): \(reason)")
        }
    }
}
