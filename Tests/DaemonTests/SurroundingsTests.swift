import Daemon
internal import GatewayCore
import LinuxIO
import Testing
import WireGuard

/// What is true of this host only now: said, and no error of the file.
@Suite struct SurroundingsTests {
    private static func prefix(_ text: String) -> IPPrefix { IPPrefix(text)! }

    /// A carried prefix, a network of this host, whether the prefix is also local.
    private static let locals: [(carried: String, network: String, isLocal: Bool)] = [
        ("172.17.0.0/16", "172.17.0.1/16", true),
        ("172.17.5.0/24", "172.17.0.1/16", true),
        ("fd20::/64", "fd20::1/48", true),
        // The main table's longer route comes first.
        ("0.0.0.0/0", "172.17.0.1/16", false),
        ("172.16.0.0/12", "172.17.0.1/16", false),
        // One machine out of a network is meant.
        ("172.17.0.5/32", "172.17.0.1/16", false),
        ("fd20::5/128", "fd20::1/64", false),
        ("172.18.0.0/16", "172.17.0.1/16", false),
        ("fd20::/64", "172.17.0.1/16", false),
    ]

    @Test(arguments: locals)
    func `a prefix is also local where it is equal to a network of this host or inside it`(
        carried: String, network: String, isLocal: Bool
    ) {
        let local = LocalNetwork(interface: "docker0", network: Self.prefix(network))
        #expect(local.holds(Self.prefix(carried)) == isLocal)
        #expect(([local].inUse(holding: Self.prefix(carried)) != nil) == isLocal)
        // Nobody is there to be taken away.
        let idle = LocalNetwork(interface: "docker0", network: Self.prefix(network), isInUse: false)
        #expect([idle].inUse(holding: Self.prefix(carried)) == nil)
    }

    private static func load(
        _ text: String, _ change: (inout Surroundings) -> Void
    ) throws(ConfigurationErrors) -> GatewayConfiguration {
        var surroundings = Surroundings()
        change(&surroundings)
        return try GatewayConfiguration.parse(
            text, path: "/etc/vgwd/vgwd.toml", files: ConfigurationExamples.files,
            surroundings: surroundings)
    }

    @Test(arguments: [true, false])
    func `a prefix that is also local makes a warning with its line, and the file is right`(isInUse: Bool)
        throws
    {
        let text = ConfigurationExamples.text(routes: #"routes = ["10.20.0.0/16", "172.17.0.0/16"]"#)
        let docker = LocalNetwork(
            interface: "docker0", network: Self.prefix("172.17.0.1/16"), isInUse: isInUse)
        let configuration = try Self.load(text) { $0.networks = [docker] }
        let warning = try #require(configuration.warnings.first)
        #expect(configuration.warnings.count == 1)
        #expect(
            warning.text(path: "vgwd.toml").hasPrefix(
                "vgwd.toml:6: connection[aws].routes[#2]: 172.17.0.0/16 is also the network of docker0 here; "
                    + "it is left out while docker0 is up"))
        #expect(configuration.connections.first?.routes.count == 2)
    }

    @Test func `the gateway's own interface is no conflict`() throws {
        let own = LocalNetwork(interface: "vgw0", network: Self.prefix("10.20.0.1/16"))
        #expect(try Self.load(ConfigurationExamples.text()) { $0.networks = [own] }.warnings == [])
    }

    /// The addresses of this host, lines of the gateway and of the connection, whether the source is missed.
    private static let sources: [(here: [String]?, gateway: String, connection: String, isMissed: Bool)] = [
        (["127.0.0.1", "192.168.10.1"], key, "", false),
        (["127.0.0.1", "192.168.10.2"], key, "", true),
        (nil, key, "", false),
        // It is there once the gateway runs.
        ([], key + "\naddress = [\"192.168.10.1/24\"]", "", false),
        // It stands for one that is here.
        ([], key, "nat = [{ inside = \"172.16.0.0/16\", outside = \"192.168.0.0/16\" }]", false),
    ]

    @Test(arguments: sources)
    func `a source of targets that this host does not have makes a warning with its line`(
        here: [String]?, gateway: String, connection: String, isMissed: Bool
    ) throws {
        let text = ConfigurationExamples.text(
            gateway: gateway,
            routes: """
                routes = ["10.20.0.0/16"]
                health = { target = ["10.20.0.10"], source = "192.168.10.1" }
                \(connection)
                """, tunnel: "inside = { local = \"169.254.101.2\", remote = \"169.254.101.1\" }")
        let warnings = try Self.load(text) { $0.addresses = here?.compactMap { IPAddress($0) } }.warnings
        #expect(warnings.isEmpty == !isMissed, "\(warnings)")
        guard isMissed else { return }
        let warning = try #require(warnings.first).text(path: "vgwd.toml")
        #expect(
            warning.hasPrefix(
                "vgwd.toml:7: connection[aws].health.source: 192.168.10.1 is no address of this host now; "),
            "\(warning)")
    }

    // MARK: Ports

    @Test(arguments: [
        ("listen-port = 500", "", 3, "gateway.listen-port"),
        ("listen-port = 1023", "", 3, "gateway.listen-port"),
        ("", "listen-port = 53", 11, "connection[aws].tunnel[#1].listen-port"),
        ("listen-port = 1024", "", 0, ""),
        ("listen-port = 0", "", 0, ""),
    ])
    func `a port that the unit may not open is warned of, with the drop-in that allows it`(
        gateway: String, tunnel: String, line: Int, key: String
    ) throws {
        let text = ConfigurationExamples.text(gateway: Self.key + "\n" + gateway, tunnel: tunnel)
        let warnings = try Self.load(text) { $0.firstFreePort = 1024 }.warnings
        #expect(warnings.map(\.key) == (key.isEmpty ? [] : [key]))
        #expect(warnings.first?.line == (key.isEmpty ? nil : SourceLine(line)))
        #expect(warnings.first?.remedy.contains("systemd/low-port.conf") != false)
        #expect(try Self.load(text) { $0.firstFreePort = 0 }.warnings == [])
    }

    // MARK: Names

    private static let name = #"endpoint = ["vgw.example.com:51820"]"#
    private static let key = #"private-key-file = "/etc/vgwd/private.key""#

    /// Gateway lines, routes, tunnel lines, whether the questions of a local name server may be locked in.
    private static let stubs: [(gateway: String, routes: String, tunnel: String, isLockedIn: Bool)] = [
        (key, #"routes = ["0.0.0.0/0"]"#, name, true),
        (key, #"routes = ["0.0.0.0/1", "128.0.0.0/1"]"#, name, true),
        (key, #"routes = ["::/0"]"#, name, true),
        (key, #"routes = ["8.0.0.0/7"]"#, name, true),
        (key, #"routes = ["10.0.0.0/8", "fc00::/7", "192.168.0.0/16"]"#, name, false),
        (key, #"routes = ["0.0.0.0/0"]"#, #"endpoint = ["192.0.2.1:51820"]"#, false),
        (key + "\ndns = [\"192.0.2.53\"]", #"routes = ["0.0.0.0/0"]"#, name, false),
    ]

    @Test(arguments: stubs)
    func `a name server on this host is warned of where a carried prefix leads its questions into the tunnel`(
        gateway: String, routes: String, tunnel: String, isLockedIn: Bool
    ) throws {
        let text = ConfigurationExamples.text(gateway: gateway, routes: routes, tunnel: tunnel)
        let warnings = try Self.load(text) { $0.hasLocalStub = true }.warnings
        #expect((warnings.first?.remedy.hasPrefix("write dns = ") == true) == isLockedIn, "\(warnings)")
        #expect(try Self.load(text) { $0.hasLocalStub = false }.warnings == [])
    }

    @Test func `name servers are addresses, with or without a port`() throws {
        let text = ConfigurationExamples.text(
            gateway: Self.key + "\n" + #"dns = ["192.0.2.53", "[2001:db8::53]:5353", "2001:db8::54"]"#)
        #expect(
            try ConfigurationExamples.load(text).nameServers.map(\.description) == [
                "192.0.2.53:53", "[2001:db8::53]:5353", "[2001:db8::54]:53",
            ])
        for wrong in ["dns.example.com", "192.0.2.53:0", "0.0.0.0", "224.0.0.1", "192.0.2.53/32"] {
            let errors = ConfigurationExamples.errors(
                in: ConfigurationExamples.text(gateway: Self.key + "\ndns = \"\(wrong)\""))
            #expect(errors.first?.problem == "\"\(wrong)\" is no name server")
        }
    }

    // MARK: The way back

    /// rp_filter, the way back, what is to be done.
    private static let ways: [(ReversePathFilter.Mode, ReversePathProblem.WayBack, String?)] = [
        (.strict, .other(name: "wan1"), "sysctl -w net.ipv4.conf.wan2.rp_filter=2"),
        (.strict, .nowhere, "sysctl -w net.ipv4.conf.wan2.rp_filter=0 net.ipv4.conf.all.rp_filter=0"),
        (.loose, .nowhere, "sysctl -w net.ipv4.conf.wan2.rp_filter=0 net.ipv4.conf.all.rp_filter=0"),
        (.strict, .sameInterface, nil), (.loose, .other(name: "wan1"), nil), (.loose, .sameInterface, nil),
        (.off, .other(name: "wan1"), nil), (.off, .nowhere, nil),
    ]

    @Test(arguments: ways)
    func `what rp_filter drops is said with what to do`(
        mode: ReversePathFilter.Mode, back: ReversePathProblem.WayBack, remedy: String?
    ) throws {
        let address = try #require(IPAddress("198.51.100.10"))
        let problem = ReversePathProblem(from: address, by: "wan2", mode, wayBack: back)
        #expect(problem?.remedy == remedy)
        guard let problem else { return }
        #expect(problem.description.hasPrefix("packets from 198.51.100.10 that come by wan2 are dropped: "))
        let text = ConfigurationExamples.text(
            tunnel: "endpoint = [\"198.51.100.10:51820\"]\nbind = { device = \"wan2\" }")
        let warnings = try Self.load(text) {
            $0.reversePathProblem = { ReversePathProblem(from: $0, by: $1 ?? "?", mode, wayBack: back) }
        }.warnings
        #expect(warnings.map(\.problem) == [problem.description])
        #expect(warnings.first?.line == 10)
    }
}
