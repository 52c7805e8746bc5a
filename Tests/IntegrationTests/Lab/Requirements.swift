internal import FoundationEssentials
internal import Glibc

/// What the machine must have. A test that cannot run fails and says why: a suite that skips looks green.
enum Requirements {
    private static let checked = Task { try await verify() }

    static func check() async throws { try await checked.value }

    private static func verify() async throws {
        guard geteuid() == 0 else {
            throw LabError("the integration tests need root, for namespaces and TUN devices: sudo Tests/run")
        }
        let tools = [
            "ip", "nft", "wg", "wg-quick", "wireguard-go", "ping", "iperf3", "socat", "tcpdump", "conntrack",
            "curl", "tc", "bird", "/usr/lib/frr/bgpd",
        ]
        let missing = try await Shell.run(
            "for tool in \(tools.joined(separator: " ")); do command -v $tool >/dev/null || echo $tool; done")
        guard missing.isEmpty else {
            throw LabError(
                "missing: \(missing.split(separator: "\n").joined(separator: ", ")). Tests/run installs them")
        }
        let probe = "vgwit-probe-\(getpid())"
        let tun = try await Shell.attempt(
            """
            ip netns add \(probe) || exit
            ip -n \(probe) tuntap add dev t0 mode tun; status=$?
            ip netns del \(probe); exit $status
            """)
        guard tun.succeeded else {
            throw LabError("no network namespaces or no /dev/net/tun here: \(tun.errors)")
        }
        if !Lab.reference {
            for program in ["vgwd", "vgwctl"] {
                let path = Programs.path(program)
                guard FileManager.default.isExecutableFile(atPath: path) else {
                    throw LabError("\(path) is not built: swift build, or set VGWD_BIN_DIR")
                }
            }
        }
        try await removeLeftovers()
    }

    /// What runs that were killed left behind: namespaces and folders of processes that are no more.
    private static func removeLeftovers() async throws {
        try await Shell.run(
            """
            for name in $(ip netns list | awk '/^vgwit-[0-9]/ {print $1}'); do
                owner=${name#vgwit-}; owner=${owner%%-*}
                [ -d /proc/$owner ] && continue
                kill -9 $(ip netns pids $name) 2>/dev/null
                ip netns del $name
            done
            for folder in /tmp/vgwit-[0-9]*-*; do
                owner=${folder#/tmp/vgwit-}; owner=${owner%%-*}
                [ -d /proc/$owner ] || rm -rf $folder
            done
            """)
    }
}
