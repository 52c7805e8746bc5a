package import GatewayCore
package import WireGuard

/// What a run of the daemon is made from: a configuration file, or the name of an interface that `wg` sets
/// up.
package struct DaemonSettings: Sendable {
    package var name: String
    package var interface: String
    package var spec: GatewaySpec
    package var plan: RoutePlan
    /// What the configuration says of the mark and the table; nil where somebody else manages them.
    let wishes: RoutingNumbers.Wishes?
    /// Marks of rules that earlier runs made (`takeNumbers`); nil where no earlier run left anything.
    var earlierMarks: Set<UInt32>? = []
    package var mtu: GatewayConfiguration.MTU
    package var offloads: OffloadConfiguration
    /// Pairs of data threads; fewer where the kernel cannot share the work out.
    package var workers = 1
    package var stateDirectory: String
    /// The control API's socket; nil for none. One that cannot be made ends a run by a configuration, and no other.
    package var controlSocket: String?
    /// Asked for the names of endpoints; empty where those of the system are.
    package var nameServers: [Endpoint] = []
    package var hooks: [HookConfiguration] = []
    /// Whether vgwd itself sets addresses and brings the interface up.
    package var managesLink: Bool
    /// Opened by whoever started us (WG_TUN_FD, WG_UAPI_FD).
    package var tunDescriptor: Int32?
    package var wgDescriptor: Int32?
    /// Written to, and closed, once the sockets answer.
    package var readyDescriptor: Int32?

    /// Connections at a time (`ProcessNeeds`).
    var wgClientLimit = 64
    var controlClientLimit = 512

    package init(_ configuration: GatewayConfiguration) {
        name = configuration.name
        interface = configuration.interface
        spec = GatewaySpec(
            privateKey: configuration.privateKey, listenPort: configuration.listenPort,
            firewallMark: configuration.routingNumbers.preferred.mark,
            connections: configuration.connections)
        plan = RoutePlan(configuration)
        wishes = configuration.routingNumbers
        mtu = configuration.mtu
        offloads = configuration.offloads
        workers = configuration.workers
        stateDirectory = configuration.stateDirectory
        controlSocket = configuration.control.socket
        nameServers = configuration.nameServers
        hooks = configuration.hooks
        managesLink = true
    }

    /// For what a run keeps beside its gateway: the keys are in that alone, and of its spec the firewall mark is left.
    var withoutSpec: DaemonSettings {
        var settings = self
        settings.spec = GatewaySpec()
        settings.spec.firewallMark = spec.firewallMark
        return settings
    }

    /// Addresses, routes and the mark are the business of whoever drives `wg`. `cipher` is that of every peer,
    /// by its name in a configuration; nil is WireGuard's own.
    package init(interface: String, cipher: String? = nil) throws(DaemonError) {
        if let problem = Names.interfaceProblem(interface, shownAs: "'\(interface)'") {
            throw DaemonError("\(problem.problem); \(problem.remedy)")
        }
        var spec = GatewaySpec()
        if let cipher {
            guard let known = Cipher(rawValue: cipher) else {
                let names = Cipher.allCases.map(\.rawValue).joined(separator: " or ")
                throw DaemonError("'\(cipher)' is no cipher: write \(names)")
            }
            guard known.isAvailable else {
                throw DaemonError(
                    "this processor has no instructions for \(cipher) (AES and carry-less multiplication)")
            }
            spec.cipherOfNewPeers = known
        }
        self.spec = spec
        name = interface
        self.interface = interface
        plan = RoutePlan(table: nil, mark: 0, addresses: [])
        wishes = nil
        mtu = .bytes(1420)
        offloads = OffloadConfiguration()
        stateDirectory = GatewayConfiguration.defaultStateDirectory
        controlSocket = Self.controlSocket(of: interface)
        managesLink = false
    }

    /// Nil for the one interface whose socket would be where a configured gateway has its own.
    private static func controlSocket(of interface: String) -> String? {
        let path = "/run/vgwd/\(interface).sock"
        return path == GatewayConfiguration.defaultSocket ? nil : path
    }

}

/// Why the daemon cannot start, or cannot go on, in words for its log.
package struct DaemonError: Error, CustomStringConvertible {
    /// The exit status where another try may go better. systemd makes it.
    package static let failure: Int32 = 1
    /// Where a permission is missing, which does not come by itself (EX_NOPERM of sysexits). The unit does not restart
    /// vgwd then.
    package static let notPermitted: Int32 = 77

    package let description: String
    package let exitStatus: Int32

    package init(_ description: String, exitStatus: Int32 = failure) {
        self.description = description
        self.exitStatus = exitStatus
    }
}
