internal import Glibc
internal import Testing

extension Integration {
    /// What the daemon finds on its host: files in its way, and limits.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own surroundings")) struct Surroundings {
        @Test("what stands where the control socket is to be stops the start, and stays")
        func controlSocketInTheWay() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .ours).onprem
                let (file, path) = (try onprem.writeConfiguration(), onprem.controlSocket)
                let key = "\(lab.directory)/onprem-private.key"
                for there in [
                    "echo precious >\(path)", "mkfifo \(path)", "ln -s \(key) \(path)", "cp \(key) \(path)",
                ] {
                    try await Shell.run("rm -f \(path); \(there)")
                    let look = "stat -c '%i %F' \(path); test -p \(path) || cat \(path) \(key)"
                    let before = try await Shell.run(look)
                    for verb in ["check ", ""] {
                        let answer = try await Shell.attempt(
                            "\(Programs.path("vgwd")) \(verb)--config \(file)", in: onprem.namespace,
                            limit: 20)
                        try #require(answer.status == 78, "\(answer)")
                        try #require(answer.errors.contains("control.socket: \(path) is a"), "\(answer)")
                        try #require(try await Shell.run(look) == before)
                    }
                }
                try #require(try await !onprem.hasInterface())
            }
        }

        @Test(
            "limits that are too low end a start with one error that says what is needed, and touch no rule")
        func limits() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .ours).onprem
                let start = "exec \(Programs.path("vgwd")) --config \(try onprem.writeConfiguration())"
                // The guard of an earlier run.
                try await onprem.start()
                try await onprem.kill()
                let before = (try await onprem.ownRules(), try await onprem.ownRoutes())
                for limit in [10, 16, 25, 28, 32, 36, 48, 64] {
                    let answer = try await Shell.attempt(
                        "ulimit -n \(limit); \(start)", in: onprem.namespace, limit: 20)
                    try #require(answer.status == 1, "\(answer)")
                    let said = answer.errors.split(separator: "\n").filter { $0.contains(" critical ") }
                    try #require(
                        said.count == 1 && said[0].contains("may have \(limit) open files, and needs"),
                        "\(answer)")
                }
                for kilobytes in [110_000, 130_000, 150_000] {
                    let answer = try await Shell.attempt(
                        "ulimit -v \(kilobytes); \(start)", in: onprem.namespace, limit: 20)
                    try #require(
                        answer.status == 1 && answer.errors.contains("MB of address space"), "\(answer)")
                }
                let short = try await Shell.attempt(
                    "ulimit -s 512; \(start)", in: onprem.namespace, limit: 20)
                try #require(short.status == 1 && short.errors.contains("of stack (ulimit -s)"), "\(short)")
                try #require(try await onprem.ownRules() == before.0)
                try #require(try await onprem.ownRoutes() == before.1)
                try await onprem.start()
            }
        }

        @Test(
            "a signal that is not for it ends nothing, SIGQUIT is a stop, and a port that it may not open is final"
        )
        func signalsAndPorts() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .ours).onprem
                try await onprem.start()
                let process = try onprem.process
                for signal in [
                    SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU, SIGXFSZ, SIGPIPE, SIGPOLL, SIGPWR,
                    SIGSTKFLT,
                    SIGTTIN, SIGTTOU, 34, 64,
                ] { process.signal(signal) }
                for _ in 0..<3 { try #require(try await onprem.status() != nil) }
                process.signal(SIGQUIT)
                try #require(try await process.waitForExit() == 0)
                try #require(try await onprem.ownRules().isEmpty)

                onprem.change { $0.listenPort = 500 }
                let refused = try await Shell.attempt(
                    "setpriv --bounding-set -net_bind_service \(Programs.path("vgwd")) "
                        + "--config \(try onprem.writeConfiguration())", in: onprem.namespace, limit: 20)
                try #require(refused.status == 77 && refused.errors.contains("low-port.conf"), "\(refused)")
            }
        }

        @Test("keys that cannot be locked in memory are told of, and work")
        func unlockedKeys() async throws {
            try await Lab.run { lab in
                let tunnel = try await Tunnel.make(in: lab, .ours)
                tunnel.onprem.change {
                    $0.launcher = ["prlimit", "--memlock=0:0", "setpriv", "--bounding-set", "-ipc_lock"]
                }
                try await tunnel.start()
                try await tunnel.reach(from: .onprem)
                try await eventually("it is in the log") {
                    lab.log(of: try tunnel.onprem.process).contains("raise LimitMEMLOCK")
                }
                try #require(!lab.log(of: try tunnel.vpc.process).contains("LimitMEMLOCK"))
            }
        }

        @Test("the folder that it makes for wg's sockets is root's, and vgwd's group may add to it")
        func wgFolder() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .driven).onprem
                let group = "\(lab.directory)/group"
                try await Shell.run("grep -v ^vgwd: /etc/group >\(group); echo vgwd:x:4711: >>\(group)")
                let script = "mount --bind \(group) /etc/group && mount -t tmpfs none /run && exec"
                let daemon = try await lab.start(
                    [
                        "unshare", "-m", "bash", "-c",
                        "\(script) \(Programs.path("vgwd")) -f \(onprem.interface)",
                    ],
                    name: "vgwd", in: onprem.namespace)
                let look = "nsenter -t \(daemon.pid) -m stat -c '%a %u %g' /run/wireguard"
                try await eventually("the folder is there") {
                    try await Shell.attempt(look).output == "1775 0 4711"
                }
            }
        }
    }
}
