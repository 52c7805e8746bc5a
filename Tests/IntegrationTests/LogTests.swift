internal import ControlAPI
internal import Testing

extension Integration {
    /// The log of the daemon, and who does not read it.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own log")) struct Log {
        @Test("a log that nobody reads stops nothing, and says what it lost once somebody reads")
        func unread() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                let (onprem, pipe) = (tunnel.onprem, "\(lab.directory)/log-pipe")
                try await Shell.run("mkfifo \(pipe)")
                // It reads and writes the pipe itself, and so never finds it without a reader.
                onprem.change { $0.launcher = ["bash", "-c", "exec 3<>\"$0\" 2>\"$0\"; exec \"$@\"", pipe] }
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)

                // Each of these is refused, as the port is taken, and is a line of more than 100 bytes: the pipe holds
                // 64 KB.
                try await lab.start(
                    ["socat", "-u", "UDP4-RECV:5555", "OPEN:/dev/null"], name: "taken", in: onprem.namespace)
                try await eventually("the port is taken") {
                    try await Shell.run("ss -Hulpn", in: onprem.namespace).contains(":5555 ")
                }
                let refused = try await Shell.run(
                    """
                    for _ in {1..8000}; do printf 'set=1\\nlisten_port=5555\\n\\n'; done \
                        | socat -t 50 - UNIX-CONNECT:\(onprem.uapiSocket) | grep -c '^errno=-98$'
                    """)
                try #require(refused == "8000")
                for site in Site.allCases { try await tunnel.ping(from: site, .v4) }
                try await tunnel.transfer(from: .onprem, megabytes: 20)
                try #require(try await onprem.vgwctl("status").succeeded)
                try #require(try await onprem.vgwctl("route add 10.30.0.0/16 via vpc").succeeded)

                let told = try await Shell.run("grep -m 1 'lines of the log were dropped' \(pipe)")
                let count = told.split(separator: " ").compactMap { Int($0) }.first
                try #require(count ?? 0 > 1000, "\(told)")
                // What came last is there.
                try await Shell.run("grep -m 1 'route added.*10.30.0.0/16' \(pipe)")
                try #require(try await onprem.process.terminate() == 0)
            }
        }
    }
}
