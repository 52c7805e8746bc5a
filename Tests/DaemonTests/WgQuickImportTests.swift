import ControlAPI
import Daemon
import Testing
import WireGuard

@testable import vgwctl

/// What people have in wg-quick files: either vgwd takes what import makes of it, or the line is refused and said.
@Suite struct WgQuickImportTests {
    enum Outcome: Sendable {
        /// A fate that is told, or nil where there is nothing to tell beside the sections.
        case taken(says: String?)
        /// What the refusal says, with its line.
        case refused(says: String)
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let interface: String
        let peers: String
        var name = "wg0"
        let outcome: Outcome

        init(
            _ what: String, interface: String = "", peers: String? = nil, name: String = "wg0",
            _ outcome: Outcome
        ) {
            testDescription = what
            self.interface = interface
            self.peers =
                peers ?? "[Peer]\nPublicKey = \(ConfigurationExamples.peer)\nAllowedIPs = 10.1.0.0/16"
            self.name = name
            self.outcome = outcome
        }

        /// Line 1 is [Interface], line 2 its key, then `interface`.
        var text: String {
            "[Interface]\nPrivateKey = \(ConfigurationExamples.privateKey)\n"
                + (interface.isEmpty ? "" : interface + "\n") + peers + "\n"
        }
    }

    private static let tables = RouteTableNames(texts: [
        "# made by hand\n100 uplink # the second provider\n0xc8 x\n"
    ])
    private static let ownKey = PrivateKey(base64: ConfigurationExamples.privateKey)?.publicKey.base64 ?? ""
    private static let peer = "[Peer]\nPublicKey = \(ConfigurationExamples.peer)\n"
    private static let other = "[Peer]\nPublicKey = \(ConfigurationExamples.otherPeer)\n"

    static let cases: [Case] = [
        Case(
            "a table by number", interface: "Table = 1234",
            .taken(says: "3 Table: routes go to table 1234, and rules of yours lead there")),
        Case("a table by name", interface: "Table = uplink", .taken(says: "3 Table: routes go to table 100")),
        Case(
            "a table by a name that nobody knows", interface: "Table = upling",
            .refused(says: "line 3: Table is neither")),
        Case(
            "the local table", interface: "Table = 255",
            .refused(says: "line 3: Table: is no routing table of ours")
        ),
        Case(
            "the local table by name", interface: "Table = local",
            .refused(says: "line 3: Table: is no routing table")),
        Case(
            "no table", interface: "Table = 0", .refused(says: "line 3: Table: is no routing table of ours")),
        Case(
            "the main table under a route over the endpoint", interface: "Table = main",
            peers: peer + "Endpoint = 192.0.2.1:51820\nAllowedIPs = 192.0.2.0/24",
            .refused(says: "line 6: Endpoint: route 192.0.2.0/24 covers 192.0.2.1")),
        Case(
            "a table of one's own under a route over the endpoint", interface: "Table = 1234",
            peers: peer + "Endpoint = 192.0.2.1:51820\nAllowedIPs = 0.0.0.0/0", .taken(says: "3 Table:")),
        Case("a name over 15 bytes", name: "a-very-long-name-of-mine", .taken(says: "the interface is vgw0")),
        Case("a name in letters of others", name: "Büro-Köln", .taken(says: "the interface is vgw0")),
        Case(
            "a network as Address", interface: "Address = 10.0.0.0/24",
            .refused(says: "line 3: Address: 10.0.0.0/24 is the link")),
        Case(
            "the second of two addresses",
            interface: "Address = 10.0.0.1/24, fd00::1/64\nAddress = 239.1.1.1",
            .refused(says: "line 4: Address: 239.1.1.1 cannot be an interface's address")),
        Case(
            "an address twice", interface: "Address = 10.0.0.1/24\nAddress = 10.0.0.1/24",
            .taken(says: "4 Address 10.0.0.1/24 is left out: it is there already")),
        Case(
            "a key twice", interface: "MTU = 1400\nMTU = 1420",
            .taken(says: "3 MTU is left out: line 4 says it again")),
        Case(
            "a prefix twice", peers: peer + "AllowedIPs = 10.1.0.0/16, 10.1.2.3/16",
            .taken(says: "5 AllowedIPs 10.1.0.0/16 is left out: it is there already")),
        Case(
            "multicast, as OSPF needs it", peers: peer + "AllowedIPs = 10.1.0.0/16, 224.0.0.5/32",
            .taken(says: "5 AllowedIPs: multicast is carried")),
        Case(
            "its own key", peers: "[Peer]\nPublicKey = \(ownKey)",
            .refused(says: "line 4: PublicKey: is this gateway's own public key")),
        Case("a peer twice", peers: peer + peer, .refused(says: "line 5: another [Peer] has this PublicKey")),
        Case("peers without a name", peers: peer + other, .taken(says: "5 [Peer] is connection peer-2")),
        Case(
            "a name like that of a peer without one", peers: "# peer-2\n" + peer + other,
            .taken(says: "6 [Peer] is connection peer-3")),
        Case(
            "two peers of one name", peers: "# Cloud\n" + peer + "# Cloud\n" + other,
            .taken(says: "7 [Peer] is connection peer-2")),
        Case(
            "a key that is commented out", peers: "#DNS = 192.0.2.53\n" + peer,
            .taken(says: "4 [Peer] is connection peer-1")),
        Case(
            "a name as tools write it", peers: "# Name = cloud\n" + peer,
            .taken(says: "4 [Peer] is connection cloud")),
        Case(
            "a name below", peers: "[Peer]\n# Zürich\n" + peer.dropFirst(7),
            .taken(says: "3 [Peer] is connection zuerich")),
        Case(
            "a name in other letters", peers: "# Офис\n" + peer, .taken(says: "4 [Peer] is connection peer-1")
        ),
        Case("a scope by name", peers: peer + "Endpoint = [fe80::1%eth0]:51820", .taken(says: nil)),
        Case(
            "a scope of an address that has none", peers: peer + "Endpoint = [2001:db8::1%eth0]:1",
            .refused(says: "line 5: Endpoint")),
        Case("keepalive off", peers: peer + "PersistentKeepalive = off", .taken(says: nil)),
        Case("AmneziaWG", interface: "Jc = 4\nS1 = 20\nH4 = 7", .refused(says: "line 5: H4 is AmneziaWG's")),
        Case("AmneziaWG 2", interface: "I1 = <b 0xf>", .refused(says: "line 3: I1 is AmneziaWG's")),
        Case(
            "what runs as root", interface: "PostUp = sysctl -w net.ipv4.ip_forward=1",
            .taken(says: "3 PostUp is left out: a hook has not root's rights; 'systemctl edit vgwd' takes it")
        ),
        Case(
            "another namespace", interface: "PostUp = ip netns exec x ip link",
            .taken(says: "3 PostUp is left out: a hook has not root's rights")),
        Case(
            "what bash expands", interface: "PostUp = ip route add $(cat /x)",
            .taken(says: "3 PostUp is left out")),
        Case(
            "a lower MTU than IPv6's", interface: "MTU = 1200",
            .taken(says: "3 MTU is left out: 1200 is below 1280")),
        Case("no mark", interface: "FwMark = off", .taken(says: nil)),
        Case(
            "a section of others", peers: "[WireGuardPeer]\nPublicKey = x",
            .refused(says: "line 3: unknown section")),
    ]

    @Test("import writes only what vgwd takes, and says what became of each line", arguments: cases)
    func takenOrRefused(_ row: Case) throws {
        switch row.outcome {
        case .taken(let says):
            let imported = try WgQuickFile(row.text, name: row.name, tables: Self.tables)
            #expect(imported.draft.errors.isEmpty)
            let told = imported.fates.map { ($0.line.map { "\($0) " } ?? "") + $0.text }
            if let says {
                #expect(told.contains { $0.contains(says) }, "\(told)")
            } else {
                #expect(told.count == 2, "\(told)")
            }
        case .refused(let says):
            let failure = #expect(throws: Failure.self) {
                try WgQuickFile(row.text, name: row.name, tables: Self.tables)
            }
            #expect(failure?.message.contains(says) == true, "\(failure?.text ?? "")")
        }
    }

    @Test(
        "a table by number has no rules of vgwd, and no mark that the file does not name",
        arguments: [("", nil), ("FwMark = 0x10\n", .fixed(16))] as [(String, RoutingNumbers.Wish?)])
    func tableByNumber(_ mark: String, _ wish: RoutingNumbers.Wish?) throws {
        let row = Case("", interface: mark + "Table = 1234", .taken(says: nil))
        let configuration = try load(WgQuickFile(row.text, name: "wg0").draft)
        #expect(configuration.routeTable == .number(1234) && !configuration.makesRules)
        #expect(configuration.firewallMark == wish)
        #expect(RoutePlan(configuration).wanted(for: [], interface: 1).rules.isEmpty)
    }

    @Test("line ends of other systems, a byte order mark and no last line end change nothing")
    func lineEnds() throws {
        let row = Case("", interface: "ListenPort = 51821", peers: "# Cloud\n" + Self.peer, .taken(says: nil))
        for text in [row.text.replacing("\n", with: "\r\n"), "\u{feff}" + row.text, row.text + "# the end"] {
            let imported = try WgQuickFile(text, name: "wg0")
            #expect(imported.draft.listenPort == 51821)
            #expect(imported.draft.connections.map(\.name) == ["cloud"])
        }
    }

    @Test("commands that set up networks are a hook each way, in their order, with the interface's name")
    func hooks() throws {
        let row = Case(
            "",
            interface: """
                PostUp = iptables -A FORWARD -i %i -j ACCEPT; iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
                PostDown = iptables -D FORWARD -i %i -j ACCEPT
                PostUp = ip rule add from 10.0.0.0/8 table 100 || true
                PreDown = ip rule del from 10.0.0.0/8 table 100
                """, .taken(says: nil))
        let configuration = try load(WgQuickFile(row.text, name: "wg0").draft)
        #expect(configuration.hooks.map(\.on) == [["started"], ["stopping"]])
        #expect(
            configuration.hooks.map(\.run.last) == [
                "iptables -A FORWARD -i wg0 -j ACCEPT; iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE\n"
                    + "ip rule add from 10.0.0.0/8 table 100 || true",
                "ip rule del from 10.0.0.0/8 table 100\niptables -D FORWARD -i wg0 -j ACCEPT",
            ])
    }

    @Test func everyRefusalIsToldAtOnceWithoutASecret() {
        let row = Case(
            "", interface: "MTU = x\nAddress = 10.0.0.0", peers: "[Peer]\nPublicKey = no\nEndpoint = KEY",
            .taken(says: nil))
        let text = row.text.replacing("KEY", with: ConfigurationExamples.privateKey)
        let failure = #expect(throws: Failure.self) { try WgQuickFile(text, name: "wg0") }
        #expect(
            failure?.message == """
                3 things cannot be taken:
                  line 3: MTU is not a number from 1280 to 65535; write it so, or leave it out
                  line 6: PublicKey is no key; it must be 32 bytes in base64
                  line 7: Endpoint is not an address or a name with a port: 192.0.2.1:51820, \
                [fe80::1%eth0]:51820; write it so, or leave it out
                """)
        #expect(failure?.text.contains(ConfigurationExamples.privateKey.prefix(20)) == false)
    }

    @Test func whatBecameOfEachLineFitsATerminal() throws {
        let row = Case("", interface: "DNS = 1.1.1.1\nTable = 7", .taken(says: nil))
        let lines = ImportCommand.lines(try WgQuickFile(row.text, name: "wg0").fates)
        #expect(lines.allSatisfy { $0.count <= 80 })
        #expect(
            lines.joined(separator: "\n") == """
                  line 1  [Interface] is gateway wg0: PrivateKey, Table
                  line 3  DNS is left out: vgwd leaves this host's name resolution alone; set it
                          by resolvconf or systemd-resolved
                  line 4  Table: routes go to table 7, and rules of yours lead there, as with
                          wg-quick: vgwd makes none (rules = false)
                  line 5  [Peer] is connection peer-1: PublicKey, AllowedIPs
                """)
    }

    private func load(_ draft: ConfigurationDraft) throws -> GatewayConfiguration {
        let texts = draft.files.map { ("/etc/vgwd/\($0.name)", $0.text.trimmed) }
        return try GatewayConfiguration.parse(
            draft.toml, path: "/etc/vgwd/vgwd.toml",
            files: FixedFiles(Dictionary(uniqueKeysWithValues: texts)))
    }
}
