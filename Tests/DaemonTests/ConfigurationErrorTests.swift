import Daemon
internal import GatewayCore
import Testing
import WireGuard

/// One file that is wrong in one place: the line, the key and a part of what is said.
struct BadConfiguration: Sendable, CustomTestStringConvertible {
    var text: String
    var line: Int?
    var key: String
    var says: String

    init(_ text: String, line: Int?, key: String, says: String) {
        self.text = text
        self.line = line
        self.key = key
        self.says = says
    }

    /// A line more in `[gateway]`: line 3.
    static func gateway(_ line: String, _ key: String, _ says: String) -> BadConfiguration {
        BadConfiguration(
            ConfigurationExamples.text(gateway: "private-key-file = \"/etc/vgwd/private.key\"\n" + line),
            line: 3,
            key: "gateway.\(key)", says: says)
    }

    /// Another line 2 of `[gateway]`: the key file.
    static func keyFile(_ line: String, _ key: String, _ says: String) -> BadConfiguration {
        BadConfiguration(
            ConfigurationExamples.text(gateway: line), line: 2, key: "gateway.\(key)", says: says)
    }

    /// Other routes: line 6.
    static func routes(_ line: String, _ key: String, _ says: String) -> BadConfiguration {
        BadConfiguration(
            ConfigurationExamples.text(routes: line), line: 6, key: "connection[aws].\(key)", says: says)
    }

    /// Health of a connection that has all else that targets need: line 7.
    static func targets(_ health: String, _ key: String, _ says: String) -> BadConfiguration {
        BadConfiguration(
            ConfigurationExamples.text(
                routes: """
                    routes = ["10.0.0.0/8", "fd20::/48"]
                    health = { \(health) }
                    nat = [{ inside = "172.16.0.0/16", outside = "172.17.0.0/16" }]
                    """, tunnel: "inside = { local = \"169.254.101.2\", remote = \"169.254.101.1\" }"),
            line: 7, key: "connection[aws].\(key)", says: says)
    }

    /// A line more in the tunnel: line 10.
    static func tunnel(_ line: String, _ key: String, _ says: String) -> BadConfiguration {
        BadConfiguration(
            ConfigurationExamples.text(tunnel: line), line: 10, key: "connection[aws].tunnel[#1].\(key)",
            says: says)
    }

    /// More at the end: from line 11.
    static func more(_ text: String, line: Int, _ key: String, _ says: String) -> BadConfiguration {
        BadConfiguration(ConfigurationExamples.text(more: text), line: line, key: key, says: says)
    }

    var testDescription: String { "\(key): \(says)" }

    static let gatewaySection: [BadConfiguration] = [
        BadConfiguration("", line: nil, key: "gateway", says: "is missing"),
        BadConfiguration("gateway = 1", line: 1, key: "gateway", says: "write it as a table: [gateway]"),
        BadConfiguration("[gateway", line: 1, key: "", says: "not TOML"),
        BadConfiguration("[gateway]\n[gateway]", line: 2, key: "", says: "not TOML"),
        .gateway("nmae = \"x\"", "nmae", "did you mean 'name'?"),
        .gateway("listen_port = 1", "listen_port", "did you mean 'listen-port'?"),
        .gateway("zzz = 1", "zzz", "known here: address, credential"),
        .gateway("PrivateKey = \"x\"", "PrivateKey", "did you mean 'private-key-file'?"),
        .gateway("fwmark = 1", "fwmark", "did you mean 'firewall-mark'?"),
        .gateway("name = 5", "name", "is a number; write text"),
        .gateway("name = \"\"", "name", "is empty"),
        .gateway("name = \"a b\"", "name", "cannot be a name"),
        .gateway("interface = \"much-too-long-a-name\"", "interface", "1 to 15 characters"),
        .gateway("interface = \"a/b\"", "interface", "cannot name an interface"),
        .gateway(
            "listen-port = 70000", "listen-port", "70000 is not a UDP port; write a number from 0 to 65535"),
        .gateway("listen-port = \"51820\"", "listen-port", "is text; write a number"),
        .gateway("credential = \"private-key\"", "credential", "two sources"),
        .gateway("address = [\"169.254.100.2/33\"]", "address[#1]", "is no address"),
        .gateway("address = 5", "address", "is a number; write a list"),
        .gateway("address = [5]", "address[#1]", "is a number; write text"),
        .gateway("address = \"224.0.0.1\"", "address", "cannot be an interface's address"),
        .gateway("address = [\"10.0.0.0/24\"]", "address[#1]", "write \"10.0.0.1/24\""),
        .gateway(
            "address = [\"10.0.0.255/24\"]", "address[#1]", "broadcast address; write \"10.0.0.254/24\""),
        .gateway("address = [\"10.0.0.1/24\", \"10.0.0.1/32\"]", "address[#2]", "is there already"),
        .gateway("mtu = 1279", "mtu", "1280 to 65535"),
        .gateway("mtu = \"big\"", "mtu", "is no MTU"),
        .gateway("workers = 65", "workers", "is no number of workers"),
        .gateway("workers = 0", "workers", "is no number of workers"),
        .gateway("udp-gso = \"maybe\"", "udp-gso", "write \"auto\""),
        .gateway("udp-gro = 1", "udp-gro", "is no switch"),
        .gateway("tun-offload = []", "tun-offload", "is no switch"),
        .gateway("firewall-mark = \"x\"", "firewall-mark", "is no firewall mark"),
        .gateway("firewall-mark = -1", "firewall-mark", "is no firewall mark"),
        .gateway("table = 255", "table", "is no routing table of ours"),
        .gateway("table = 5000000000", "table", "is no routing table of ours"),
        .gateway("metric = -1", "metric", "-1 is not a route's metric"),
        .gateway("state-directory = \"var\"", "state-directory", "is not absolute"),
        .gateway("firewall-mark = \"off\"\ntable = 7", "table", "needs the rule").on(line: 4),
    ]

    static let keys: [BadConfiguration] = [
        BadConfiguration(
            ConfigurationExamples.text(gateway: ""), line: 1, key: "gateway.private-key-file",
            says: "is missing"),
        .keyFile("private-key-file = \"/etc/none\"", "private-key-file", "there is no /etc/none"),
        .keyFile("private-key-file = \"none\"", "private-key-file", "there is no /etc/vgwd/none"),
        .keyFile("private-key-file = \"/etc/vgwd/junk.key\"", "private-key-file", "holds no key"),
        .keyFile(
            "private-key-file = \"\(ConfigurationExamples.privateKey)\"", "private-key-file",
            "holds a key, or the name of a file that cannot be read"),
        .keyFile("credential = \"private-key\"", "credential", "systemd passed no credential"),
        .keyFile("credential = \"../x\"", "credential", "is no credential"),
        BadConfiguration(
            ConfigurationExamples.text(key: "abc"), line: 9, key: "connection[aws].tunnel[#1].public-key",
            says: "is no key (3 characters)"),
        BadConfiguration(
            ConfigurationExamples.text(key: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), line: 9,
            key: "connection[aws].tunnel[#1].public-key", says: "is all zero"),
        // The public key that belongs to the example's private key.
        BadConfiguration(
            ConfigurationExamples.text(key: "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw="), line: 9,
            key: "connection[aws].tunnel[#1].public-key", says: "this gateway's own public key"),
        .tunnel("preshared-key-file = \"/etc/vgwd/junk.key\"", "preshared-key-file", "holds no key"),
        .tunnel("preshared-key-file = \"/nowhere\"", "preshared-key-file", "there is no /nowhere"),
        .tunnel("preshared-key = \"x\"", "preshared-key", "did you mean 'preshared-key-file'?"),
        BadConfiguration(
            "[gateway]\nprivate-key-file = \"/etc/vgwd/private.key\"\n[[connection]]\nname = \"a\"\nroutes = []\n"
                + "[[connection.tunnel]]\nname = \"t\"",
            line: 6, key: "connection[a].tunnel[t].public-key", says: "is missing"),
    ]

    static let connections: [BadConfiguration] = [
        BadConfiguration(
            ConfigurationExamples.text(name: ""), line: 4, key: "connection[#1].name", says: "is missing"),
        BadConfiguration(
            ConfigurationExamples.text(routes: ""), line: 4, key: "connection[aws].routes", says: "is missing"
        ),
        BadConfiguration(
            "[gateway]\nprivate-key-file = \"/etc/vgwd/private.key\"\n[connection]\nname = \"a\"", line: 3,
            key: "connection", says: "write it as a list of tables: [[connection]]"),
        BadConfiguration(
            "[gateway]\nprivate-key-file = \"/etc/vgwd/private.key\"\n[[connection]]\nname = \"a\"\nroutes = []",
            line: 3, key: "connection[a].tunnel", says: "write [[connection.tunnel]]"),
        .routes("routes = [\"10.20.1.0/16\"]", "routes[#1]", "write \"10.20.0.0/16\", or \"10.20.1.0/32\""),
        .routes("routes = [\"2001:db8::1/48\"]", "routes[#1]", "write \"2001:db8::/48\""),
        .routes("routes = [\"10.20.0.0/16\", \"10.20.0.0/16\"]", "routes[#2]", "is there already"),
        .routes("routes = [\"ten\"]", "routes[#1]", "\"ten\" is no prefix"),
        .routes(
            "routes = []\nnat = [{ inside = \"10.0.0.0/8\", outside = \"225.0.0.0/8\" }]", "nat[#1].outside",
            "is multicast"
        ).on(line: 7),
        .gateway("dns = [\"[fe80::1%2]:53\"]", "dns[#1]", "is link-local"),
        .gateway("rules = false", "rules", "no table of a known number"),
        .gateway(
            "table = 100\nfirewall-mark = \"off\"", "table", "needs the rule that a firewall mark makes"),
        .routes("routes = [\"10.0.0.0/8\",\n  \"ten\"]", "routes[#2]", "is no prefix").on(line: 7),
        .routes("routes = []\npolicy = \"best\"", "policy", "is no policy").on(line: 7),
        .routes("routes = []\non-down = \"drop\"", "on-down", "write \"unreachable\"").on(line: 7),
        .routes("routes = []\nhealth = \"on\"", "health", "is no setting of health").on(line: 7),
        .routes("routes = []\nhealth = { interval = \"1ms\" }", "health.interval", "10ms to 60s").on(line: 7),
        .routes("routes = []\nhealth = { max-loss = \"5\" }", "health.max-loss", "is no share").on(line: 7),
        .routes("routes = []\nhealth = { target = [\"x\"] }", "health.target[#1]", "is no address").on(
            line: 7),
        .routes("routes = []\nhealth = { target = [\"10.1.1.1\"] }", "health.target", "behind none").on(
            line: 7),
        .routes(
            "routes = [\"10.0.0.0/8\"]\nhealth = { target = [\"10.1.1.1\"] }", "health.target",
            "cannot ask targets: it has no inside addresses"
        ).on(line: 7),
        .routes("routes = []\nhealth = { source = \"10.0.0.1\" }", "health.source", "there is none").on(
            line: 7),
        .targets("target = [\"10.1.1.1\"], source = \"lan\"", "health.source", "is no address of a host"),
        .targets(
            "target = [\"10.1.1.1\"], source = \"224.0.0.1\"", "health.source", "is no address of a host"),
        .targets("target = [\"10.1.1.1\"], source = \"fd00::1\"", "health.source", "of different families"),
        .targets(
            "target = [\"10.1.1.1\", \"fd20::1\"], source = \"192.168.10.1\"", "health.source",
            "of different families"),
        .targets("target = [\"10.1.1.1\", \"fd20::1\"]", "health.target", "asked from 169.254.101.2"),
        .targets("target = [\"10.1.1.1\"], source = \"172.16.0.1\"", "health.source", "by nat"),
        .routes("routes = []\nmetric = 4294967295", "metric", "is not a route's metric").on(line: 7),
        .routes("routes = []\nrto = \"soon\"", "rto", "is no duration").on(line: 7),
        .routes("routes = []\nrate-limit = \"fast\"", "rate-limit", "is no rate").on(line: 7),
        .routes("routes = []\ncopy-dscp = 1", "copy-dscp", "write true or false").on(line: 7),
        .routes("dynamic = true", "dynamic", "needs the inside addresses"),
        .routes("routes = []\nnat = [{ inside = \"10.0.0.0/16\" }]", "nat[#1].outside", "is missing").on(
            line: 7),
        .routes(
            "routes = []\nnat = [{ inside = \"10.0.0.0/16\", outside = \"10.99.0.0/24\" }]", "nat[#1]",
            "are not of one size"
        ).on(line: 7),
        .routes(
            "routes = [\"10.0.0.0/16\"]\nnat = [{ inside = \"10.0.0.0/16\", outside = \"10.99.0.0/16\" }]",
            "routes[#1]", "which nat says is at this end"),
        .tunnel("endpoint = [\"192.0.2.1\"]", "endpoint[#1]", "write \"192.0.2.1:51820\""),
        .tunnel("endpoint = \"2001:db8::1\"", "endpoint", "write \"[2001:db8::1]:51820\""),
        .tunnel("endpoint = \"vgw.example.com\"", "endpoint", "has no port"),
        .tunnel("endpoint = \"vgw.example.com:0\"", "endpoint", "has no port from 1 to 65535"),
        .tunnel("endpoint = \"vgw.example.com:70000\"", "endpoint", "has no port from 1 to 65535"),
        .tunnel("endpoint = \"300.1.1.1:1\"", "endpoint", "names neither an address nor a host"),
        .tunnel("endpoint = \"a b:1\"", "endpoint", "names neither an address nor a host"),
        .tunnel("endpoint = \"[fe80::1]:1\"", "endpoint", "names no interface"),
        .tunnel("endpoint = \"0.0.0.0:1\"", "endpoint", "is no host"),
        .tunnel("endpoint = [\"a.example:1\", \"a.example:1\"]", "endpoint[#2]", "is there already"),
        .tunnel("inside = { local = \"10.0.0.1\" }", "inside.remote", "is missing"),
        .tunnel(
            "inside = { local = \"10.0.0.1\", remote = \"x\" }", "inside.remote", "is no address of a host"),
        .tunnel("inside = { local = \"10.0.0.1\", remote = \"fd00::1\" }", "inside", "no two ends of a link"),
        .tunnel("bind = { device = \"a b\" }", "bind.device", "cannot name an interface"),
        .tunnel("bind = { source = \"x\" }", "bind.source", "is no address of a host"),
        .tunnel("listen-port = 0", "listen-port", "0 is not a UDP port"),
        .tunnel("rate-limit = \"500\"", "rate-limit", "is no rate"),
        .tunnel("cipher = \"rot13\"", "cipher", "is no cipher"),
        .tunnel("priority = -1", "priority", "-1 is not a priority"),
        .tunnel("weight = 0", "weight", "0 is not a weight"),
        .tunnel("persistent-keepalive = 25", "persistent-keepalive", "write a number with ms, s, m or h"),
        .tunnel("persistent-keepalive = \"25\"", "persistent-keepalive", "is no duration that fits"),
        .tunnel("persistent-keepalive = \"1500ms\"", "persistent-keepalive", "no whole number of seconds"),
        .tunnel("persistent-keepalive = \"70000s\"", "persistent-keepalive", "is no duration that fits"),
        .tunnel("keepalive = \"25s\"", "keepalive", "did you mean 'persistent-keepalive'?"),
        .more(
            "[[connection.tunnel]]\nname = \"b\"\npublic-key = \"\(ConfigurationExamples.otherPeer)\"",
            line: 8,
            "connection[aws].tunnel[#1].name", "name each of several tunnels"),
    ]

    static let others: [BadConfiguration] = [
        .more("[controll]", line: 11, "controll", "did you mean 'control'?"),
        .more("[control]\nsocket = \"sock\"", line: 12, "control.socket", "cannot be a socket"),
        .more("[control]\nadmins = [\"root\"]", line: 12, "control.admins", "not in this version"),
        .more("[control]\nviewers = [\"a\"]", line: 12, "control.viewers", "not in this version"),
        .more("[metrics]\nlisten = \"127.0.0.1:9586\"", line: 11, "metrics", "not in this version"),
        .more(
            "[metrics]\nlisten = \"localhost:9586\"", line: 12, "metrics.listen", "is no address with a port"),
        .more(
            "[[hook]]\non = [\"vpn-*\"]\nrun = [\"/x\"]", line: 12, "hook[#1].on[#1]",
            "is no event; known: tunnel-up"),
        .more(
            "[[hook]]\non = \"*-up\"\nrun = [\"/x\"]", line: 12, "hook[#1].on", "is no event"),
        .more(
            "[[hook]]\non = [\"hook-failed\"]\nrun = [\"/x\"]", line: 12, "hook[#1].on[#1]",
            "starts no hook"),
        .more("[[hook]]\non = []\nrun = [\"/x\"]", line: 12, "hook[#1].on", "names no event"),
        .more("[[hook]]\non = [\"*\"]\nrun = []", line: 13, "hook[#1].run", "names no program"),
        .more(
            "[[hook]]\non = [\"*\"]\nrun = [\"/x\"]\ntimeout = 10", line: 14, "hook[#1].timeout",
            "is no duration that fits"),
        .more(
            "[[hook]]\non = [\"*\"]\nrun = [\"/x\"]\ntimeout = \"0s\"", line: 14, "hook[#1].timeout",
            "from 100ms to 1h"),
        .more(
            "[[hook]]\non = [\"*\"]\nrunn = [\"/x\"]", line: 13, "hook[#1].runn", "did you mean 'run'?"),
        .more(
            "[[hook]]\non = [\"connection-dwon\"]\nrun = [\"/x\"]", line: 12, "hook[#1].on[#1]",
            "'connection-down'"),
        .more("[[hook]]\non = [\"started\"]\nrun = [\"x\"]", line: 13, "hook[#1].run[#1]", "is not absolute"),
        .more("[[hook]]\non = [\"started\"]", line: 11, "hook[#1].run", "is missing"),
    ]

    /// A second connection, from line 11, that gets in the way of the first.
    static let conflicts: [BadConfiguration] = [
        .second(
            name: "aws", key: ConfigurationExamples.otherPeer, line: 12, "connection[aws].name", "(line 5)"),
        .second(key: ConfigurationExamples.peer, line: 15, "connection[b].tunnel[#1].public-key", "(line 9)"),
        .second(
            routes: "10.20.0.0/16", key: ConfigurationExamples.otherPeer, line: 13,
            "connection[b].routes[#1]",
            "connection \"aws\" has 10.20.0.0/16 already (line 6)"),
        .second(
            key: ConfigurationExamples.otherPeer, extra: "name = \"aws\"", line: 16,
            "connection[b].tunnel[aws].name",
            "a tunnel is named \"aws\" already"),
        BadConfiguration(
            ConfigurationExamples.text(
                gateway: "private-key-file = \"/etc/vgwd/private.key\"\nfirewall-mark = \"off\"",
                routes: "routes = [\"0.0.0.0/0\"]", tunnel: "endpoint = \"192.0.2.1:51820\""), line: 11,
            key: "connection[aws].tunnel[#1].endpoint", says: "route 0.0.0.0/0 covers 192.0.2.1"),
    ]

    private static func second(
        name: String = "b", routes: String = "10.30.0.0/16", key: String, extra: String = "", line: Int,
        _ path: String,
        _ says: String
    ) -> BadConfiguration {
        .more(
            """
            [[connection]]
            name = "\(name)"
            routes = ["\(routes)"]
            [[connection.tunnel]]
            public-key = "\(key)"
            \(extra)
            """, line: line, path, says)
    }

    private func on(line: Int) -> BadConfiguration {
        var copy = self
        copy.line = line
        return copy
    }
}

@Suite struct ConfigurationErrorTests {
    @Test(
        "a wrong value is reported with its line, its key and what would be right",
        arguments: BadConfiguration.gatewaySection + BadConfiguration.keys + BadConfiguration.connections
            + BadConfiguration.others + BadConfiguration.conflicts)
    func wrongValueIsReported(_ bad: BadConfiguration) throws {
        let errors = ConfigurationExamples.errors(in: bad.text)
        let matching = errors.filter { "\($0.problem); \($0.remedy)".contains(bad.says) }
        let found = try #require(matching.first, "got: \(errors)")
        #expect(found.line?.number == bad.line)
        #expect(found.key == bad.key)
        #expect(!found.remedy.isEmpty)
    }

    @Test("one mistake is one error", arguments: BadConfiguration.gatewaySection + BadConfiguration.keys)
    func oneMistakeIsOneError(_ bad: BadConfiguration) {
        #expect(ConfigurationExamples.errors(in: bad.text).count == 1)
    }

    @Test func everyErrorIsReportedAtOnceInTheOrderOfLines() {
        let text = ConfigurationExamples.text(
            gateway: "listen-port = -1\nmtu = 5\nbogus = true", routes: "routes = [\"10.0.0.1/8\", \"x\"]",
            tunnel: "endpoint = \"x\"\ncipher = \"aes-128\"", key: "short", more: "[metrics]\n[[hook]]")
        let errors = ConfigurationExamples.errors(in: text)
        #expect(
            errors.map(\.key) == [
                "gateway.private-key-file", "gateway.listen-port", "gateway.mtu", "gateway.bogus",
                "connection[aws].routes[#1]", "connection[aws].routes[#2]",
                "connection[aws].tunnel[#1].public-key",
                "connection[aws].tunnel[#1].endpoint", "connection[aws].tunnel[#1].cipher", "metrics",
                "hook[#1].on", "hook[#1].run",
            ])
        #expect(errors.map(\.line) == [1, 2, 3, 4, 8, 8, 11, 12, 13, 14, 15, 15])
    }

    @Test("AES without hardware AES is refused, with the reason")
    func cipherThatTheProcessorLacks() {
        let errors = #expect(throws: ConfigurationErrors.self) {
            _ = try GatewayConfiguration.parse(
                ConfigurationExamples.text(tunnel: "cipher = \"aes-256-gcm\""),
                files: ConfigurationExamples.files, availableCiphers: [.chacha20Poly1305])
        }
        #expect(errors?.errors.map(\.key) == ["connection[aws].tunnel[#1].cipher"])
        #expect(errors?.description.contains("no instructions for aes-256-gcm") == true)
    }

    @Test func whatIsPrintedNamesFileLineKeyAndRemedy() throws {
        let errors = #expect(throws: ConfigurationErrors.self) {
            _ = try ConfigurationExamples.load(
                ConfigurationExamples.text(routes: "routes = [\"10.20.1.0/16\"]"))
        }
        #expect(
            errors?.description == """
                /etc/vgwd/vgwd.toml:6: connection[aws].routes[#1]: 10.20.1.0/16 has bits set past its length; \
                write "10.20.0.0/16", or "10.20.1.0/32" for the one address
                1 error: nothing of this configuration was applied
                """)
        #expect(ConfigurationErrors.exitStatus == 78)
    }

    @Test(
        "a key that stands in the wrong place is not repeated",
        arguments: [
            "private-key-file = \"KEY\"", "private-key-file = KEY", "private-key = \"KEY\"", "KEY = 1",
            "\"KEY\" = 1",
            "name = \"KEY\"", "interface = \"KEY\"", "credential = \"KEY\"", "address = [\"KEY\"]",
            "firewall-mark = \"KEY\"", "state-directory = \"KEY\"", "mtu = \"KEY\"", "name = \"x\" KEY",
            "private-key-file = \" KEY\"", "name = \"key KEY\"",
        ])
    func keyIsNotRepeated(_ line: String) {
        let secret = ConfigurationExamples.privateKey
        let text = ConfigurationExamples.text(gateway: line.replacing("KEY", with: secret))
        let errors = ConfigurationErrors(path: "x", errors: ConfigurationExamples.errors(in: text))
        #expect(!errors.errors.isEmpty)
        #expect(!errors.description.contains(secret.prefix(20)))
    }

    @Test(
        "a key in a connection's values is not repeated",
        arguments: [
            "endpoint = \"KEY\"", "endpoint = \"KEY:1\"", "cipher = \"KEY\"", "name = \"KEY\"",
            "preshared-key-file = \"KEY\"", "persistent-keepalive = \"KEY\"",
        ])
    func keyInTunnelIsNotRepeated(_ line: String) {
        let secret = ConfigurationExamples.privateKey
        let text = ConfigurationExamples.text(
            routes: "routes = [\"\(secret)\"]", tunnel: line.replacing("KEY", with: secret), key: secret + "x"
        )
        let errors = ConfigurationErrors(path: "x", errors: ConfigurationExamples.errors(in: text))
        #expect(errors.errors.count >= 3)
        #expect(!errors.description.contains(secret.prefix(20)))
    }

    @Test func textThatIsCutOffOrBrokenAnywhereIsReadOrRefused() {
        let text = ConfigurationExamples.text(
            tunnel: "endpoint = [\"192.0.2.1:51820\"]\ninside = { local = \"10.0.0.1\" }",
            more: "[control]\r\nsocket = '/run/x'\n[[hook]]\non = [\n 1, # c\n]")
        let bytes = Array(text.utf8)
        for place in bytes.indices {
            _ = ConfigurationExamples.errors(in: String(decoding: bytes[..<place], as: UTF8.self))
            for wrong in "[]{}\"'=.#\n\0".utf8 {
                var broken = bytes
                broken[place] = wrong
                _ = ConfigurationExamples.errors(in: String(decoding: broken, as: UTF8.self))
            }
        }
    }

    @Test(arguments: [39, 40, 43, 44, 45, 62, 63])
    func aHostLabelHasUpTo63Characters(length: Int) throws {
        for label in [String(repeating: "a", count: length), "x" + String(repeating: "1", count: length - 1)]
        {
            let text = ConfigurationExamples.text(tunnel: "endpoint = [\"\(label).example.com:51820\"]")
            let tunnel = try ConfigurationExamples.load(text).connections[0].tunnels[0]
            #expect(tunnel.endpoints == [.name("\(label).example.com", port: 51820)])
        }
    }

    @Test func aHostNameHasUpTo253CharactersAndAnErrorSaysSo() throws {
        func text(_ host: String) -> String {
            ConfigurationExamples.text(tunnel: "endpoint = [\"\(host):51820\"]")
        }
        let label = String(repeating: "b", count: 61)
        let longest = [label, label, label, label, "com.a"].joined(separator: ".")
        #expect(longest.utf8.count == 253)
        #expect(try ConfigurationExamples.load(text(longest)).connections[0].tunnels[0].endpoints.count == 1)
        for wrong in [longest + "a", String(repeating: "a", count: 64) + ".com"] {
            let error = ConfigurationExamples.errors(in: text(wrong)).first
            #expect(error?.problem == "this text names neither an address nor a host")
            #expect(error?.remedy == "a host name has at most 253 characters, and 63 between two dots")
        }
    }

    @Test func byteOrderMarkAndCarriageReturnsAreTaken() {
        let text = ConfigurationExamples.text(routes: "routes = [\"x\"]").replacing("\n", with: "\r\n")
        #expect(ConfigurationExamples.errors(in: "\u{feff}" + text).map(\.line) == [6])
    }
}
