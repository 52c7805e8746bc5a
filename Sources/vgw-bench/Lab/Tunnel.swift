internal import FoundationEssentials

/// A tunnel between the hosts of a lab that has carried a packet, with its daemons.
struct Tunnel: Sendable {
    let lab: Lab
    let implementation: Implementation
    /// Host b's address, as host a reaches it through what is measured.
    let address: String
    let daemons: [DaemonProcess]

    /// Starts both daemons and returns once a packet has come through.
    static func start(_ implementation: Implementation, in lab: Lab) async throws -> Tunnel {
        let daemons: [DaemonProcess] =
            switch implementation.kind {
            case .wire: []
            case .wireGuard(let command, let environment):
                try await WireGuardTunnel(lab: lab, command: command, environment: environment).start()
            case .openVPN(let program, let cipher):
                try await OpenVPNTunnel(lab: lab, program: program, cipher: cipher).start()
            case .fastd(let program): try await FastdTunnel(lab: lab, program: program).start()
            }
        if implementation.hasDaemon { try await setAddresses(lab) }
        let tunnel = Tunnel(
            lab: lab, implementation: implementation,
            address: implementation.hasDaemon ? Lab.Host.b.inner : Lab.Host.b.outer, daemons: daemons)
        try await tunnel.awaitPacket(tries: 20)
        try tunnel.checkProof()
        return tunnel
    }

    /// The same for all: one address a side and the MTU of WireGuard, so that all carry packets of one size.
    private static func setAddresses(_ lab: Lab) async throws {
        var script = ""
        for host in Lab.Host.allCases {
            let (namespace, interface) = (lab.namespace(host), lab.interface(host))
            script += """
                for try in $(seq 100); do
                    ip -n \(namespace) link show \(interface) &>/dev/null && break
                    sleep 0.05
                done
                ip -n \(namespace) addr add \(host.inner)/24 dev \(interface)
                ip -n \(namespace) link set \(interface) mtu 1420 up

                """
        }
        try await Shell.run(script)
    }

    func awaitPacket(tries: Int) async throws {
        do {
            try await Shell.run(
                """
                for try in $(seq \(tries)); do
                    \(lab.inside(.a)) ping -q -c 1 -W 1 \(address) >/dev/null && exit 0
                done
                exit 1
                """)
        } catch is Shell.Failure {
            throw Failure("no packet comes through\(lastWords)")
        }
    }

    private func checkProof() throws {
        guard let proof = implementation.provenBy else { return }
        for host in Lab.Host.allCases where !text(of: host).contains(proof) {
            throw Failure("the daemon on host \(host.rawValue) did not say '\(proof)'")
        }
    }

    /// The end of the first log that has one.
    private var lastWords: String {
        for host in Lab.Host.allCases {
            guard let line = text(of: host).split(separator: "\n").last else { continue }
            return "; the daemon on host \(host.rawValue) said last: \(line)"
        }
        return ""
    }

    private func text(of host: Lab.Host) -> String {
        (try? String(contentsOfFile: lab.log(host), encoding: .utf8)) ?? ""
    }
}

/// Why something could not be measured, for the report.
struct Failure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
