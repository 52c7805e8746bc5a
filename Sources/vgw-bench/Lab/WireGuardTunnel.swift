/// Two daemons that `wg` sets up: vgwd, wireguard-go and their like.
struct WireGuardTunnel {
    static let port = 51820

    let lab: Lab
    let command: [String]
    let environment: [String: String]

    func start() async throws -> [DaemonProcess] {
        var daemons: [DaemonProcess] = []
        for host in Lab.Host.allCases {
            let daemon = try await DaemonProcess.start(
                command + [lab.interface(host)], environment: environment, on: host, in: lab)
            daemons.append(daemon)
            try await awaitSocket(of: host, daemon)
        }
        try await configure()
        return daemons
    }

    private func awaitSocket(of host: Lab.Host, _ daemon: DaemonProcess) async throws {
        do {
            try await Shell.run(
                """
                for try in $(seq 200); do
                    [ -S /run/wireguard/\(lab.interface(host)).sock ] && exit 0
                    [ -d /proc/\(daemon.pid) ] || break
                    sleep 0.05
                done
                tail -n 1 \(lab.log(host)) >&2
                exit 1
                """)
        } catch let failure as Shell.Failure {
            throw Failure("did not start: \(failure.errors.split(separator: "\n").last ?? "no word why")")
        }
    }

    private func configure() async throws {
        var script = "umask 077; cd \(lab.directory)\n"
        for host in Lab.Host.allCases {
            let name = host.rawValue
            script += "wg genkey >\(name).key; wg pubkey <\(name).key >\(name).pub\n"
        }
        for host in Lab.Host.allCases {
            script += """
                \(lab.inside(host)) wg set \(lab.interface(host)) private-key \(host.rawValue).key \
                    listen-port \(Self.port) peer "$(cat \(host.other.rawValue).pub)" \
                    endpoint \(host.other.outer):\(Self.port) allowed-ips \(host.other.inner)/32

                """
        }
        try await Shell.run(script + "rm *.key")
    }
}
