internal import ControlAPI
internal import FoundationEssentials
internal import Testing

extension Integration {
    /// Every set-up of conf/examples with all its ends, as the files have them, and what 'vgwctl pair' makes: started, and
    /// cut once.
    @Suite(.enabled(if: !Lab.reference, "about vgwd's own files")) struct Examples {
        @Test("both ends work, and a cut is survived or said")
        func bothEnds() async throws { try await sideBySide(Example.all, atOnce: 3, Self.bothEnds) }

        private static func bothEnds(_ example: Example) async throws {
            try await Lab.run { lab in
                let world = try await ExampleWorld(lab, example)
                try await world.start()
                try await eventually("all tunnels are up") {
                    for gateway in world.gateways {
                        let tunnels = try await gateway.status()?.connections.flatMap(\.tunnels) ?? []
                        guard !tunnels.isEmpty, tunnels.allSatisfy({ $0.state == .up }) else {
                            throw LabError("\(gateway.name): \(tunnels.map { "\($0.name) \($0.state)" })")
                        }
                    }
                    return true
                }
                for target in example.targets {
                    try await eventually("\(target) answers") {
                        try await world.ping("-c 1 -W 1", to: target).succeeded
                    }
                }
                if example.isRedundant {
                    // One each 50 ms; without another tunnel all but the first ten or so would be lost.
                    async let stream = world.ping("-i 0.05 -c 100 -W 1")
                    try await Task.sleep(for: .milliseconds(500))
                    try await world.cut()
                    let received = try await received(in: stream.output)
                    try #require(received >= 40, "\(received) of 100 came back")
                } else {
                    try await world.cut()
                    try await eventually("the cut is said") {
                        try await world.gateways[0].status()?.connections[0].tunnels[0].state == .down
                    }
                    try await world.mend()
                    try await eventually("the far site answers again") {
                        try await world.ping("-c 1 -W 1").succeeded
                    }
                }
            }
        }

        /// The numbers of `100 packets transmitted, 87 received, …`.
        private static func received(in output: String) throws -> Int {
            let words = output.split { $0 == " " || $0 == "," }
            let place = try #require(words.firstIndex(of: "received"), "\(output)")
            return try #require(Int(words[place - 1]))
        }
    }
}

/// A set-up of conf/examples.
struct Example: Sendable, CustomTestStringConvertible {
    enum Place: Sendable { case office, far, secondFar }
    enum Cut: Sendable { case internet, link, firstFar }

    let testDescription: String
    let ends: [(place: Place, file: String)]
    var daemon: RoutingDaemon.Kind?
    let cut: Cut
    let isRedundant: Bool
    var source = "192.168.10.1"
    /// Hosts of far sites, which the ping during the cut goes to the first of.
    var targets = ["10.20.0.10"]
    /// The files are made by vgwctl: two sites, and a third one that is added to the first.
    var isPaired = false

    private static let zones: [(Place, String)] = [
        (.office, "two-zones"), (.far, "two-zones-a"), (.secondFar, "two-zones-b"),
    ]
    private static let bgp: [(Place, String)] = [
        (.office, "bgp"), (.far, "bgp-cloud-a"), (.secondFar, "bgp-cloud-b"),
    ]

    static let all = [
        Example(
            testDescription: "a pair", ends: [(.office, "onprem"), (.far, "cloud")], cut: .internet,
            isRedundant: false),
        Example(testDescription: "two zones", ends: zones, cut: .firstFar, isRedundant: true),
        Example(
            testDescription: "a dedicated link",
            ends: [(.office, "dedicated-link"), (.far, "dedicated-link-far")], cut: .link, isRedundant: true),
        Example(
            testDescription: "balance", ends: [(.office, "balance"), (.far, "balance-far")], cut: .link,
            isRedundant: true),
        Example(
            testDescription: "overlap", ends: [(.office, "overlap"), (.far, "overlap-far")], cut: .internet,
            isRedundant: false, source: "10.0.3.4", targets: ["10.99.7.8"]),
        Example(
            testDescription: "vgwctl pair, and one site more",
            ends: [(.office, "onprem"), (.far, "cloud"), (.secondFar, "branch")], cut: .internet,
            isRedundant: false, targets: ["10.20.0.10", "10.30.0.10"], isPaired: true),
        Example(testDescription: "BGP by BIRD", ends: bgp, daemon: .bird, cut: .firstFar, isRedundant: true),
        Example(testDescription: "BGP by FRR", ends: bgp, daemon: .frr, cut: .firstFar, isRedundant: true),
    ]
}

/// A lab with the addresses that the examples have in them: 203.0.113.7 and .8 on the internet, 172.31.255.1 and .2 on the
/// link, 192.168.10.1 and 10.20.0.10 behind the gateways.
struct ExampleWorld: Sendable {
    struct End: Sendable {
        let name: String
        let place: Example.Place
        let namespace: String
        let interface: String
        let folder: String
        let socket: String

        func status() async throws -> GatewayStatus? {
            let answer = try await Shell.attempt(
                "curl -sf --max-time 5 --unix-socket \(socket) http://vgwd\(APIPath.status)")
            return answer.succeeded
                ? try JSON.decode(GatewayStatus.self, from: Array(answer.output.utf8)) : nil
        }
    }

    private static let firstFar = "203.0.113.7"
    private static let secondFar = "203.0.113.8"

    let lab: Lab
    let example: Example
    let gateways: [End]
    private let secondNamespace: String

    init(_ lab: Lab, _ example: Example) async throws {
        self.lab = lab
        self.example = example
        let second = try await lab.addNamespace("far2")
        secondNamespace = second
        gateways = example.ends.enumerated().map { number, end in
            let interface = "vgwit-\(lab.id)\(["a", "b", "c"][number])"
            lab.removeAtEnd("/var/run/wireguard/\(interface).sock")
            return End(
                name: end.file, place: end.place,
                namespace: end.place == .secondFar
                    ? second : lab.namespace(end.place == .office ? .onprem : .vpc),
                interface: interface, folder: "\(lab.directory)/\(end.file)",
                socket: "\(lab.directory)/\(end.file).sock")
        }
        try await lab.addLink()
        try await addAddresses()
        if example.isPaired { try await pair() } else { try await writeFiles() }
    }

    private func addAddresses() async throws {
        let (office, far, link) = (lab.namespace(.onprem), lab.namespace(.vpc), lab.namespace(Wire.link))
        try await Shell.run(
            """
            set -e
            ip -n \(far) addr add \(Self.firstFar)/32 dev wan
            ip -n \(lab.internet) route add \(Self.firstFar) via \(Site.vpc.underlay(.v4))
            ip -n \(link) route add \(Self.firstFar) via \(Wire.link.underlay(.vpc))
            ip link add wan netns \(secondNamespace) type veth peer name far2 netns \(lab.internet)
            ip -n \(secondNamespace) addr add \(Self.secondFar)/24 dev wan
            ip -n \(lab.internet) addr add 203.0.113.1/24 dev far2
            ip -n \(secondNamespace) link set wan up
            ip -n \(lab.internet) link set far2 up
            ip -n \(secondNamespace) route add default via 203.0.113.1
            ip -n \(office) route add default via \(Wire.link.router(.onprem, .v4)) dev wan2 metric 200
            ip -n \(office) addr add 172.31.255.2/32 dev wan2
            ip -n \(office) route add 172.31.255.1 via \(Wire.link.router(.onprem, .v4)) dev wan2 src 172.31.255.2
            ip -n \(far) addr add 172.31.255.1/32 dev wan2
            ip -n \(far) route add 172.31.255.2 via \(Wire.link.router(.vpc, .v4)) dev wan2 src 172.31.255.1
            ip -n \(link) route add 172.31.255.1 via \(Wire.link.underlay(.vpc))
            ip -n \(link) route add 172.31.255.2 via \(Wire.link.underlay(.onprem))
            for address in 192.168.10.1 10.0.3.4; do ip -n \(office) addr add $address/32 dev lo; done
            for address in 10.20.0.10 10.20.1.10 10.0.7.8; do
                ip -n \(far) addr add $address/32 dev lo
                ip -n \(secondNamespace) addr add $address/32 dev lo
            done
            ip -n \(secondNamespace) addr add 10.30.0.10/32 dev lo
            """)
        for end in gateways where end.place != .office {
            try await lab.start(
                ["socat", "TCP4-LISTEN:443,bind=10.20.1.10,reuseaddr,fork", "SYSTEM:true"],
                name: "target-\(end.name)", in: end.namespace)
        }
    }

    // MARK: Files

    /// Public keys in the examples, by whose they are: of the office's gateway, of its second path, of the far gateways.
    private static let exampleKeys = [
        "hy/XBiNk1X5LIQVfvCvNLt9DZEk27sSJx5d3TZzZDWk=", "Dk5mRigOfiu6sOPbec0bwjWfZQS7Ery4O81y0uJONh8=",
        "9U4HD36dx+VI0PGGDoXS+CdOWlo6DNOF0JVM84MOMG8=", "xBzep03/kihaW52Y5tqO8xOeMGg8n3RimN6EmX6EnUo=",
    ]

    private func writeFiles() async throws {
        var keys: [KeyPair] = []
        for _ in Self.exampleKeys { keys.append(try await KeyPair.generate()) }
        let shared = try await KeyPair.presharedKey()
        for end in gateways {
            var text = try RoutingDaemon.text(ofExample: "\(end.name).toml")
            for (written, key) in zip(Self.exampleKeys, keys) { text.replace(written, with: key.publicKey) }
            for (written, here) in [
                ("vgw.example.com", Self.firstFar), ("vgw-a.example.com", Self.firstFar),
                ("vgw-b.example.com", Self.secondFar), ("vgw-backup.example.com", "203.0.113.9"),
                ("\"eth0\"", "\"wan\""), ("\"eth1\"", "\"wan2\""),
            ] { text.replace(written, with: here) }
            let own = end.place == .office ? keys[0] : end.place == .far ? keys[2] : keys[3]
            text.replace("[gateway]\n", with: "[gateway]\n" + settings(of: end))
            text += control(of: end)
            try FileManager.default.createDirectory(atPath: end.folder, withIntermediateDirectories: false)
            for (file, content) in [
                ("vgwd.toml", text), ("private.key", own.privateKey), ("pair.psk", shared),
                ("internet.key", keys[1].privateKey), ("provider-2.key", keys[1].privateKey),
            ] { _ = try lab.write(content, to: "\(end.name)/\(file)") }
        }
    }

    private func pair() async throws {
        let (vgwctl, office) = (
            Programs.path("vgwctl"), "--left-prefix 192.168.10.0/24 --left-endpoint 192.0.2.10"
        )
        try await Shell.run(
            """
            set -e; umask 077; cd \(lab.directory)
            \(vgwctl) pair --left onprem \(office) --output . \
                --right cloud --right-prefix 10.20.0.0/16 --right-endpoint \(Self.firstFar)
            \(vgwctl) pair --add onprem \(office) --output . \
                --right branch --right-prefix 10.30.0.0/16 --right-endpoint \(Self.secondFar)
            """)
        for end in gateways {
            let file = "\(end.name)/vgwd.toml"
            let text = try String(contentsOfFile: "\(lab.directory)/\(file)", encoding: .utf8)
            _ = try lab.write(
                text.replacing("interface = \"vgw0\"\n", with: settings(of: end)) + control(of: end), to: file
            )
        }
    }

    /// What two gateways on one machine may not share.
    private func settings(of end: End) -> String {
        "interface = \"\(end.interface)\"\nstate-directory = \"\(end.folder)/state\"\n"
    }

    private func control(of end: End) -> String { "\n[control]\nsocket = \"\(end.socket)\"\n" }

    // MARK: Life

    func start() async throws {
        for end in gateways {
            try await lab.start(
                [Programs.path("vgwd"), "--config", "\(end.folder)/vgwd.toml"], name: end.name,
                in: end.namespace,
                environment: ["LOG_LEVEL": "debug"])
        }
        guard let kind = example.daemon else { return }
        var daemons: [RoutingDaemon] = []
        for end in gateways {
            try await eventually("\(end.name) answers") { try await end.status() != nil }
            let daemon = RoutingDaemon(
                kind, in: lab, namespace: end.namespace, name: "\(end.interface.suffix(1))",
                interface: end.interface)
            var text = try daemon.example(
                end.place == .office ? "bgp-\(kind).conf" : "bgp-\(kind)-cloud.conf")
            if end.place == .secondFar {
                text.replace("169.254.101", with: "169.254.102")
                text.replace("10.20.0.5", with: "10.20.0.6")
            }
            try await daemon.start(text)
            daemons.append(daemon)
        }
        try await eventually("BFD watches both far gateways") { try await daemons[0].bfdSessionsUp() == 2 }
    }

    /// From the office to a target; nil is the first one.
    func ping(_ arguments: String, to target: String? = nil) async throws -> CommandResult {
        try await Shell.attempt(
            "ping -n \(arguments) -I \(example.source) \(target ?? example.targets[0])",
            in: lab.namespace(.onprem))
    }

    func cut() async throws {
        switch example.cut {
        case .internet: try await lab.cut(.internet)
        case .link: try await lab.cut(.link)
        case .firstFar:
            try await Shell.run(
                "nft 'table inet cut { chain forward { type filter hook forward priority 0; "
                    + "ip daddr \(Self.firstFar) drop; ip saddr \(Self.firstFar) drop; }; }'",
                in: lab.internet)
        }
    }

    func mend() async throws { try await lab.mend(example.cut == .link ? .link : .internet) }
}
