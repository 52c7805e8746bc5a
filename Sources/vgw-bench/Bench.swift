internal import FoundationEssentials

/// Two hosts, `a` and `b`, in namespaces on one machine, one wire, and a tunnel over it.
enum Bench {
    private static let a = "vgwbench-a"
    private static let b = "vgwbench-b"

    /// Each interface has its own name: /run/wireguard is one folder for all namespaces.
    private static let interfaces = [(namespace: a, name: "vgwbench0"), (namespace: b, name: "vgwbench1")]

    /// All the work once, through fresh daemons.
    static func measure(_ implementation: Implementation, seconds: Int) async throws -> [Figure: Double] {
        try await buildWire()
        do {
            let pids = try await implementation.program.asyncMap(startTunnel) ?? []
            let address = implementation.program == nil ? "10.99.0.2" : "10.98.0.2"
            let figures = try await work(to: address, seconds: seconds, pids: pids)
            await tearDown()
            return figures
        } catch {
            await tearDown()
            throw error
        }
    }

    private static func work(to address: String, seconds: Int, pids: [Int]) async throws -> [Figure: Double] {
        var figures: [Figure: Double] = [:]
        for (figure, options) in [
            (Figure.tcp1, ""), (.tcp1Reverse, "-R"), (.tcp4, "-P 4"), (.tcp4Reverse, "-P 4 -R"),
        ] {
            let before = cpuSeconds(of: pids)
            let sum = try await iperf(to: address, options: "-t \(seconds) \(options)").end.sum_received
            figures[figure] = sum.bits_per_second / 1e9
            if figure == .tcp1, !pids.isEmpty {
                figures[.cpu] = (cpuSeconds(of: pids) - before) / (sum.bytes * 8 / 1e9)
            }
        }
        if !pids.isEmpty { figures[.memory] = residentMegabytes(of: pids) }
        return figures
    }

    // MARK: iperf3

    private struct Output: Decodable {
        struct Sum: Decodable {
            var bits_per_second: Double
            var bytes: Double
        }
        struct End: Decodable { var sum_received: Sum }
        var end: End
    }

    private static func iperf(to address: String, options: String) async throws -> Output {
        let text = try await Shell.run(
            """
            ip netns exec \(b) iperf3 -s -1 -D -B \(address) >/dev/null
            for try in $(seq 50); do
                ip netns exec \(b) ss -Hltn 'sport = 5201' | grep -q . && break
                sleep 0.1
            done
            ip netns exec \(a) iperf3 -J -c \(address) \(options)
            """, limit: 120)
        return try JSONDecoder().decode(Output.self, from: Data(text.utf8))
    }

    // MARK: The lab

    private static func buildWire() async throws {
        await tearDown()
        try await Shell.run(
            """
            ip netns add \(a)
            ip netns add \(b)
            ip link add wire netns \(a) type veth peer name wire netns \(b)
            ip -n \(a) addr add 10.99.0.1/24 dev wire
            ip -n \(b) addr add 10.99.0.2/24 dev wire
            for n in \(a) \(b); do ip -n $n link set lo up; ip -n $n link set wire up; done
            """)
    }

    /// Process ids of both daemons, once a packet has gone through.
    private static func startTunnel(_ program: String) async throws -> [Int] {
        var pids: [Int] = []
        for (namespace, interface) in interfaces {
            let pid = try await Shell.run(
                """
                ip netns exec \(namespace) setsid \(program) -f \(interface) </dev/null >/tmp/\(interface).log 2>&1 &
                echo $!
                for try in $(seq 100); do [ -S /var/run/wireguard/\(interface).sock ] && exit 0; sleep 0.05; done
                tail -n 5 /tmp/\(interface).log >&2
                exit 1
                """)
            pids.append(Int(pid) ?? 0)
        }
        try await Shell.run(
            """
            umask 077
            for i in 0 1; do wg genkey > /tmp/vgwbench$i.key; wg pubkey < /tmp/vgwbench$i.key > /tmp/vgwbench$i.pub; done
            ip netns exec \(a) wg set vgwbench0 private-key /tmp/vgwbench0.key listen-port 51820 \
                peer "$(cat /tmp/vgwbench1.pub)" endpoint 10.99.0.2:51820 allowed-ips 10.98.0.2/32
            ip netns exec \(b) wg set vgwbench1 private-key /tmp/vgwbench1.key listen-port 51820 \
                peer "$(cat /tmp/vgwbench0.pub)" endpoint 10.99.0.1:51820 allowed-ips 10.98.0.1/32
            ip -n \(a) addr add 10.98.0.1/24 dev vgwbench0
            ip -n \(b) addr add 10.98.0.2/24 dev vgwbench1
            ip -n \(a) link set vgwbench0 mtu 1420 up
            ip -n \(b) link set vgwbench1 mtu 1420 up
            rm -f /tmp/vgwbench?.key /tmp/vgwbench?.pub
            for try in $(seq 20); do ip netns exec \(a) ping -qc1 -W1 10.98.0.2 >/dev/null && exit 0; done
            echo "no packet came through: see /tmp/vgwbench0.log" >&2
            exit 1
            """)
        return pids
    }

    private static func tearDown() async {
        _ = try? await Shell.run(
            """
            for n in \(a) \(b); do
                ip netns pids $n 2>/dev/null | xargs -r kill -9 2>/dev/null || true
                ip netns del $n 2>/dev/null || true
            done
            rm -f /var/run/wireguard/vgwbench?.sock
            """)
    }

    // MARK: /proc

    private static func cpuSeconds(of pids: [Int]) -> Double {
        pids.map { pid in
            // utime and stime are fields 14 and 15; the command, field 2, may hold spaces.
            guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
                let end = text.lastIndex(of: ")")
            else { return 0 }
            let fields = text[text.index(end, offsetBy: 2)...].split(separator: " ")
            guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else {
                return 0
            }
            return (user + system) / 100
        }.reduce(0, +)
    }

    private static func residentMegabytes(of pids: [Int]) -> Double {
        let each = pids.map { pid -> Double in
            guard let text = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8),
                let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") })
            else { return 0 }
            return (line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Double($0) } ?? 0)
                / 1024
        }
        return each.max() ?? 0
    }
}

extension Optional {
    func asyncMap<Result>(_ transform: (Wrapped) async throws -> Result) async throws -> Result? {
        guard let value = self else { return nil }
        return try await transform(value)
    }
}
