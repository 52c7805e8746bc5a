internal import ControlAPI
internal import Testing

extension Integration {
    /// What an operator reads of a gateway is so.
    @Suite(.enabled(if: !Lab.reference, "about what vgwd says of itself")) struct Status {
        @Test("what is not known, not measured or not used is not shown as if it were")
        func unknown() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .ours).onprem
                let nowhere = Site.vpc.router(.v4)
                // Asked for a name, this one says nothing.
                try await lab.start(
                    ["socat", "-u", "UDP4-RECV:53,bind=\(nowhere)", "OPEN:/dev/null"], name: "mute",
                    in: lab.internet)
                let keys = [try await KeyPair.generate(), try await KeyPair.generate()]
                onprem.change {
                    $0.gatewayLine = "dns = [\"\(nowhere)\"]"
                    $0.connections = [
                        ConnectionText(
                            name: "bare", routes: [], lines: [],
                            tunnels: [
                                ConnectionText.TunnelText(
                                    name: "named", publicKey: keys[0].publicKey,
                                    lines: ["endpoint = [\"vgw.example.com:51820\"]"])
                            ]),
                        ConnectionText(
                            name: "silent", routes: ["10.20.0.0/16"], lines: [],
                            tunnels: [
                                ConnectionText.TunnelText(
                                    name: "probed", publicKey: keys[1].publicKey,
                                    lines: [
                                        "endpoint = [\"\(nowhere):9\"]",
                                        "inside = { local = \"169.254.101.2\", remote = \"169.254.101.1\" }",
                                    ])
                            ]),
                    ]
                    $0.isMTUAutomatic = true
                }
                try await onprem.start()
                func tunnel(_ name: String) async throws -> TunnelStatus {
                    try #require(try await onprem.tunnels().first { $0.name == name })
                }
                try #require(try await tunnel("named").reason == "looking up vgw.example.com")
                try #require(try await onprem.vgwctl("status").status == 2)
                try #require(try await tunnel("named").notProbed == "no inside addresses")
                try await eventually("both are down") {
                    try await onprem.status()?.connections.allSatisfy { $0.state == .down } ?? false
                }
                let named = try await tunnel("named")
                try #require(named.reason?.contains("vgw.example.com does not resolve") == true, "\(named)")
                let probed = try await tunnel("probed")
                try #require(probed.isActive == false && probed.isProbed == true && probed.windows == nil)
                try #require(probed.pathMTU == nil && probed.assumedMTU == 1420, "\(probed)")
                let silent = try #require(try await onprem.status()?.connections.last)
                try #require(silent.activeTunnels == [] && silent.isUsable == false)
                let shown = try await onprem.vgwctl("status --drops", width: 60)
                try #require(shown.status == 3 && shown.output.contains("2 connections down"), "\(shown)")
                try #require(shown.output.contains("bare: no usable tunnel, and no routes\n"), "\(shown)")
                try #require(shown.output.split(separator: "\n").allSatisfy { $0.count <= 60 }, "\(shown)")
                let missing = try await onprem.vgwctl("status moon")
                try #require(
                    missing.status == 1 && missing.errors.contains("no connection moon"), "\(missing)")

                func silence() async throws -> Int {
                    let words = try await tunnel("probed").reason ?? ""
                    let span = words.firstRange(of: " for ").map { words[$0.upperBound...] }
                    return Int((span ?? "").prefix { $0.isNumber }) ?? -1
                }
                let before = try await silence()
                try await Task.sleep(for: .seconds(2))
                let grown = try await silence() - before
                try #require((1...4).contains(grown), "\(before), and \(grown) more after two seconds")

                // The kernel asks no router behind the tunnels.
                try #require(try await onprem.status()?.drops.filter { $0.value > 0 } == [:])

                let process = try onprem.process.pid
                let second = try await Shell.attempt(
                    "sed 's/^interface = .*/interface = \"vgwit-none\"/; s/control.sock/second.sock/' "
                        + "\(lab.directory)/onprem.toml >\(lab.directory)/second.toml; "
                        + "\(Programs.path("vgwd")) --config \(lab.directory)/second.toml",
                    in: onprem.namespace, limit: 20)
                try #require(
                    second.status == 1
                        && second.errors.contains("'vgwd' (process \(process)) has UDP port 51820"),
                    "\(second)")
            }
        }

        @Test(
            "orders name who gave them, drills are marked, and an interface that is down is no connection up")
        func orders() async throws {
            try await Bundle.run(Bundle.Options(lines: ["health = { hold-down = \"0s\" }"])) { bundle in
                let onprem = bundle.onprem
                func last(_ kind: GatewayEvent.Kind) async throws -> GatewayEvent {
                    try #require(try await onprem.events(kind).last, "no \(kind.rawValue)")
                }
                func order(_ arguments: String) async throws {
                    let answer = try await onprem.vgwctl(arguments)
                    try #require(answer.succeeded, "\(answer)")
                }
                try await order("tunnel prefer internet")
                let preferred = try await last(.tunnelPreferred)
                try #require(preferred.tunnel == "internet" && preferred.details["user"] == "root")
                let failover = try await last(.failover)
                try #require(
                    failover.reason == "operator" && failover.details["user"] == "root", "\(failover)")
                try #require(failover.drill == nil)
                try await order("tunnel unprefer internet")
                try #require(try await last(.tunnelUnpreferred).details["user"] == "root")
                try await order("tunnel prefer link")
                try await order("tunnel prefer link")
                try #require(
                    try await onprem.events(.tunnelPreferred).count == 2, "what changes nothing is no event")
                try await order("tunnel down internet")
                try #require(try await last(.tunnelDisabled).details["user"] == "root")
                try #require(try await onprem.vgwctl("status vpc --json").status == 2)
                try await order("tunnel up internet")
                try await bundle.become(.up, .internet)
                try await order("route add 10.30.0.0/16 via vpc")
                try #require(try await last(.routeAdded).details["user"] == "root")
                try await order("route del 10.30.0.0/16")
                try #require(try await last(.routeRemoved).details["user"] == "root")

                try await order("drill vpc --for 2s")
                try await bundle.activated(.link)
                let events = try await onprem.events()
                let start = try #require(events.lastIndex { $0.kind == .drillStarted })
                let told = events[start...].filter { $0.kind != .tunnelConnecting }
                try #require(
                    told.map(\.kind.rawValue).sorted()
                        == [
                            "drill-finished", "drill-started", "failover", "failover", "tunnel-down",
                            "tunnel-up",
                        ],
                    "\(told)")
                try #require(told.allSatisfy { $0.drill == true } && told.first?.details["user"] == "root")
                // What happens after it is real.
                try await bundle.lab.cut(.link)
                try await bundle.become(.down, .link)
                try #require(try await last(.tunnelDown).drill == nil)
                let cut = try await onprem.tunnel(over: .link)
                try #require(cut.windows == nil && cut.isActive == false, "\(cut)")
                try #require(try await onprem.tunnel(over: .internet).windows != nil)
                try await bundle.lab.mend(.link)
                try await bundle.become(.up, .link)

                try #require(try await onprem.vgwctl("status").status == 0)
                try await Shell.run("ip link set \(onprem.interface) down", in: onprem.namespace)
                try await eventually("the connection is down") {
                    try await onprem.status()?.connections.first?.state == .down
                }
                let down = try await onprem.vgwctl("status")
                try #require(down.status == 3 && down.output.contains("is down: nothing passes"), "\(down)")
                try await Shell.run("ip link set \(onprem.interface) up", in: onprem.namespace)
                try await eventually("it is up again") { try await onprem.vgwctl("status").status == 0 }
            }
        }

        @Test("LOG_LEVEL=debug tells each handshake message at both ends, and warning none of them")
        func handshakes() async throws {
            try await Tunnel.run(.ours) { tunnel in
                let (onprem, vpc) = (tunnel.onprem, tunnel.vpc)
                for (gateway, words) in [
                    (onprem, ["initiation sent", "response received"]),
                    (vpc, ["initiation received", "response sent"]),
                ] {
                    let log = tunnel.lab.log(of: try gateway.process)
                    for word in words { try #require(log.contains("debug handshake \(word) "), "\(word)") }
                }
                let secrets = [onprem.settings.keys.privateKey, vpc.settings.keys.privateKey]
                for gateway in [onprem, vpc] {
                    let log = tunnel.lab.log(of: try gateway.process)
                    try #require(!secrets.contains { log.contains($0) })
                }
                _ = try await onprem.process.terminate()
                onprem.change { $0.launcher = ["env", "LOG_LEVEL=warning"] }
                let before = tunnel.lab.log(of: try onprem.process).utf8.count
                try await onprem.start()
                try await tunnel.reach(from: .onprem)
                _ = try await onprem.process.terminate()
                let said = tunnel.lab.log(of: try onprem.process).utf8.dropFirst(before)
                let lines = String(decoding: Array(said), as: UTF8.self).split(separator: "\n")
                let levels = Set(lines.compactMap { $0.split(separator: " ").dropFirst().first })
                try #require(levels.isSubset(of: ["warning", "error", "critical"]), "\(lines)")
            }
        }
    }
}
