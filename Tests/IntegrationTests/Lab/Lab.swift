internal import FoundationEssentials
internal import Glibc
internal import Synchronization
internal import Testing

/// One test's network: the namespaces onprem, internet and vpc, joined by veth pairs, with both families.
///
///     onprem 192.0.2.10 ── 192.0.2.1 internet 198.51.100.1 ── 198.51.100.10 vpc
///            2001:db8:1::10      (forwards)      2001:db8:2::10
///
/// Names carry the process id and a number, so that labs of one run, and runs, do not meet. All that a lab
/// made goes when its test ends, however it ends; what a killed run left, the next one removes.
///
/// Concurrency model: a lab belongs to one test; the mutex is there because processes end on other tasks.
final class Lab: Sendable {
    /// Short and unique on this machine: part of interface names, which have 15 characters.
    let id: String
    let directory: String
    private let stem: String
    private let processes = Mutex<[BackgroundProcess]>([])
    private let files = Mutex<[String]>([])

    /// Shows that the lab itself is right: every gateway is wireguard-go. Tests of what only vgwd has are
    /// off.
    static let reference = ProcessInfo.processInfo.environment["VGWIT_REFERENCE"] == "1"

    /// net.ipv4.conf.all.rp_filter of both sites: 0, 1 (strict) or 2 (loose). `Tests/run` runs with each.
    static let reversePathFilter =
        ProcessInfo.processInfo.environment["VGWIT_RP_FILTER"].flatMap { Int($0) } ?? 0

    /// How long a load lasts that must not be taken for an outage: longer by hand.
    static let loadSeconds =
        ProcessInfo.processInfo.environment["VGWIT_LOAD_SECONDS"].flatMap { Int($0) } ?? 20

    private static let count = Mutex(0)

    private init() {
        // There are keys among what is written.
        _ = umask(0o077)
        let number = Lab.count.withLock { count in
            count += 1
            return count
        }
        let pid = getpid()
        id = String(pid, radix: 36) + String(number, radix: 36)
        stem = "vgwit-\(pid)-\(number)"
        directory = "/tmp/\(stem)"
    }

    /// Makes a lab, runs the body and takes the lab down again. When the body throws, the error that comes
    /// out carries the end of every log.
    static func run(
        mtu: Int = 1500, reversePathFilter: Int = Lab.reversePathFilter, _ body: (Lab) async throws -> Void
    ) async throws {
        try await Requirements.check()
        let lab = Lab()
        do {
            try await lab.build(mtu: mtu, reversePathFilter: reversePathFilter)
            try await body(lab)
        } catch {
            let logs = await lab.logs()
            await lab.tearDown()
            throw LabError("\(error)\n\(logs)")
        }
        await lab.tearDown()
    }

    // MARK: Places

    func namespace(_ site: Site) -> String { "\(stem)-\(site.rawValue)" }
    /// What forwards between the ends of a wire.
    func namespace(_ wire: Wire) -> String { "\(stem)-\(wire.rawValue)" }
    var internet: String { namespace(Wire.internet) }

    /// A further namespace, for what moves there.
    func addNamespace(_ name: String) async throws -> String {
        let full = "\(stem)-\(name)"
        try await Shell.run("ip netns add \(full); ip -n \(full) link set lo up")
        return full
    }

    /// A machine behind the site's gateway, with addresses of the site's prefixes: 10.10.6.2 and fd10::6:2 behind
    /// onprem. Returns its namespace. The site forwards from then on.
    func addHost(behind site: Site) async throws -> String {
        let (host, name) = (try await addNamespace("host-\(site)"), namespace(site))
        var script = """
            set -e
            ip netns exec \(name) sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            ip link add lan netns \(name) type veth peer name lan netns \(host)
            ip -n \(name) link set lan up
            ip -n \(host) link set lan up

            """
        for family in Family.allCases {
            let network =
                family == .v4 ? "10.\(site == .onprem ? 10 : 20).6." : "fd\(site == .onprem ? 10 : 20)::6:"
            script += """
                ip -n \(name) addr add \(network)1/\(family == .v4 ? 24 : 112) dev lan
                ip -n \(host) addr add \(network)2/\(family == .v4 ? 24 : 112) dev lan
                ip -n \(host) \(family.option) route add default via \(network)1

                """
        }
        try await Shell.run(script)
        return host
    }

    private func build(mtu: Int, reversePathFilter: Int) async throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        var script = "set -e\n"
        for namespace in [internet] + Site.allCases.map(namespace) {
            let filter = namespace == internet ? 0 : reversePathFilter
            script += """
                ip netns add \(namespace)
                ip -n \(namespace) link set lo up
                ip netns exec \(namespace) sysctl -qw net.ipv4.conf.all.rp_filter=\(filter) \
                net.ipv4.conf.default.rp_filter=\(filter) net.ipv6.conf.all.disable_ipv6=0 \
                net.ipv6.conf.default.disable_ipv6=0 net.ipv6.conf.default.accept_dad=0

                """
        }
        script +=
            "ip netns exec \(internet) sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n"
        for site in Site.allCases {
            let name = namespace(site)
            script += """
                ip link add wan mtu \(mtu) netns \(name) type veth peer name \(site.rawValue) \
                mtu \(mtu) netns \(internet)
                ip -n \(name) link set wan up
                ip -n \(internet) link set \(site.rawValue) up

                """
            for family in Family.allCases {
                script += """
                    ip -n \(name) addr add \(site.underlay(family))/\(family.linkPrefix) dev wan
                    ip -n \(internet) addr add \(site.router(family))/\(family.linkPrefix) dev \(site.rawValue)
                    ip -n \(name) \(family.option) route add default via \(site.router(family))

                    """
            }
        }
        try await Shell.run(script)
    }

    private func tearDown() async {
        for process in processes.withLock({ $0 }) where process.exitStatus == nil { process.signal(SIGKILL) }
        let sockets = files.withLock { $0 }.joined(separator: " ")
        _ = try? await Shell.run(
            """
            for name in $(ip netns list | awk '/^\(stem)-/ {print $1}'); do
                kill -9 $(ip netns pids "$name") 2>/dev/null
                ip netns del "$name"
            done
            rm -rf \(directory) \(sockets)
            """)
    }

    // MARK: Processes

    @discardableResult
    func start(
        _ command: [String], name: String, in namespace: String, environment: [String: String] = [:]
    ) async throws -> BackgroundProcess {
        let process = try await BackgroundProcess.start(
            command, name: name, logPath: "\(directory)/\(name).log", in: namespace, environment: environment)
        processes.withLock { $0.append(process) }
        return process
    }

    func write(_ text: String, to name: String) throws -> String { try write(Array(text.utf8), to: name) }

    func write(_ bytes: [UInt8], to name: String) throws -> String {
        let path = "\(directory)/\(name)"
        try Data(bytes).write(to: URL(filePath: path))
        return path
    }

    /// A file outside the lab's folder that must not outlive it.
    func removeAtEnd(_ path: String) { files.withLock { $0.append(path) } }

    func log(of process: BackgroundProcess) -> String {
        (try? String(contentsOfFile: process.logPath, encoding: .utf8)) ?? ""
    }

    private func logs() async -> String {
        var text = ""
        for path in Set(processes.withLock { $0.map(\.logPath) }).sorted() {
            let end = try? await Shell.run("tail -c 6000 \(path) | tail -n 60")
            text += "---- \(path)\n\(end ?? "")\n"
        }
        for process in processes.withLock({ $0 }) {
            if let status = process.exitStatus { text += "\(process.name) had ended with status \(status)\n" }
        }
        return text
    }
}
