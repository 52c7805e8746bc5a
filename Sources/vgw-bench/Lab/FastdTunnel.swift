internal import FoundationEssentials

/// fastd between two hosts, with the method its documentation recommends for speed.
struct FastdTunnel {
    static let method = "salsa2012+umac"
    private static let port = 10000

    let lab: Lab
    let program: String

    func start() async throws -> [DaemonProcess] {
        var publicKeys: [Lab.Host: String] = [:]
        for host in Lab.Host.allCases {
            let secret = "\(lab.directory)/\(host.rawValue).secret"
            publicKeys[host] = try await Shell.run(
                """
                umask 077
                echo "secret \\"$(\(Shell.quote(program)) --machine-readable --generate-key)\\";" >\(secret)
                \(Shell.quote(program)) --config \(secret) --machine-readable --show-key
                """)
        }
        var daemons: [DaemonProcess] = []
        // Only a knows where the other is, and b is there first: when both begin at once, each may settle on the
        // handshake that the other has let go, and no packet passes until the next one.
        for host in [Lab.Host.b, .a] {
            let remote = host == .a ? "remote \(host.other.outer):\(Self.port);" : ""
            let configuration = "\(lab.directory)/\(host.rawValue).conf"
            try """
            log level info;
            mode tun;
            interface "\(lab.interface(host))";
            mtu 1420;
            method "\(Self.method)";
            bind \(host.outer):\(Self.port);
            include "\(lab.directory)/\(host.rawValue).secret";
            peer "\(host.other.rawValue)" {
                key "\(publicKeys[host.other] ?? "")";
                \(remote)
            }

            """.write(toFile: configuration, atomically: false, encoding: .utf8)
            daemons.append(
                try await DaemonProcess.start([program, "--config", configuration], on: host, in: lab))
            try await Shell.run(Work.untilSaid("\(lab.inside(host)) ss -Hlun 'sport = :\(Self.port)'"))
        }
        return daemons
    }
}
