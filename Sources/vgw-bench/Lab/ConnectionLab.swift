internal import ControlAPI
internal import FoundationEssentials

/// A vgwd at each host of a lab, with connections of two tunnels each. Every connection's first tunnel leaves by a
/// link beside the lab's wire, and its second one by the wire.
///
///     a 10.97.0.1 ──link── 10.97.0.2 b         connection n: 100.64+n/256.n%256.0/24 behind a,
///     a 10.99.0.1 ──wire── 10.99.0.2 b                       10.1+n/256.n%256.0/24 behind b
///
/// Each host has 32 keys, which is as many as a gateway takes: every tunnel is a pair of its own.
struct ConnectionLab: Sendable {
    let lab: Lab
    let count: Int
    /// Value of the key `health`, in TOML; nil is the default.
    let health: String?
    let folder: BuildFolder

    private static let keyCount = 32
    static let limit = keyCount * keyCount / 2

    /// Behind a host, in the first connection's prefix.
    static func inner(_ host: Lab.Host) -> String { prefix(0, host).replacing(".0/24", with: ".1") }

    private static func prefix(_ connection: Int, _ host: Lab.Host) -> String {
        let (high, low) = (connection / 256, connection % 256)
        return host == .a ? "100.\(64 + high).\(low).0/24" : "10.\(1 + high).\(low).0/24"
    }

    private func control(_ host: Lab.Host) -> String { "\(lab.directory)/\(host.rawValue).sock" }

    /// Starts both and returns when all tunnels are up at both.
    func start() async throws -> [Lab.Host: DaemonProcess] {
        try await layLink()
        let keys = try await makeKeys()
        var daemons: [Lab.Host: DaemonProcess] = [:]
        for host in [Lab.Host.b, .a] {
            let file = "\(lab.directory)/\(host.rawValue).toml"
            try configuration(of: host, keys).write(toFile: file, atomically: false, encoding: .utf8)
            daemons[host] = try await DaemonProcess.start(
                [folder.vgwd, "--config", file], environment: ["LOG_LEVEL": "warning"], on: host, in: lab)
        }
        for (host, daemon) in daemons {
            try await wait(for: "all tunnels of host \(host.rawValue) are up", seconds: 180) {
                guard daemon.isRunning else { throw Failure("vgwd on host \(host.rawValue) ended") }
                return try await self.status(of: host).allSatisfy {
                    $0.tunnels.allSatisfy { $0.state == .up }
                }
            }
        }
        try await activated("link")
        return daemons
    }

    private func layLink() async throws {
        var script = """
            ip link add link0 netns \(lab.namespace(.a)) type veth peer name link0 netns \(lab.namespace(.b))

            """
        for host in Lab.Host.allCases {
            script += """
                ip -n \(lab.namespace(host)) addr add \(host.link)/24 dev link0
                ip -n \(lab.namespace(host)) link set link0 up
                ip -n \(lab.namespace(host)) addr add \(Self.inner(host))/32 dev lo

                """
        }
        try await Shell.run(script)
    }

    // MARK: Configuration

    /// Public keys of each host.
    private func makeKeys() async throws -> [Lab.Host: [String]] {
        var keys: [Lab.Host: [String]] = [:]
        for host in Lab.Host.allCases {
            let text = try await Shell.run(
                """
                umask 077; cd \(lab.directory)
                for name in $(seq -f \(host.rawValue)%g 0 \(Self.keyCount - 1)); do
                    wg genkey >$name.key; wg pubkey <$name.key
                done
                """)
            keys[host] = text.split(separator: "\n").map(String.init)
        }
        return keys
    }

    /// Which of a host's keys a tunnel has.
    private static func key(_ tunnel: Int, _ host: Lab.Host) -> Int {
        host == .a ? tunnel % keyCount : tunnel / keyCount
    }

    private func configuration(of host: Lab.Host, _ keys: [Lab.Host: [String]]) -> String {
        var text = """
            [gateway]
            name = "\(host.rawValue)"
            interface = "\(lab.interface(host))"
            private-key-file = "\(lab.directory)/\(host.rawValue)0.key"
            state-directory = "\(lab.directory)/\(host.rawValue)-state"

            [control]
            socket = "\(control(host))"

            """
        for connection in 0..<count {
            text += """

                [[connection]]
                name = "c\(connection)"
                routes = ["\(Self.prefix(connection, host.other))"]
                \(health.map { "health = \($0)" } ?? "")

                """
            for (place, wire) in ["link", "wire"].enumerated() {
                // Only a calls.
                let endpoint = place == 0 ? host.other.link : host.other.outer
                let number = 2 * connection + place
                let (own, far) = (Self.key(number, host), Self.key(number, host.other))
                let inside = "169.254.\(number / 64)."
                let ends = [4 * (number % 64) + 1, 4 * (number % 64) + 2]
                let (local, remote) = host == .a ? (ends[0], ends[1]) : (ends[1], ends[0])
                text += """
                    [[connection.tunnel]]
                    name = "\(wire)-\(connection)"
                    private-key-file = "\(lab.directory)/\(host.rawValue)\(own).key"
                    public-key = "\(keys[host.other]?[far] ?? "")"
                    \(host == .a ? "endpoint = [\"\(endpoint):51820\"]" : "")
                    bind = { device = "\(wire == "link" ? "link0" : wire)" }
                    inside = { local = "\(inside)\(local)", remote = "\(inside)\(remote)" }
                    priority = \(10 + 10 * place)

                    """
            }
        }
        return text
    }

    // MARK: Faults and what comes of them

    /// Cuts the link silently, both ways: what was sent is dropped where it arrives.
    /// - Returns: when, on the wall clock in seconds.
    func cut() async throws -> Double {
        var script = ""
        for host in Lab.Host.allCases {
            script += """
                \(lab.inside(host)) nft 'table netdev cut { chain link { type filter hook ingress device link0 \
                priority 0; drop; }; }' &

                """
        }
        let time = try await Shell.run("\(script)echo $EPOCHREALTIME; wait")
        guard let seconds = Double(time) else { throw Failure("no clock: \(time)") }
        return seconds
    }

    func mend() async throws {
        var script = ""
        for host in Lab.Host.allCases { script += "\(lab.inside(host)) nft delete table netdev cut\n" }
        try await Shell.run(script)
    }

    /// Waits until all connections at both hosts send by their tunnel over this wire.
    func activated(_ wire: String) async throws {
        for host in Lab.Host.allCases {
            try await wait(for: "host \(host.rawValue) sends by \(wire)", seconds: 120) {
                try await status(of: host).enumerated().allSatisfy {
                    $0.element.activeTunnels == ["\(wire)-\($0.offset)"]
                }
            }
        }
    }

    func status(of host: Lab.Host) async throws -> [ConnectionStatus] {
        // Up to 3 the exit status tells how the connections are.
        let answer = try await Shell.run(
            "\(folder.vgwctl) status --json --socket \(control(host)) || [ $? -le 3 ]")
        return try JSON.decode(GatewayStatus.self, from: Array(answer.utf8)).connections
    }

    /// Writes events to a file as they come, until the lab ends.
    func follow(_ host: Lab.Host) async throws -> String {
        let file = "\(lab.directory)/\(host.rawValue)-events"
        try await Shell.run(
            "setsid \(lab.inside(host)) \(folder.vgwctl) events --follow --json --socket \(control(host)) "
                + "</dev/null >\(file) 2>&1 & sleep 0.5")
        return file
    }

    /// When each connection last went to a tunnel over this wire, on the wall clock in seconds of the day.
    func switches(to wire: String, in file: String) throws -> [String: Double] {
        var times: [String: Double] = [:]
        for line in try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n") {
            guard case .event(let event) = try JSON.decode(EventLine.self, from: Array(line.utf8)) else {
                throw Failure("events were lost")
            }
            guard event.kind == .failover, let name = event.connection, event.to?.hasPrefix(wire) == true
            else { continue }
            // 2026-11-25T12:33:48.123456789Z
            let clock = event.time.dropFirst(11).dropLast().split(separator: ":").compactMap { Double($0) }
            if clock.count == 3 { times[name] = clock[0] * 3600 + clock[1] * 60 + clock[2] }
        }
        return times
    }

    private func wait(for what: String, seconds: Int, _ condition: () async throws -> Bool) async throws {
        let clock = ContinuousClock()
        let deadline = clock.now + .seconds(seconds)
        var last = ""
        while clock.now < deadline {
            do {
                if try await condition() { return }
            } catch let failure as Shell.Failure { last = ": \(failure)" }
            try await Task.sleep(for: .milliseconds(100))
        }
        throw Failure("not within \(seconds) s: \(what)\(last)")
    }
}

extension Lab.Host {
    /// On the link beside the wire.
    var link: String { outer.replacing("10.99", with: "10.97") }
}
