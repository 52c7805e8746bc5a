/// What carries the traffic, and how it is set up.
struct Implementation: Sendable {
    enum Kind: Sendable {
        /// Nothing but the veth pair.
        case wire
        /// Run as `COMMAND INTERFACE` and set up with `wg`.
        case wireGuard(command: [String], environment: [String: String])
        case openVPN(program: String, cipher: String)
        case fastd(program: String)
    }

    var name: String
    var kind: Kind
    /// Said by the daemon once it has carried data, where that must be so.
    var provenBy: String?
    /// Cipher of the WireGuard handshakes that it answers, by vgwd's name for it; nil when it answers none.
    var handshakeCipher: String?

    /// For the report: what was run.
    var program: String {
        switch kind {
        case .wire: "nothing: the veth pair alone"
        case .wireGuard(let command, let environment):
            command[0] + (environment["LD_PRELOAD"] == nil ? "" : ", the null cipher preloaded")
        case .openVPN(let program, let cipher): "\(program), \(cipher)"
        case .fastd(let program): "\(program), \(FastdTunnel.method)"
        }
    }

    var hasDaemon: Bool {
        if case .wire = kind { return false }
        return true
    }
}
