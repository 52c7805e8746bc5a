internal import Daemon
internal import GatewayCore
internal import LinuxIO
internal import WireGuard

/// What becomes of many routes between the configuration file or `wg set`, the forwarding table and the kernel.
struct RouteLoop {
    private let prefixes: [IPPrefix]
    private let text: String

    /// `count` prefixes of IPv4 beside each other: 10.0.0.0/26, 10.0.0.64/26 and so on.
    init(count: Int) {
        prefixes = (0..<count).compactMap {
            IPPrefix(address: IPAddress(v4: 0x0a00_0000 + UInt32($0) * 64), length: 26)
        }
        text = """
            [gateway]
            private-key-file = "key"
            [[connection]]
            name = "far"
            routes = [
            \(prefixes.map { "  \"\($0)\"," }.joined(separator: "\n"))
            ]
            [[connection.tunnel]]
            public-key = "\(Self.publicKey(1).base64)"
            """
    }

    func reading() throws -> Duration {
        try ContinuousClock().measure {
            let read = try GatewayConfiguration.parse(text, files: Files())
            precondition(read.connections[0].routes.count == prefixes.count)
        }
    }

    func choosing() -> Duration {
        let candidate = PrefixChoice.Candidate(prefixes.map { PrefixChoice.Claim($0) }, health: .usable)
        return ContinuousClock().measure {
            precondition(PrefixChoice([candidate, candidate]).kernel.count == prefixes.count)
        }
    }

    func forwarding() -> Duration {
        let path = TunnelPath(peer: PeerID(0))
        return ContinuousClock().measure {
            let table = ForwardingTable(
                connections: [ForwardingTable.Connection(prefixes: prefixes, paths: [path])], mtu: 1420)
            precondition(table.connection(for: prefixes[0].address) != nil)
        }
    }

    func planning() -> Duration {
        let plan = RoutePlan(table: 51820, mark: 51820, addresses: [])
        let wanted = prefixes.map { WantedPrefix($0) }
        return ContinuousClock().measure {
            let changes = plan.wanted(for: wanted, interface: 1).changes(from: KernelState())
            precondition(changes.count > 2 * prefixes.count)
        }
    }

    func moving() throws -> Duration {
        try applying([change(2) { $0.allowedIPs = prefixes.map { .add($0) } }])
    }

    func removing() throws -> Duration {
        try applying([change(1) { $0.allowedIPs = prefixes.map { .remove($0) } }])
    }

    /// Time of a `wg set` to a gateway whose first peer has all prefixes.
    private func applying(_ peers: [WgPeerChange]) throws -> Duration {
        var state = GatewaySpec()
        var set = WgSet()
        set.peers = [change(1) { $0.allowedIPs = prefixes.map { .add($0) } }]
        guard state.apply(set) != nil else { throw Failure("wg set was refused") }
        set.peers = peers
        return ContinuousClock().measure { precondition(state.apply(set) != nil) }
    }

    private func change(_ number: UInt8, _ body: (inout WgPeerChange) -> Void) -> WgPeerChange {
        var change = WgPeerChange(publicKey: Self.publicKey(number))
        body(&change)
        return change
    }

    private static func publicKey(_ number: UInt8) -> PublicKey {
        PrivateKey(clamping: SecretBytes([UInt8](repeating: number, count: 32))).publicKey
    }

    /// A key, whatever the path.
    private struct Files: ConfigurationFiles {
        func key(at path: String) throws(FileProblem) -> SecretBytes? {
            SecretBytes([UInt8](repeating: 3, count: 32))
        }
        func tampering(with path: String) -> FileProblem? { nil }
        func obstacle(to access: FileAccess, at path: String) -> FileProblem? { nil }
        func obstacle(to kind: FileStatus.Kind, at path: String) -> FileProblem? { nil }
    }
}
