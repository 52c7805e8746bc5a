internal import FoundationEssentials
internal import Glibc

/// Two hosts in namespaces on one machine, joined by a veth pair, and a folder that only root can read.
///
///     a 10.99.0.1 ──wire── 10.99.0.2 b         a 10.98.0.1 ──tunnel── 10.98.0.2 b
///
/// Names carry the process id: runs do not meet, and what a killed run left is removed by the next one.
/// Nothing outside the namespaces is changed, but for the `wg` sockets in /run/wireguard, which all
/// namespaces share, and the folder.
struct Lab: Sendable {
    enum Host: String, CaseIterable, Sendable {
        case a
        case b

        var other: Host { self == .a ? .b : .a }
        private var number: Int { self == .a ? 1 : 2 }

        /// On the bare wire.
        var outer: String { "10.99.0.\(number)" }
        /// Through the tunnel.
        var inner: String { "10.98.0.\(number)" }
    }

    /// Not /tmp: keys lie here for a moment, and /run is in memory and root's.
    let directory: String
    private let stem: String
    private let id: Int32

    init() {
        id = getpid()
        stem = "vgwbench-\(id)"
        directory = "/run/\(stem)"
    }

    func namespace(_ host: Host) -> String { "\(stem)-\(host.rawValue)" }

    /// Short enough for any process id, since an interface name has 15 characters.
    func interface(_ host: Host) -> String { "vgwb\(id)\(host.rawValue)" }

    func log(_ host: Host) -> String { "\(directory)/\(host.rawValue).log" }

    /// To start a command in a host's namespace; `exec` keeps the process id.
    func inside(_ host: Host) -> String { "ip netns exec \(namespace(host))" }

    /// This program, for the generators that run in a namespace.
    static let ownPath =
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "vgw-bench"

    func build() async throws {
        await tearDown()
        var script = """
            mkdir -m 0700 \(directory)
            ip netns add \(namespace(.a))
            ip netns add \(namespace(.b))
            ip link add wire netns \(namespace(.a)) type veth peer name wire netns \(namespace(.b))

            """
        for host in Host.allCases {
            script += """
                ip -n \(namespace(host)) addr add \(host.outer)/24 dev wire
                ip -n \(namespace(host)) link set lo up
                ip -n \(namespace(host)) link set wire up
                \(inside(host)) bash -c 'echo 0 0 >/proc/sys/net/ipv4/ping_group_range'

                """
        }
        try await Shell.run(script)
    }

    /// Whatever there is of it, in whatever state. Does not stop when the caller is cancelled.
    func tearDown() async {
        let script = Self.removal(stem: stem, sockets: Host.allCases.map { interface($0) })
        await Task { _ = try? await Shell.run(script) }.value
    }

    /// Removes what runs that were killed have left.
    static func sweep() async {
        _ = try? await Shell.run(
            """
            for id in $( (ip netns list; ls /run) | sed -n 's/^vgwbench-\\([0-9]*\\).*/\\1/p' | sort -u); do
                [ -d /proc/$id ] && continue
                \(removal(stem: "vgwbench-$id", sockets: ["vgwb${id}a", "vgwb${id}b"]))
            done
            """)
    }

    /// Waits, at most two seconds, until the processes are gone: the next daemon shall not share its cores
    /// with the end of the last one.
    private static func removal(stem: String, sockets: [String]) -> String {
        """
        set +e
        for namespace in \(stem)-a \(stem)-b; do
            [ -e /run/netns/$namespace ] || continue
            for try in $(seq 40); do
                pids=$(ip netns pids $namespace)
                [ -n "$pids" ] || break
                kill -9 $pids 2>/dev/null
                sleep 0.05
            done
            ip netns del $namespace
        done
        rm -rf /run/\(stem) \(sockets.map { "/run/wireguard/\($0).sock" }.joined(separator: " "))
        """
    }
}
