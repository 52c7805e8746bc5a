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
