import ControlAPI
import Daemon
import FoundationEssentials
internal import GatewayCore
import Glibc
import Testing
import WireGuard

@Suite struct ConfigurationTests {
    @Test func leastConfigurationTakesTheDefaults() throws {
        let configuration = try ConfigurationExamples.load(ConfigurationExamples.text())
        #expect(configuration.name == "vgw0")
        #expect(configuration.interface == "vgw0")
        #expect(configuration.listenPort == 51820)
        #expect(configuration.addresses == [])
        #expect(configuration.mtu == .automatic)
        #expect(configuration.offloads == OffloadConfiguration())
        #expect(configuration.routingNumbers.preferred == RoutingNumbers(mark: 51820, table: 51820))
        #expect(configuration.routeTable == .automatic)
        #expect(configuration.routeMetric == nil)
        #expect(configuration.stateDirectory == "/var/lib/vgwd")
        #expect(configuration.control.socket == "/run/vgwd/vgwd.sock")
        let connection = try #require(configuration.connections.first)
        #expect(connection.name == "aws")
        #expect(connection.prefixes == [try #require(IPPrefix("10.20.0.0/16"))])
        let tunnel = try #require(connection.tunnels.first)
        #expect(tunnel.name == "aws")
        #expect(tunnel.publicKey.base64 == ConfigurationExamples.peer)
        #expect(tunnel.presharedKey.isNone)
        #expect(tunnel.endpoints.isEmpty)
        #expect(tunnel.persistentKeepalive == 0)
    }

    @Test func everyKeyThatThisVersionHasIsRead() throws {
        let configuration = try ConfigurationExamples.load(
            """
            [gateway]
            name = "onprem-1"
            interface = "vgw7"
            listen-port = 51821
            private-key-file = "private.key"   # relative to the file's folder
            address = ["169.254.100.2/30", "fd00::2/64"]
            mtu = 8920
            workers = 4
            udp-gso = false
            udp-gro = "off"
            tun-offload = "auto"
            firewall-mark = 0x1234
            table = 77
            metric = 50
            state-directory = "/tmp/state"

            [[connection]]
            name = "aws-vpc"
            routes = ["10.20.0.0/16", "2001:db8:20::/48"]
            policy = "failover"

            [[connection.tunnel]]
            name = "zone-a"
            public-key = "\(ConfigurationExamples.peer)"
            preshared-key-file = "/etc/vgwd/zone-a.psk"
            endpoint = ["vgw-a.example.com:51820"]
            priority = 10
            weight = 1
            cipher = "chacha20-poly1305"
            persistent-keepalive = "25s"

            [[connection]]
            name = "b"
            routes = "10.30.0.0/16"

            [[connection.tunnel]]
            cipher = "aes-256-gcm"
            public-key = "\(ConfigurationExamples.otherPeer)"
            endpoint = "[2001:db8::1]:51820"

            [control]
            socket = "/tmp/vgwd.sock"
            """)
        #expect(configuration.name == "onprem-1")
        #expect(configuration.interface == "vgw7")
        #expect(configuration.listenPort == 51821)
        #expect(
            configuration.privateKey.exportBase64()
                == PrivateKey(base64: ConfigurationExamples.privateKey)?.exportBase64())
        #expect(configuration.addresses.map(\.description) == ["169.254.100.2/30", "fd00::2/64"])
        #expect(configuration.mtu == .bytes(8920))
        #expect(configuration.offloads == OffloadConfiguration(udpGSO: false, udpGRO: false, tun: true))
        #expect(configuration.workers == 4)
        #expect(configuration.routingNumbers.fixed == RoutingNumbers(mark: 0x1234, table: 77))
        #expect(configuration.routeMetric == 50)
        #expect(configuration.stateDirectory == "/tmp/state")
        #expect(configuration.control.socket == "/tmp/vgwd.sock")
        let tunnels = configuration.connections.flatMap(\.tunnels)
        #expect(tunnels.map(\.name) == ["zone-a", "b"])
        #expect(tunnels.map(\.presharedKey.isNone) == [false, true])
        #expect(tunnels.map(\.persistentKeepalive) == [25, 0])
        #expect(tunnels.map(\.cipher) == [.chacha20Poly1305, .aes256GCM])
        let address = try #require(Endpoint("[2001:db8::1]:51820"))
        #expect(
            tunnels.map(\.endpoints) == [[.name("vgw-a.example.com", port: 51820)], [.address(address)]])
    }

    @Test func aConnectionOfSeveralTunnelsIsRead() throws {
        let configuration = try ConfigurationExamples.load(
            ConfigurationExamples.text(
                routes: """
                    routes = ["10.20.0.0/16"]
                    policy = "balance"
                    metric = 70
                    on-down = "withdraw"
                    rto = "1s"
                    rate-limit = "1.5 Gbit/s"
                    copy-dscp = true
                    nat = [{ inside = "10.0.0.0/16", outside = "10.99.0.0/16" }]
                    """
                        + "\nhealth = { interval = \"50ms\", down-after = 4, up-after = 6, hold-down = \"2s\", "
                        + "max-loss = \"2.5 %\", max-rtt = \"80ms\", target = [\"10.20.0.10\", \"10.20.0.11:443\"], "
                        + "source = \"192.168.10.1\" }"
                ,
                tunnel: """
                    name = "link"
                    bind = { device = "eth1", source = "192.0.2.7" }
                    listen-port = 51821
                    inside = { local = "169.254.101.2", remote = "169.254.101.1" }
                    endpoint = ["192.0.2.1:51820", "vgw.example.com:51820"]
                    priority = 5
                    """,
                more: """
                    [[connection.tunnel]]
                    name = "internet"
                    inside = { local = "169.254.102.2", remote = "169.254.102.1" }
                    private-key-file = "/etc/vgwd/second.key"
                    public-key = "\(ConfigurationExamples.peer)"
                    weight = 3
                    rate-limit = "500 Mbit/s"
                    """))
        let connection = try #require(configuration.connections.first)
        #expect(connection.policy == .balance)
        #expect(connection.metric == 70)
        #expect(connection.onDown == .withdraw)
        #expect(connection.recoveryTimeObjective == .seconds(1))
        #expect(connection.rateLimit == 1_500_000_000)
        #expect(connection.copiesDSCP)
        #expect(connection.translations.map(\.outside) == [IPPrefix("10.99.0.0/16")])
        #expect(connection.health.interval == .milliseconds(50))
        #expect(connection.health.downAfter == 4)
        #expect(connection.health.upAfter == 6)
        #expect(connection.health.holdDown == .seconds(2))
        #expect(connection.health.maxLoss == 0.025)
        #expect(connection.health.maxRoundTrip == .milliseconds(80))
        let first = try #require(IPAddress("10.20.0.10"))
        let second = try #require(IPAddress("10.20.0.11"))
        #expect(connection.health.targets == [.echo(first), .tcp(second, port: 443)])
        #expect(connection.health.source == IPAddress("192.168.10.1"))
        let link = try #require(connection.tunnels.first)
        #expect(
            link.binding
                == UnderlayBinding(listenPort: 51821, device: "eth1", source: IPAddress("192.0.2.7")))
        #expect(link.inside?.local == IPAddress("169.254.101.2"))
        #expect(link.inside?.remote == IPAddress("169.254.101.1"))
        #expect(link.endpoints.count == 2)
        #expect(link.priority == 5)
        let internet = try #require(connection.tunnels.last)
        #expect(internet.privateKey != nil)
        #expect(internet.publicKey == link.publicKey)
        #expect(internet.weight == 3)
        #expect(internet.rateLimit == 500_000_000)
        #expect(!configuration.summary().contains(ConfigurationExamples.secondKey))
    }

    @Test("a tunnel whose key file holds the gateway's key has no other identity than the gateway")
    func sameKey() throws {
        let configuration = try ConfigurationExamples.load(
            ConfigurationExamples.text(tunnel: "private-key-file = \"/etc/vgwd/private.key\""))
        let tunnel = try #require(configuration.connections.first?.tunnels.first)
        #expect(tunnel.privateKey == nil)
    }

    @Test func healthMayBeOff() throws {
        let configuration = try ConfigurationExamples.load(
            ConfigurationExamples.text(routes: "routes = []\nhealth = \"off\""))
        #expect(configuration.connections.first?.health.isOn == false)
    }

    @Test func twoConnectionsMayCarryOnePrefixWithDifferentMetrics() throws {
        let configuration = try ConfigurationExamples.load(
            ConfigurationExamples.text(
                more: """
                    [[connection]]
                    name = "b"
                    metric = 100
                    routes = ["10.20.0.0/16"]
                    [[connection.tunnel]]
                    public-key = "\(ConfigurationExamples.otherPeer)"
                    """))
        #expect(configuration.connections.map(\.routes).map(\.count) == [1, 1])
    }

    @Test func privateKeyMayBeACredentialOfSystemd() throws {
        let configuration = try ConfigurationExamples.load(
            ConfigurationExamples.text(gateway: "credential = \"private-key\""),
            environment: ["CREDENTIALS_DIRECTORY": "/run/credentials", "STATE_DIRECTORY": "/var/lib/x:/y"])
        #expect(
            configuration.privateKey.publicKey
                == PrivateKey(base64: ConfigurationExamples.privateKey)?.publicKey)
        #expect(configuration.stateDirectory == "/var/lib/x")
    }

    @Test(
        "the table follows from the mark, and the mark from the port; ports of the kernel's tables are no numbers",
        arguments: [
            ("", 51820, 51820), ("firewall-mark = \"off\"", 0, 254), ("table = \"main\"", 51820, 254),
            ("table = \"off\"", 51820, nil), ("table = 9", 51820, 9), ("firewall-mark = 5", 5, 5),
            ("listen-port = 1000", 1000, 1000), ("listen-port = 0", 51820, 51820),
            ("listen-port = 253", 256, 256), ("listen-port = 254", 256, 256), ("listen-port = 255", 256, 256),
            ("firewall-mark = 254", 254, 256),
        ] as [(String, UInt32, UInt32?)])
    func numbers(_ line: String, _ mark: UInt32, _ table: UInt32?) throws {
        let configuration = try ConfigurationExamples.load(
            ConfigurationExamples.text(gateway: "private-key-file = \"/etc/vgwd/private.key\"\n" + line))
        #expect(configuration.routingNumbers.preferred == RoutingNumbers(mark: mark, table: table))
    }

    @Test func hooksAreRead() throws {
        let configuration = try ConfigurationExamples.load(
            ConfigurationExamples.text(
                more: """
                    [[hook]]
                    on = ["tunnel-*", "started"]
                    run = ["/usr/local/bin/page", "--loud"]
                    timeout = "500ms"
                    [[hook]]
                    on = "*"
                    run = "/bin/true"
                    """))
        let hooks = configuration.hooks
        #expect(
            hooks == [
                HookConfiguration(
                    on: ["tunnel-*", "started"], run: ["/usr/local/bin/page", "--loud"],
                    timeout: .milliseconds(500)),
                HookConfiguration(on: ["*"], run: ["/bin/true"], timeout: .seconds(10)),
            ])
        #expect(hooks[0].wants(.tunnelDegraded) && hooks[0].wants(.started))
        #expect(!hooks[0].wants(.stopping) && !hooks[0].wants(.connectionUp))
        #expect(hooks[1].wants(.connectionUp) && !hooks[1].wants(.hookFailed))
        for part in ["/usr/local/bin/page --loud", "tunnel-*, started", "500ms", "10s"] {
            #expect(configuration.summary().contains(part))
        }
    }

    @Test(arguments: [60, 80])
    func summaryFitsATerminal(_ width: Int) throws {
        let configuration = try ConfigurationExamples.load(ConfigurationExamples.text())
        let lines = configuration.summary(width: width).split(
            separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.allSatisfy { $0.count <= width || !$0.dropFirst(20).contains(" ") }, "\(lines)")
        func words(_ text: String) -> [Substring] { text.split { $0.isWhitespace } }
        #expect(words(configuration.summary(width: width)) == words(configuration.summary()))
        #expect(
            lines.count
                > configuration.summary().split(separator: "\n", omittingEmptySubsequences: false).count)
    }

    @Test func summarySaysWhichTunnelsAreProbed() throws {
        let inside = "inside = { local = \"169.254.101.2\", remote = \"169.254.101.1\" }"
        let other = """
            [[connection.tunnel]]
            name = "second"
            public-key = "\(ConfigurationExamples.otherPeer)"
            """
        func health(tunnel: String, more: String = "") throws -> String {
            let text = ConfigurationExamples.text(tunnel: "name = \"first\"\n\(tunnel)", more: more)
            let lines = try ConfigurationExamples.load(text).summary().split(separator: "\n")
            return String(try #require(lines.first { $0.hasPrefix("  health") }).dropFirst(20))
        }
        let probes =
            "a probe every 200 ms, down after 3 unanswered, up after 5 answered, no limit of loss or delay"
        #expect(try health(tunnel: inside) == probes)
        #expect(
            try health(tunnel: "")
                == "no probes: no tunnel has inside addresses; write inside = { local = \"…\", remote = \"…\" }"
        )
        #expect(
            try health(tunnel: inside, more: other) == "\(probes); not second, without inside addresses")
    }

    @Test func summarySaysWhatWouldBeAppliedAndNoSecret() throws {
        let configuration = try ConfigurationExamples.load(
            ConfigurationExamples.text(
                tunnel: "preshared-key-file = \"/etc/vgwd/zone-a.psk\"\nendpoint = \"192.0.2.1:51820\""))
        let summary = configuration.summary()
        for part in ["vgw0", "10.20.0.0/16", ConfigurationExamples.peer, "192.0.2.1:51820", "table 51820"] {
            #expect(summary.contains(part))
        }
        #expect(!summary.contains(configuration.privateKey.exportBase64()))
        #expect(!summary.contains(ConfigurationExamples.presharedKey))
    }

    @Test func summarySaysWhatIsNotProbedAndEveryLimit() throws {
        func summary(routes: String = "", tunnel: String) throws -> String {
            try ConfigurationExamples.load(
                ConfigurationExamples.text(routes: "routes = [\"10.20.0.0/16\"]\n\(routes)", tunnel: tunnel)
            ).summary()
        }
        let inside = #"inside = { local = "169.254.101.2", remote = "169.254.101.1" }"#
        let bare = try summary(tunnel: "")
        for part in [
            "  health            no probes: no tunnel has inside addresses; write inside = {",
            "    not probed      it has no inside addresses: a cut is noticed by handshakes alone, after 20 s",
            "  rto               none: ", "  rate limit        none", "    rate limit      none",
        ] { #expect(bare.contains(part), "\(bare)") }
        let probed = try summary(tunnel: inside)
        #expect(!probed.contains("not probed") && probed.contains("no limit of loss or delay"), "\(probed)")
        let limited = try summary(
            routes: #"health = { max-loss = "5 %", max-rtt = "80ms" }"#
                + "\nrto = \"2s\"\nrate-limit = \"1 Gbit/s\"",
            tunnel: inside + "\nrate-limit = \"500 Mbit/s\"")
        for part in [
            "degraded where 5 % of them are lost or they take more than 80ms",
            "  rto               2s, which a drill",
            "  rate limit        1000 Mbit/s", "    rate limit      500 Mbit/s",
        ] { #expect(limited.contains(part), "\(limited)") }
        let off = try summary(routes: #"health = "off""#, tunnel: "")
        #expect(!off.contains("not probed"), "\(off)")
    }

    @Test(
        "the examples in conf load",
        arguments: [
            "vgwd.toml", "examples/onprem.toml", "examples/cloud.toml", "examples/two-zones.toml",
            "examples/two-zones-a.toml", "examples/two-zones-b.toml", "examples/dedicated-link.toml",
            "examples/dedicated-link-far.toml", "examples/balance.toml", "examples/balance-far.toml",
            "examples/bgp.toml", "examples/bgp-cloud-a.toml", "examples/bgp-cloud-b.toml",
            "examples/overlap.toml",
            "examples/overlap-far.toml",
        ])
    func examplesLoad(_ name: String) throws {
        let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "conf")
        let data = try Data(contentsOf: folder.appending(path: name))
        let files = FixedFiles([
            "/etc/vgwd/private.key": ConfigurationExamples.privateKey,
            "/etc/vgwd/internet.key": ConfigurationExamples.secondKey,
            "/etc/vgwd/provider-2.key": ConfigurationExamples.secondKey,
            "/etc/vgwd/pair.psk": ConfigurationExamples.presharedKey,
            "/etc/vgwd/zone-a.psk": ConfigurationExamples.presharedKey,
        ])
        _ = try GatewayConfiguration.parse(
            String(decoding: data, as: UTF8.self), path: "/etc/vgwd/vgwd.toml", files: files)
    }
}

@Suite struct ConfigurationKeyFileTests {
    private let folder = "/tmp/vgwd-key-tests-\(UInt64.random(in: .min ... .max))"

    private func withFile(mode: Int, text: String, _ body: (String) throws -> Void) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let path = "\(folder)/private.key"
        try Data(text.utf8).write(to: URL(filePath: path))
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
        try body(path)
    }

    @Test("a key file that only its owner can use is read", arguments: [0o600, 0o400])
    func privateFileIsRead(_ mode: Int) throws {
        try withFile(mode: mode, text: "  \(ConfigurationExamples.privateKey)\n") { path in
            let key = try #require(SecretBytes(base64: ConfigurationExamples.privateKey.utf8))
            let link = "\(folder)/link"
            try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: path)
            for name in [path, link] {
                let read = try SystemFiles().key(at: name)
                #expect(read?.isEqual(to: key) == true)
            }
        }
    }

    @Test(
        "a key file that others can read or write is refused",
        arguments: [0o640, 0o604, 0o644, 0o620, 0o602, 0o610])
    func openFileIsRefused(_ mode: Int) throws {
        try withFile(mode: mode, text: ConfigurationExamples.privateKey) { path in
            let problem = #expect(throws: FileProblem.self) { try SystemFiles().key(at: path) }
            #expect(problem?.problem.contains("mode 0\(String(mode, radix: 8))") == true)
            #expect(problem?.remedy.contains("chmod 0600 \(path)") == true)
        }
    }

    @Test("a credential of systemd may show an access list as bits of a group, and is closed to others")
    func credentialsHaveAnAccessList() throws {
        for mode in [0o400, 0o440] {
            try withFile(mode: mode, text: ConfigurationExamples.privateKey) { path in
                let key = try SystemFiles(credentialsDirectory: folder).key(at: path)
                #expect(key != nil)
            }
        }
        for (mode, directory) in [(0o444, folder), (0o404, folder), (0o440, "/tmp"), (0o440, "")] {
            try withFile(mode: mode, text: ConfigurationExamples.privateKey) { path in
                #expect(throws: FileProblem.self) {
                    try SystemFiles(credentialsDirectory: directory).key(at: path)
                }
            }
        }
        try withFile(mode: 0o440, text: ConfigurationExamples.privateKey) { path in
            let around = "\(folder)/../\(folder.split(separator: "/").last ?? "")/private.key"
            #expect(throws: FileProblem.self) {
                try SystemFiles(credentialsDirectory: folder).key(at: around)
            }
        }
    }

    @Test func missingFolderAndLongFilesAreRefused() throws {
        #expect(throws: FileProblem.self) { try SystemFiles().key(at: "/nowhere/private.key") }
        #expect(throws: FileProblem.self) { try SystemFiles().key(at: "/etc") }
        try withFile(mode: 0o600, text: String(repeating: "A", count: 5000)) { path in
            #expect(throws: FileProblem.self) { try SystemFiles().key(at: path) }
        }
    }

    @Test(
        "a file that holds anything but one key holds none", arguments: ["", " \n", "x", "KEY KEY", "KEYx"])
    func otherFileIsNoKey(_ text: String) throws {
        let text = text.replacing("KEY", with: ConfigurationExamples.privateKey)
        try withFile(mode: 0o600, text: text) { path in
            let key = try SystemFiles().key(at: path)
            #expect(key == nil)
        }
    }

    @Test func loadReadsFileAndKeysBesideIt() throws {
        try withFile(mode: 0o600, text: ConfigurationExamples.privateKey) { path in
            let file = "\(folder)/vgwd.toml"
            let text = ConfigurationExamples.text(gateway: "private-key-file = \"private.key\"")
            try Data(text.utf8).write(to: URL(filePath: file))
            #expect(try GatewayConfiguration.load(path: file, environment: [:]).connections.count == 1)
            try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path)
            let errors = #expect(throws: ConfigurationErrors.self) {
                try GatewayConfiguration.load(path: file, environment: [:])
            }
            #expect(errors?.errors.map(\.line) == [2])
            #expect(errors?.description.contains(ConfigurationExamples.privateKey) == false)
        }
    }

    @Test func missingConfigurationIsAnErrorWithoutALine() {
        let errors = #expect(throws: ConfigurationErrors.self) {
            try GatewayConfiguration.load(path: "/nowhere/vgwd.toml", environment: [:])
        }
        #expect(errors?.errors.map(\.line) == [nil])
        #expect(errors?.errors.map(\.problem) == ["there is no such file"])
    }

    @Test func folderIsNoConfiguration() {
        let errors = #expect(throws: ConfigurationErrors.self) {
            try GatewayConfiguration.load(path: "/etc", environment: [:])
        }
        #expect(errors?.errors.map(\.problem) == ["is not a file"])
    }

    @Test func aFolderThatMayNotBeSearchedIsNotAMissingFile() async {
        await #expect(processExitsWith: .success) { try ConfigurationKeyFileTests.readAsNobody() }
    }

    /// In a process of its own, as root may search any folder.
    private static func readAsNobody() throws {
        let folder = "/tmp/vgwd-key-tests-\(getpid())"
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: false, attributes: [.posixPermissions: 0])
        let nobody: uid_t = 65534
        let user = geteuid()
        if user == 0 { _ = seteuid(nobody) }
        var problems: [String] = []
        do throws(ConfigurationErrors) {
            _ = try GatewayConfiguration.load(path: "\(folder)/vgwd.toml", environment: [:])
        } catch {
            problems += error.errors.map(\.problem)
        }
        do throws(FileProblem) {
            _ = try SystemFiles().key(at: "\(folder)/private.key")
        } catch {
            problems.append(error.problem)
        }
        if user == 0 { _ = seteuid(user) }
        try FileManager.default.removeItem(atPath: folder)
        guard
            problems == [
                "\(folder)/vgwd.toml is out of reach: this user may not enter \(folder) (mode 00, of root)",
                "\(folder)/private.key is out of reach: this user may not enter \(folder) (mode 00, of root)",
            ]
        else { throw FileProblem(problem: "\(problems)", remedy: "") }
    }
}
