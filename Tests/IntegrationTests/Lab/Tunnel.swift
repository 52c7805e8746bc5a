internal import Testing

/// Which daemons a tunnel joins. Only the end at onprem knows an endpoint unless a test says otherwise: so it
/// is the one that initiates, and that rekeys.
struct Pairing: Sendable, CustomTestStringConvertible, Hashable {
    var initiator: Gateway.Kind
    var responder: Gateway.Kind

    var testDescription: String { "\(initiator) to \(responder)" }

    static let ours = Pairing(initiator: .configured, responder: .configured)
    static let driven = Pairing(initiator: .driven, responder: .driven)
    static let toGo = Pairing(initiator: .configured, responder: .wireguardGo)
    static let fromGo = Pairing(initiator: .wireguardGo, responder: .configured)

    /// vgwd with itself, and in either role with wireguard-go.
    static let all = effective([ours, toGo, fromGo])
    static let allAndDriven = effective([ours, driven, toGo, fromGo])

    private static func effective(_ pairings: [Pairing]) -> [Pairing] {
        Lab.reference ? [Pairing(initiator: .wireguardGo, responder: .wireguardGo)] : pairings
    }
}

/// Two gateways that hold each other's keys. Starting it is the test's.
struct Tunnel: Sendable {
    let lab: Lab
    let onprem: Gateway
    let vpc: Gateway

    /// - Parameter bothInitiate: the end at vpc knows an endpoint as well.
    static func make(
        in lab: Lab, _ pairing: Pairing, underlay: Family = .v4, bothInitiate: Bool = false,
        presharedKey: String? = nil, keepalive: Int = 0, mtu: Int = 1420
    ) async throws -> Tunnel {
        let keys = [Site.onprem: try await KeyPair.generate(), Site.vpc: try await KeyPair.generate()]
        func gateway(_ site: Site, _ kind: Gateway.Kind, initiates: Bool) throws -> Gateway {
            let settings = Gateway.Settings(
                keys: try #require(keys[site]), peerPublicKey: try #require(keys[site.other]).publicKey,
                presharedKey: presharedKey,
                endpoint: initiates ? underlay.endpoint(site.other.underlay(underlay), 51820) : nil,
                keepalive: initiates ? keepalive : 0, mtu: mtu, routes: site.other.prefixes,
                addresses: Family.allCases.map { "\(site.inside($0))/\($0.hostPrefix)" })
            return Gateway(lab: lab, site: site, kind: kind, settings: settings)
        }
        return Tunnel(
            lab: lab, onprem: try gateway(.onprem, pairing.initiator, initiates: true),
            vpc: try gateway(.vpc, pairing.responder, initiates: bothInitiate))
    }

    /// A lab with a tunnel that is up.
    static func run(
        _ pairing: Pairing, underlay: Family = .v4, bothInitiate: Bool = false, presharedKey: String? = nil,
        keepalive: Int = 0, mtu: Int = 1420, underlayMTU: Int = 1500, _ body: (Tunnel) async throws -> Void
    ) async throws {
        try await Lab.run(mtu: underlayMTU) { lab in
            let tunnel = try await Tunnel.make(
                in: lab, pairing, underlay: underlay, bothInitiate: bothInitiate, presharedKey: presharedKey,
                keepalive: keepalive, mtu: mtu)
            try await tunnel.start()
            try await tunnel.reach(from: .onprem)
            try await body(tunnel)
        }
    }

    /// The answering end first, so that the first initiation finds it.
    func start() async throws {
        try await vpc.start()
        try await onprem.start()
    }

    subscript(site: Site) -> Gateway { site == .onprem ? onprem : vpc }
}
