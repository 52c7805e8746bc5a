internal import Testing

extension Integration {
    /// `vgwd INTERFACE` as a process: when it answers, when it goes to the background, and what ends it.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own process")) struct WgProcess {
        @Test("the socket is its owner's alone, and the daemon ends in order when it is removed")
        func socketRemoved() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .driven).onprem
                try await onprem.start()
                try #require(try await Shell.run("stat -c '%a %F' \(onprem.uapiSocket)") == "600 socket")
                try await Shell.run("rm \(onprem.uapiSocket)")
                let status = try await onprem.process.waitForExit()
                try #require(status == 0, "the removal of its socket is an order to end, not \(status)")
                try #require(try await !onprem.hasInterface())
            }
        }

        @Test("the socket of a killed daemon is taken over, that of a living one is not")
        func staleSocket() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .driven).onprem
                try await onprem.start()
                try await onprem.kill()
                try await Shell.run("test -S \(onprem.uapiSocket)")
                try await onprem.start()
                let second = try await lab.start(
                    [Programs.path("vgwd"), "-f", onprem.interface], name: "second",
                    in: lab.namespace(.vpc))
                try #require(try await second.waitForExit() != 0)
                try #require(lab.log(of: second).contains("\(try onprem.process.pid)"), "it names the first")
                try await onprem.wg("show \(onprem.interface)")
            }
        }

        /// To take down what it held takes a while; nobody is to wait for that.
        @Test("with many allowed IPs, too, its name is free for the next run when it says that it has ended")
        func startedAgain() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .driven).onprem
                try await onprem.start()
                try await Shell.run(
                    """
                    wg setconf \(onprem.interface) <(
                        echo '[Peer]'; echo "PublicKey = $(wg genkey | wg pubkey)"
                        for a in {1..200}; do for b in {0..255}; do echo "AllowedIPs = $a.$b.0.0/16"; done; done)
                    ip link del \(onprem.interface)
                    until grep -q 'ended reason' \(lab.directory)/onprem.log; do sleep 0.002; done
                    test ! -e \(onprem.uapiSocket)
                    """, in: onprem.namespace, limit: 60)
                try await onprem.start()
                try await onprem.wg("show \(onprem.interface)")
            }
        }

        @Test(
            "without -f it goes to the background once the socket answers; WG_PROCESS_FOREGROUND=1 keeps it")
        func background() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .driven).onprem
                let arguments = ["--state-dir", "\(lab.directory)/state", onprem.interface]
                let command = ([Programs.path("vgwd")] + arguments).joined(separator: " ")
                try await Shell.run(
                    "\(command) </dev/null >/dev/null 2>&1 && wg show \(onprem.interface)",
                    in: onprem.namespace, limit: 20)
                try await Shell.run("rm \(onprem.uapiSocket)")
                try await eventually("the daemon in the background ends") {
                    try await !onprem.hasInterface()
                }
                let kept = try await lab.start(
                    [Programs.path("vgwd")] + arguments, name: "kept", in: onprem.namespace,
                    environment: ["WG_PROCESS_FOREGROUND": "1"])
                try await eventually("it answers") {
                    try await Shell.attempt("wg show \(onprem.interface)").succeeded
                }
                try #require(kept.exitStatus == nil, "it is still the process that was started")
                try #require(try await kept.terminate() == 0)
            }
        }

        @Test("a start in the background that fails tells why, in the foreground")
        func backgroundFails() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .driven).onprem
                let vgwd = "\(Programs.path("vgwd")) --state-dir \(lab.directory)/state"
                for (script, says) in [
                    (
                        "unshare -m bash -c 'mount -t tmpfs none /dev/net && exec \(vgwd) \(onprem.interface)'",
                        "open /dev/net/tun: No such file or directory (ENOENT): load it"
                    ),
                    (
                        "ip link add \(onprem.interface) type bridge; \(vgwd) \(onprem.interface)",
                        "is a bridge of this host"
                    ),
                ] {
                    let answer = try await Shell.attempt(script, in: onprem.namespace, limit: 20)
                    let begin = "vgwd: \(onprem.interface) did not start: "
                    try #require(answer.status == 1 && answer.errors.hasPrefix(begin), "\(answer)")
                    try #require(answer.errors.contains(says) && !answer.errors.contains("\n"), "\(answer)")
                }
            }
        }

        @Test("a descriptor that is none is refused by name", arguments: ["WG_TUN_FD", "WG_UAPI_FD"])
        func wrongDescriptor(_ variable: String) async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .driven).onprem
                for value in ["seven", "-1", "1000000", "3x"] {
                    for flag in ["-f ", ""] {
                        let answer = try await Shell.attempt(
                            "\(Programs.path("vgwd")) \(flag)\(onprem.interface)", in: onprem.namespace,
                            limit: 20, environment: [variable: value])
                        try #require(answer.status == 64, "\(answer)")
                        try #require(answer.errors.contains("\(variable) is '\(value)'"), "\(answer)")
                    }
                }
                try #require(try await !onprem.hasInterface())
            }
        }

        @Test("LOG_LEVEL=silent logs nothing, not even why it could not start")
        func silent() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .driven).onprem
                try await onprem.start()
                for (level, isSaid) in [("silent", false), ("error", true)] {
                    let second = try await Shell.attempt(
                        "\(Programs.path("vgwd")) -f \(onprem.interface)", in: onprem.namespace, limit: 20,
                        environment: ["LOG_LEVEL": level])
                    try #require(second.status == 1, "\(second)")
                    try #require((second.errors + second.output).isEmpty == !isSaid, "\(second)")
                }
            }
        }

        @Test("vgwctl shows an interface without a configuration, and its socket goes with it")
        func controlSocket() async throws {
            try await Tunnel.run(.driven) { tunnel in
                for gateway in [tunnel.onprem, tunnel.vpc] {
                    let shown = try await gateway.vgwctl("status --drops")
                    try #require(shown.succeeded && shown.output.contains(gateway.interface), "\(shown)")
                }
                let vpc = tunnel.vpc
                try await Shell.run("rm \(vpc.uapiSocket)")
                try #require(try await vpc.process.waitForExit() == 0)
                try #require(try await !Shell.attempt("test -e \(vpc.controlSocket)").succeeded)
                // One that was killed leaves it, and the next takes it over.
                try await tunnel.onprem.kill()
                try await Shell.run("test -S \(tunnel.onprem.controlSocket)")
                try await tunnel.onprem.start()
                // Its tunnel has no session yet.
                try #require([0, 2, 3].contains(try await tunnel.onprem.vgwctl("status").status))
            }
        }

        @Test("where the control socket cannot be made, the interface works without")
        func noControlSocket() async throws {
            try await Lab.run { lab in
                let onprem = try await Tunnel.make(in: lab, .driven).onprem
                try await Shell.run("mkdir -p /run/vgwd")
                let vgwd = "exec \(Programs.path("vgwd")) -f \(onprem.interface)"
                let script = "mount -t tmpfs -o ro none /run/vgwd && \(vgwd)"
                let daemon = try await lab.start(
                    ["unshare", "-m", "bash", "-c", script], name: "vgwd", in: onprem.namespace)
                try await eventually("wg is answered") {
                    try await Shell.attempt("wg show \(onprem.interface)").succeeded
                }
                try await eventually("it says so") {
                    let log = lab.log(of: daemon)
                    return log.contains("vgwctl cannot be used") && log.contains("ready")
                }
                try #require(try await daemon.terminate() == 0)
            }
        }

        @Test(
            "when the keys were set, or read from files, and shown, no text of them is left in memory",
            arguments: [Pairing.driven, .ours])
        func keysInMemory(_ pairing: Pairing) async throws {
            try await Lab.run { lab in
                let shared = try await KeyPair.presharedKey()
                let onprem = try await Tunnel.make(in: lab, pairing, presharedKey: shared).onprem
                try await onprem.start()
                for _ in 0..<3 { try await onprem.wg("show \(onprem.interface) dump") }
                let keys = [onprem.settings.keys.privateKey, shared]
                // Looks for the middle only: the allocator writes over the start of what was given back.
                let found = try await Shell.run(
                    """
                    process=/proc/\(try onprem.process.pid)
                    while read -r range mode rest; do
                        [[ $mode == rw* ]] || continue
                        start=$((16#${range%-*} / 4096)) end=$((16#${range#*-} / 4096))
                        dd if=$process/mem bs=4096 skip=$start count=$((end - start)) 2>/dev/null
                    done <$process/maps >\(lab.directory)/memory
                    for key in \(keys.joined(separator: " ")); do
                        hex=$(base64 -d <<<$key | od -An -v -tx1 | tr -d ' \\n')
                        for text in ${hex:24:36} ${key:14:26}; do
                            grep -aqF -- "$text" \(lab.directory)/memory && echo "a key's $text"
                        done
                    done
                    # Shows that the search finds what is there.
                    grep -aoF -m 1 \(onprem.interface) \(lab.directory)/memory | head -n 1
                    """)
                try #require(found == onprem.interface)
            }
        }
    }
}
