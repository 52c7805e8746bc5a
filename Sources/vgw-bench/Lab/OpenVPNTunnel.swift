/// OpenVPN 2.6 between two hosts: TLS with pinned certificates, one data cipher, no compression, in user space.
struct OpenVPNTunnel {
    private static let port = 1194

    let lab: Lab
    let program: String
    let cipher: String

    func start() async throws -> [DaemonProcess] {
        try await makeCertificates()
        var daemons: [DaemonProcess] = []
        // b is the server, and is there first.
        for host in [Lab.Host.b, .a] {
            let fingerprint = try await Shell.run(
                "openssl x509 -noout -sha256 -fingerprint -in \(lab.directory)/\(host.other.rawValue).crt"
                    + " | cut -d= -f2")
            var arguments = [
                "--dev", lab.interface(host), "--dev-type", "tun", "--proto", "udp4",
                "--local", host.outer, "--lport", "\(Self.port)",
                "--remote", host.other.outer, "--rport", "\(Self.port)",
                host == .b ? "--tls-server" : "--tls-client",
                "--cert", "\(lab.directory)/\(host.rawValue).crt",
                "--key", "\(lab.directory)/\(host.rawValue).key",
                "--peer-fingerprint", fingerprint,
                "--data-ciphers", cipher,
                // The lab sets the same addresses and MTU for all; the kernel's module is not the daemon.
                "--ifconfig", host.inner, "255.255.255.0", "--topology", "subnet", "--ifconfig-noexec",
                "--tun-mtu", "1420", "--mssfix", "0", "--disable-dco", "--txqueuelen", "1000",
                "--verb", "1",
            ]
            if host == .b { arguments += ["--dh", "none"] }
            daemons.append(try await DaemonProcess.start([program] + arguments, on: host, in: lab))
        }
        return daemons
    }

    private func makeCertificates() async throws {
        for host in Lab.Host.allCases {
            let path = "\(lab.directory)/\(host.rawValue)"
            try await Shell.run(
                """
                umask 077
                openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days 2 \
                    -subj /CN=vgw-bench-\(host.rawValue) -keyout \(path).key -out \(path).crt
                """)
        }
    }
}
