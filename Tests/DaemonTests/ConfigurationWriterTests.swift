import Daemon
import FoundationEssentials
internal import GatewayCore
import Testing
import WireGuard

@testable import vgwctl

/// What vgwctl writes is what vgwd reads.
@Suite struct ConfigurationWriterTests {
    private func load(_ draft: ConfigurationDraft) throws -> GatewayConfiguration {
        var texts: [String: String] = [:]
        for file in draft.files { texts["/etc/vgwd/\(file.name)"] = file.text.trimmed }
        let toml = try #require(texts["/etc/vgwd/vgwd.toml"])
        return try GatewayConfiguration.parse(
            toml, path: "/etc/vgwd/vgwd.toml", files: FixedFiles(texts))
    }

    private func side(_ name: String, _ prefix: String, endpoint: String?, address: String) throws
        -> Pair.Side
    {
        Pair.Side(
            name: name, prefixes: [try #require(IPPrefix(prefix))], endpoint: endpoint,
            address: try #require(IPPrefix(address)), listenPort: 51820)
    }

    @Test func bothEndsOfAPairLoadAndMatch() throws {
        let pair = try Pair(
            left: try side("onprem", "192.168.10.0/24", endpoint: nil, address: "169.254.100.1/30"),
            right: try side(
                "cloud", "10.20.0.0/16", endpoint: "vgw.example.com:51820", address: "169.254.100.2/30"),
            cipher: .aes256GCM)
        let drafts = pair.drafts()
        let left = try load(drafts.left)
        let right = try load(drafts.right)
        let toRight = try #require(left.connections.first?.tunnels.first)
        let toLeft = try #require(right.connections.first?.tunnels.first)
        #expect(toRight.publicKey == right.privateKey.publicKey)
        #expect(toLeft.publicKey == left.privateKey.publicKey)
        #expect(left.privateKey.publicKey != right.privateKey.publicKey)
        #expect(!toRight.presharedKey.isNone)
        #expect(toRight.cipher == .aes256GCM && toLeft.cipher == .aes256GCM)
        #expect(toRight.presharedKey.isEqual(to: toLeft.presharedKey))
        #expect(toRight.endpoints == [.name("vgw.example.com", port: 51820)])
        #expect(toLeft.endpoints.isEmpty)
        #expect([toRight.persistentKeepalive, toLeft.persistentKeepalive] == [25, 0])
        #expect(left.connections[0].prefixes.map(\.description) == ["10.20.0.0/16"])
        #expect(right.connections[0].prefixes.map(\.description) == ["192.168.10.0/24"])
        // What health, failover and the search for the MTU go by.
        let (near, far) = (try #require(IPAddress("169.254.100.1")), try #require(IPAddress("169.254.100.2")))
        #expect(toRight.inside == InsideLink(local: near, remote: far))
        #expect(toLeft.inside == InsideLink(local: far, remote: near))
        #expect(left.connections[0].health.isOn && right.connections[0].health.isOn)
    }

    @Test func nextStepsShowNoKey() throws {
        let pair = try Pair(
            left: try side("a", "10.1.0.0/16", endpoint: "192.0.2.1:51820", address: "fd00::1/126"),
            right: try side("b", "10.2.0.0/16", endpoint: "192.0.2.2:51820", address: "fd00::2/126"))
        let drafts = pair.drafts()
        let text = pair.nextSteps(folder: "a-b").joined()
        for draft in [drafts.left, drafts.right] {
            #expect(!text.contains(draft.privateKey.exportBase64()))
            #expect(!draft.toml.contains(draft.privateKey.exportBase64()))
            #expect(try load(draft).connections[0].tunnels[0].persistentKeepalive == 0)
        }
    }

    @Test func nextStepsMakeTheFolderBeforeAnythingIsCopiedThere() throws {
        let pair = try Pair(
            left: try side("a", "10.1.0.0/16", endpoint: "192.0.2.1:51820", address: "fd00::1/126"),
            right: try side("b", "10.2.0.0/16", endpoint: nil, address: "fd00::2/126"))
        let steps = pair.nextSteps(folder: "a-b")
        for name in ["a", "b"] {
            let begin = try #require(steps.firstIndex { $0.contains("tar -C a-b/\(name) -c . |") })
            #expect(
                steps[(begin + 1)...].prefix(6) == [
                    "     ssh root@\(name) '", "       install -d -m 700 -o vgwd -g vgwd /etc/vgwd &&",
                    "       tar -C /etc/vgwd -xk --no-same-owner &&", "       chown -R vgwd: /etc/vgwd &&",
                    "       vgwd check &&", "       systemctl enable --now vgwd'",
                ])
        }
        #expect(steps.allSatisfy { $0.count <= 80 })
    }

    @Test func nextStepsOfAnImportGiveTheFilesToVgwd() {
        #expect(
            ImportCommand.nextSteps(folder: "/etc/vgwd", interface: "wg0").first
                == "  sudo chown -R vgwd: /etc/vgwd &&")
        #expect(
            ImportCommand.nextSteps(folder: "wg0", interface: "wg0") == [
                "  sudo install -d -m 700 -o vgwd -g vgwd /etc/vgwd &&",
                "  sudo tar -C wg0 -c . | sudo tar -C /etc/vgwd -xk --no-same-owner &&",
                "  sudo chown -R vgwd: /etc/vgwd &&", "  sudo vgwd check &&", "  sudo wg-quick down wg0 &&",
                "  sudo systemctl enable --now vgwd",
            ])
    }

    @Test func nothingIsWrittenWhereOneFileIsInTheWay() throws {
        let top = "/tmp/vgwd-writer-tests-\(UInt64.random(in: .min ... .max))"
        defer { try? FileManager.default.removeItem(atPath: top) }
        let left = OutputFolder(
            path: "\(top)/left",
            files: [DraftFile(name: "vgwd.toml", text: "l"), DraftFile(name: "private.key", text: "k")])
        let right = OutputFolder(path: "\(top)/right", files: [DraftFile(name: "vgwd.toml", text: "r")])
        try OutputFolder.write([right])
        let failure = #expect(throws: Failure.self) { try OutputFolder.write([left, right]) }
        #expect(failure?.message.contains("\(top)/right/vgwd.toml is there already") == true)
        #expect(!FileManager.default.fileExists(atPath: "\(top)/left"))
        try FileManager.default.removeItem(atPath: "\(top)/right")
        try OutputFolder.write([left, right])
        #expect(try String(contentsOfFile: "\(top)/left/private.key", encoding: .utf8) == "k")
        #expect(try String(contentsOfFile: "\(top)/right/vgwd.toml", encoding: .utf8) == "r")
    }

    @Test func pairsThatCannotWorkAreRefused() throws {
        let a = try side("a", "10.1.0.0/16", endpoint: "192.0.2.1:51820", address: "169.254.100.1/30")
        let b = try side("b", "10.2.0.0/16", endpoint: nil, address: "169.254.100.2/30")
        var wrong = b
        wrong.name = "a"
        #expect(throws: Failure.self) { try Pair(left: a, right: wrong) }
        wrong = b
        wrong.prefixes = try [#require(IPPrefix("10.1.2.0/24"))]
        #expect(throws: Failure.self) { try Pair(left: a, right: wrong) }
        wrong = b
        wrong.address = a.address
        #expect(throws: Failure.self) { try Pair(left: a, right: wrong) }
        wrong = a
        wrong.endpoint = nil
        #expect(throws: Failure.self) { try Pair(left: wrong, right: b) }
    }

    @Test func wgQuickFileIsImportedWhole() throws {
        let imported = try WgQuickFile(
            """
            [Interface]
            PrivateKey = \(ConfigurationExamples.privateKey) # comment
            ListenPort = 51821
            FwMark = 0x10
            Address = 10.0.0.2/24, fd00::2/64
            Address = 10.9.0.1
            DNS = 1.1.1.1
            MTU = 1400
            Table = off
            PreUp = true
            PostDown = ip rule del table %i
            SaveConfig = true

            # Cloud gateway
            [Peer]
            PublicKey = \(ConfigurationExamples.peer)
            PresharedKey = \(ConfigurationExamples.presharedKey)
            AllowedIPs = 10.1.2.3/16, 2001:db8::/32
            AllowedIPs = 0.0.0.0/0
            Endpoint = [2001:db8::1]:51820
            PersistentKeepalive = 25

            [peer]
            publickey=\(ConfigurationExamples.otherPeer)
            allowedips=0.0.0.0/0
            persistentkeepalive=off
            Colour = blue
            """, name: "wg0")
        let configuration = try load(imported.draft)
        #expect(configuration.interface == "wg0")
        #expect(configuration.listenPort == 51821)
        #expect(configuration.firewallMark == .fixed(16))
        #expect(configuration.routeTable == .off)
        #expect(configuration.mtu == .bytes(1400))
        #expect(configuration.addresses.map(\.description) == ["10.0.0.2/24", "fd00::2/64", "10.9.0.1/32"])
        #expect(
            configuration.privateKey.publicKey
                == PrivateKey(base64: ConfigurationExamples.privateKey)?.publicKey)
        #expect(configuration.connections.map(\.name) == ["cloud-gateway", "peer-2"])
        #expect(
            configuration.connections.map { $0.prefixes.map(\.description) } == [
                ["10.1.0.0/16", "2001:db8::/32"], ["0.0.0.0/0"],
            ])
        let tunnels = configuration.connections.flatMap(\.tunnels)
        #expect(tunnels.map(\.persistentKeepalive) == [25, 0])
        #expect(tunnels.map(\.presharedKey.isNone) == [false, true])
        #expect(tunnels[0].endpoints.map(\.description) == ["[2001:db8::1]:51820"])
        #expect(
            imported.fates.map { "\($0.line ?? 0) \($0.text.prefix { $0 != ";" })" } == [
                "1 [Interface] is gateway wg0: PrivateKey, ListenPort, FwMark, Address, MTU, Table",
                "7 DNS is left out: vgwd leaves this host's name resolution alone",
                "10 PreUp is left out: no hook runs before the interface is there",
                "11 PostDown is run by a [[hook]] when vgwd is told to stop, as its user: ip rule del table wg0",
                "12 SaveConfig is left out: vgwd never writes its configuration",
                "15 [Peer] is connection cloud-gateway: PublicKey, PresharedKey, AllowedIPs, Endpoint, "
                    + "PersistentKeepalive",
                "19 AllowedIPs 0.0.0.0/0 is left out: it stays with the last peer that names it, as with wg",
                "23 [peer] is connection peer-2: publickey, allowedips, persistentkeepalive"
                    .replacing("[peer]", with: "[Peer]"),
                "27 Colour is left out: it is no key of wg-quick's [Peer]",
            ])
        #expect(configuration.hooks.map(\.on) == [["stopping"]])
        #expect(configuration.hooks.map(\.run) == [["/bin/bash", "-ec", "ip rule del table wg0"]])
    }

    @Test(
        "a wg-quick file that cannot be right is refused with its line",
        arguments: [
            ("[Interface]\nListenPort = 1", "no PrivateKey"), ("PrivateKey = x", "line 1"),
            ("[Nothing]", "line 1"),
            ("[Interface]\nPrivateKey = KEYx", "line 2"),
            ("[Interface]\nPrivateKey = KEY\nMTU = x", "line 3"),
            ("[Interface]\nPrivateKey = KEY\nAddress = x", "line 3"),
            ("[Interface]\nPrivateKey = KEY\n[Peer]\nAllowedIPs = 10.0.0.0/8", "line 3"),
            ("[Interface]\nPrivateKey = KEY\n[Peer]\nPublicKey = x", "line 4"),
            ("[Interface]\nPrivateKey = KEY\n[Peer]\nEndpoint = KEY", "line 4: Endpoint"),
            ("[Interface]\nKEY", "no PrivateKey"), ("[Interface]\nx", "line 2"),
        ])
    func wrongWgQuickFile(_ text: String, _ says: String) {
        let secret = ConfigurationExamples.privateKey
        let failure = #expect(throws: Failure.self) {
            try WgQuickFile(text.replacing("KEY", with: secret), name: "wg0")
        }
        #expect(failure?.message.contains(says) == true)
        #expect(failure?.text.contains(secret.prefix(20)) == false)
    }

    @Test(
        arguments: [
            ("192.0.2.1", "192.0.2.1:51820"), ("2001:db8::1", "[2001:db8::1]:51820"),
            ("[2001:db8::1]", "[2001:db8::1]:51820"),
            ("vgw.example.com", "vgw.example.com:51820"), ("vgw.example.com:1", "vgw.example.com:1"),
            ("a b", nil),
            ("x:0", nil), ("x:70000", nil), (":1", nil), ("", nil), ("300.1.1.1:1", nil),
        ] as [(String, String?)])
    func endpoints(_ text: String, _ whole: String?) {
        #expect((try? EndpointText.parse(text, defaultPort: 51820)) == whole)
    }
}
