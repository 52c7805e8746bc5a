internal import ControlAPI
internal import Glibc
internal import Testing

extension Integration {
    /// What an operator orders, rehearses and is told.
    @Suite(.enabled(if: !Lab.reference, "about vgwctl")) struct Operators {
        @Test("tunnels are taken down, put up and preferred by hand")
        func orders() async throws {
            try await Bundle.run { bundle in
                let onprem = bundle.onprem
                func order(_ text: String) async throws {
                    let answer = try await onprem.vgwctl("tunnel \(text)")
                    try #require(answer.succeeded, "\(answer)")
                }
                func sends(by tunnel: String) async throws {
                    try await eventually("onprem sends by \(tunnel)") {
                        try await onprem.activeTunnels() == [tunnel]
                    }
                    for site in Site.allCases { try await bundle.traffic.ping(from: site, .v4) }
                }
                // With both ways there, an order loses nothing of what this end sends.
                try await order("prefer internet")
                try await sends(by: "internet")
                try #require(try await onprem.tunnel(over: .internet).isPreferred == true)
                try await order("unprefer internet")
                try await sends(by: "link")

                try await order("down link")
                let tunnel = try await onprem.tunnel(over: .link)
                try #require(tunnel.state == .disabled && tunnel.reasonCode == "operator", "\(tunnel)")
                try await eventually("vpc notices") {
                    try await bundle.vpc[0].activeTunnels() == ["internet"]
                }
                try await sends(by: "internet")
                try await order("up link")
                try await sends(by: "link")
                try #require(try await !onprem.vgwctl("tunnel down none").succeeded)
            }
        }

        @Test(
            "a drill reports what a cut would do, and its exit status says whether that is good enough",
            arguments: Bundle.FarEnd.allCases)
        func drill(_ farEnd: Bundle.FarEnd) async throws {
            let options = Bundle.Options(
                farEnd: farEnd, lines: ["rto = \"1s\"", "health = { hold-down = \"0s\" }"])
            try await Bundle.run(options) { bundle in
                let onprem = bundle.onprem
                let answer = try await onprem.vgwctl("drill vpc --for 3s --json")
                try #require(answer.succeeded, "\(answer)")
                let report = try JSON.decode(DrillReport.self, from: Array(answer.output.utf8))
                try #require(report.tunnel == "link" && report.activeBefore == "link", "\(report)")
                try #require(report.activeDuring == "internet" && report.activeAfter == "link", "\(report)")
                let (detected, recovered) = (
                    try #require(report.timeToDetect), try #require(report.timeToRecover)
                )
                print("drill: detected \(detected.inMilliseconds), recovered \(recovered.inMilliseconds)")
                try #require(
                    detected > 0 && detected <= 0.7 && recovered > 0 && recovered <= 0.7, "\(report)")
                try #require(report.probesLost > 0 && report.probesLost < report.probesSent, "\(report)")
                try #require(report.rtoMet == true)
                try #require(
                    report.targets == nil && report.notes.contains { $0.contains("from gateway to gateway") },
                    "\(report)")
                try await bundle.activated(.link)

                // Now there is nothing to fail over to.
                try await bundle.lab.cut(.internet)
                try await bundle.become(.down, .internet)
                let refused = try await onprem.vgwctl("drill vpc --for 2s")
                try #require(refused.status == 1 && refused.errors.contains("no drill of vpc"), "\(refused)")
                try #require(try await onprem.activeTunnels() == ["link"])
                try await bundle.traffic.reach(from: .onprem)

                let kinds = try await onprem.events().map(\.kind)
                try #require(kinds.count { $0 == .drillStarted } == 1, "\(kinds)")
                try #require(kinds.count { $0 == .drillFinished } == 1, "\(kinds)")
            }
        }

        /// The far end's kernel sends to the network behind onprem by one WireGuard interface, whichever is cut.
        @Test("a drill does not pass while the far site's way back goes by the tunnel that is cut")
        func drillOfTheWayBack() async throws {
            let health =
                "health = { target = [\"10.20.0.1\"], source = \"10.10.0.1\", hold-down = \"0s\" }"
            let options = Bundle.Options(farEnd: .wireguardGo, siteLines: [.onprem: [health]])
            try await Bundle.run(options) { bundle in
                func drill() async throws -> (passed: Bool, report: DrillReport) {
                    let answer = try await bundle.onprem.vgwctl("drill vpc --for 2s --json")
                    return (
                        answer.succeeded, try JSON.decode(DrillReport.self, from: Array(answer.output.utf8))
                    )
                }
                let right = try await drill()
                try #require(right.passed && right.report.isPassed, "\(right)")
                let targets = try #require(right.report.targets)
                try #require(targets.timeToRecover.map { $0 <= 0.8 } ?? false, "\(targets)")
                try #require((15...20).contains(targets.probesSent), "\(targets)")
                try await bundle.activated(.link)

                try await Shell.run("nft delete table inet way", in: bundle.lab.namespace(.vpc))
                let wrong = try await drill()
                try #require(!wrong.passed && !wrong.report.isPassed, "\(wrong)")
                try #require(wrong.report.timeToRecover.map { $0 <= 0.8 } ?? false, "\(wrong)")
                try #require(wrong.report.targets.map { $0.timeToRecover == nil } ?? false, "\(wrong)")
                try #require(
                    wrong.report.notes.contains { $0.hasSuffix("may still lead by link") }, "\(wrong)")
                let told = try await bundle.onprem.events(.drillFinished).last?.message
                try #require(told == "traffic of vpc was not back while link was cut", "\(told ?? "nothing")")
            }
        }

        @Test(
            "a drill whose vgwctl is interrupted, hung up or killed puts the tunnel back at once",
            arguments: [SIGINT, SIGHUP, SIGKILL])
        func abandonedDrill(signal: Int32) async throws {
            try await Bundle.run(Bundle.Options(lines: ["health = { hold-down = \"0s\" }"])) { bundle in
                let onprem = bundle.onprem
                let drill = try await bundle.lab.start(
                    [
                        Programs.path("vgwctl"), "drill", "vpc", "--for", "5m", "--socket",
                        onprem.controlSocket,
                    ], name: "drill", in: onprem.namespace)
                try await bundle.activated(.internet)
                drill.signal(signal)
                try #require(try await drill.waitForExit() == 128 + signal)
                try await bundle.activated(.link)
                let answer = try await onprem.vgwctl("drill vpc --for 1s")
                try #require(answer.succeeded, "\(answer)")
                let finished = try await onprem.events(.drillFinished)
                try #require(finished.count == 2, "\(finished)")
            }
        }

        @Test("events are told in order, to followers and to hooks")
        func events() async throws {
            try await Lab.run { lab in
                try await lab.addLink()
                let program = try lab.write(
                    """
                    #!/bin/bash
                    json=$(cat)
                    printf '%s|%s|%s|%s|%s|%s\\n' "$VGWD_EVENT" "$VGWD_CONNECTION" "$VGWD_TUNNEL" \\
                        "$VGWD_FROM" "$VGWD_TO" "$json" >>\(lab.directory)/hook.out

                    """, to: "hook")
                try await Shell.run("chmod 700 \(program)")
                var options = Bundle.Options(lines: ["health = { hold-down = \"0s\" }"])
                options.lastLines = """

                    [[hook]]
                    on = ["tunnel-down", "failover"]
                    run = ["\(program)"]

                    """
                let bundle = try await Bundle.make(in: lab, options)
                try await bundle.start()
                try await bundle.settle()
                let onprem = bundle.onprem
                let last = try await onprem.events().last?.sequence ?? 0
                let follower = try await lab.start(
                    [
                        Programs.path("vgwctl"), "events", "--follow", "--json", "--since", "\(last)",
                        "--socket", onprem.controlSocket,
                    ], name: "follower", in: onprem.namespace)
                try await lab.cut(.link)
                try await bundle.activated(.internet)
                try await eventually("the follower is told of the failover") {
                    lab.log(of: follower).contains("\"kind\":\"failover\"")
                }
                let told = try lab.log(of: follower).split(separator: "\n").compactMap {
                    line -> GatewayEvent? in
                    guard case .event(let event) = try JSON.decode(EventLine.self, from: Array(line.utf8))
                    else { throw LabError("events were lost: \(line)") }
                    return event
                }
                try #require(told.map(\.sequence) == told.indices.map { last + 1 + UInt64($0) })
                let down = try #require(told.first { $0.kind == .tunnelDown })
                try #require(down.tunnel == "link" && down.reason == "probe-timeout", "\(down)")
                let failover = try #require(told.first { $0.kind == .failover })
                try #require(failover.from == "link" && failover.to == "internet", "\(failover)")
                try #require(down.sequence < failover.sequence)

                try await eventually("the hook ran for both") {
                    let output = try await Shell.attempt("cat \(lab.directory)/hook.out").output
                    let lines = output.split(separator: "\n")
                    guard
                        let of = lines.firstIndex(where: { $0.hasPrefix("tunnel-down|vpc|link|up|down|{") }),
                        let to = lines.lastIndex(where: { $0.hasPrefix("failover|vpc|") })
                    else { throw LabError(output) }
                    return of < to && lines[to].contains("\"to\":\"internet\"")
                }
                _ = try await onprem.process.terminate()
                try #require(
                    try await follower.waitForExit() == 69, "the end of the daemon is its followers'")
            }
        }
    }
}
