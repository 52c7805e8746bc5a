import LinuxIO
import Testing
import WireGuard

@testable import Daemon
@testable import GatewayCore

/// What `wg` has made different from the configuration file, in words and without a secret.
@Suite struct WgViewTests {
    private static let salt = SecretBytes([UInt8](repeating: 7, count: 32))
    private static let peer = PublicKey(base64: ConfigurationExamples.peer)!
    private static let other = PublicKey(base64: ConfigurationExamples.otherPeer)!
    private static let second = PrivateKey(base64: ConfigurationExamples.secondKey)!

    private static func state(_ tunnel: String = "endpoint = \"192.0.2.1:51820\"") throws -> GatewaySpec {
        DaemonSettings(try ConfigurationExamples.load(ConfigurationExamples.text(tunnel: tunnel))).spec
    }

    private static func change(_ body: (inout WgPeerChange) -> Void) -> WgSet {
        var set = WgSet()
        var peer = WgPeerChange(publicKey: peer)
        body(&peer)
        set.peers = [peer]
        return set
    }

    /// What `wg set` says, and what is different then.
    private static let changes: [(WgSet, [String])] = [
        (
            change { $0.endpoint = Endpoint("192.0.2.2:1") },
            ["tunnel aws: endpoint 192.0.2.2:1, not 192.0.2.1:51820"]
        ),
        (change { $0.persistentKeepalive = 25 }, ["tunnel aws: keepalive 25 s, not off"]),
        (
            change { $0.presharedKey = PresharedKey(base64: ConfigurationExamples.presharedKey) },
            ["tunnel aws: a pre-shared key"]
        ),
        (
            change { $0.allowedIPs = [.add(IPPrefix("10.9.0.0/16")!)] },
            ["tunnel aws: allowed IPs +10.9.0.0/16"]
        ),
        (
            change {
                $0.replaceAllowedIPs = true
                $0.allowedIPs = [.add(IPPrefix("10.9.0.0/16")!)]
            }, ["tunnel aws: allowed IPs +10.9.0.0/16 -10.20.0.0/16"]
        ),
        (change { $0.allowedIPs = [.add(IPPrefix("10.20.0.0/16")!)] }, []),
        (change { $0.remove = true }, ["tunnel aws removed"]),
        (
            {
                var set = WgSet()
                set.privateKey = .remove
                set.listenPort = 4711
                set.firewallMark = 9
                var added = WgPeerChange(publicKey: other)
                added.allowedIPs = (1...6).map { .add(IPPrefix("10.\($0).0.0/16")!) }
                set.peers = [added]
                return set
            }(),
            [
                "no private key", "listen port 4711, not 51820", "firewall mark 9, not 51820",
                "peer \(ConfigurationExamples.otherPeer) added, with allowed IPs "
                    + "10.1.0.0/16 10.2.0.0/16 10.3.0.0/16 10.4.0.0/16 and 2 more",
            ]
        ),
        (
            {
                var set = WgSet()
                set.privateKey = .set(second)
                return set
            }(), ["another private key, of public key \(second.publicKey.base64)"]
        ),
    ]

    @Test(arguments: changes)
    func `each thing that wg can change is named, and is gone when it is changed back`(
        set: WgSet, says: [String]
    ) throws {
        let file = try Self.state()
        var state = file
        _ = state.apply(set)
        let view = WgView(file, salt: Self.salt)
        #expect(WgView(state, salt: Self.salt).differences(from: view) == says)
        #expect(WgView(file, salt: Self.salt).differences(from: view) == [])
        for secret in [ConfigurationExamples.presharedKey, ConfigurationExamples.secondKey] {
            #expect(!says.contains { $0.contains(secret) })
        }
    }

    @Test func `what vgwctl adds is not wg's`() throws {
        let file = try Self.state()
        var state = file
        state.add(ConnectionSpec.Route(IPPrefix("10.8.0.0/16")!, origin: .runtime), to: "aws")
        state.add(ConnectionSpec.Route(IPPrefix("10.7.0.0/16")!, origin: .kept), to: "aws")
        let view = WgView(file, salt: Self.salt)
        #expect(WgView(state, salt: Self.salt).differences(from: view) == [])
    }
}
