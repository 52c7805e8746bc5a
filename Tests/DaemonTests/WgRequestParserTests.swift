internal import GatewayCore
import TestSupport
import Testing
import WireGuard

@testable import Daemon

@Suite struct WgRequestParserTests {
    private static let key = String(repeating: "ab", count: 32)
    private static let other = String(repeating: "cd", count: 32)

    private func parse(_ text: String) -> [WgRequest]? {
        var parser = WgRequestParser(interfaceIndex: { $0 == "eth7" ? 7 : nil })
        return parser.feed(Array(text.utf8))
    }

    private func set(_ lines: String...) throws -> WgSet {
        let requests = try #require(parse((["set=1"] + lines).joined(separator: "\n") + "\n\n"))
        guard case .set(let set)? = requests.first, requests.count == 1 else {
            Issue.record("no set came out of \(lines)")
            throw CancellationError()
        }
        return set
    }

    private func isRefused(_ lines: String..., isSet: Bool = true) -> Bool {
        guard let requests = parse(lines.joined(separator: "\n") + "\n\n"), requests.count == 1,
            case .refused(isSet, WgRequest.invalid) = requests[0]
        else { return false }
        return true
    }

    @Test("several blocks come out of one connection, however the bytes are cut")
    func blocks() throws {
        let bytes = Array("get=1\n\nset=1\nlisten_port=51820\n\nget=1\n\n".utf8)
        for size in 1...bytes.count {
            var parser = WgRequestParser()
            var requests: [WgRequest] = []
            for start in stride(from: 0, to: bytes.count, by: size) {
                let fed = parser.feed(bytes[start..<min(start + size, bytes.count)])
                requests += try #require(fed)
            }
            #expect(requests.count == 3)
            guard case .get = requests[0], case .set(let set) = requests[1], case .get = requests[2] else {
                Issue.record("wrong kinds at \(size)")
                continue
            }
            #expect(set.listenPort == 51820)
        }
    }

    @Test("nothing comes out of an unfinished block, at every length")
    func truncated() {
        let bytes = Array("set=1\nprivate_key=\(Self.key)\npublic_key=\(Self.other)\nremove=true\n\n".utf8)
        for length in 0..<bytes.count {
            var parser = WgRequestParser()
            let requests = parser.feed(bytes[..<length])
            #expect(requests?.isEmpty == true)
        }
    }

    @Test func interfaceKeys() throws {
        let set = try set(
            "private_key=\(Self.key)", "listen_port=0", "fwmark=4294967295", "replace_peers=true")
        guard case .set(let key) = set.privateKey else {
            Issue.record("no private key")
            return
        }
        #expect(key.publicKey == PrivateKey(hex: Self.key)?.publicKey)
        #expect(set.listenPort == 0)
        #expect(set.firewallMark == .max)
        #expect(set.replacePeers)
    }

    @Test("a private key of zeros takes the key away")
    func noPrivateKey() throws {
        guard case .remove = try set("private_key=" + String(repeating: "0", count: 64)).privateKey else {
            Issue.record("not a removal")
            return
        }
    }

    @Test func peerKeys() throws {
        let set = try set(
            "public_key=\(Self.key)", "update_only=true", "preshared_key=\(Self.other)",
            "endpoint=192.0.2.1:51820",
            "persistent_keepalive_interval=25", "replace_allowed_ips=true", "allowed_ip=10.0.0.1/8",
            "allowed_ip=-fd00::/48", "protocol_version=1", "public_key=\(Self.other)", "remove=true")
        #expect(set.peers.count == 2)
        let peer = try #require(set.peers.first)
        #expect(peer.publicKey.hex == Self.key)
        #expect(peer.updateOnly && peer.replaceAllowedIPs && !peer.remove)
        #expect(try #require(peer.presharedKey).isEqual(to: try #require(PresharedKey(hex: Self.other))))
        #expect(peer.endpoint == Endpoint("192.0.2.1:51820"))
        #expect(peer.persistentKeepalive == 25)
        #expect(peer.allowedIPs == [.add(IPPrefix("10.0.0.0/8")!), .remove(IPPrefix("fd00::/48")!)])
        #expect(set.peers[1].remove)
    }

    @Test("replace_allowed_ips also replaces what the same block said before")
    func replaceAllowedIPs() throws {
        let set = try set(
            "public_key=\(Self.key)", "allowed_ip=10.0.0.0/8", "replace_allowed_ips=true",
            "allowed_ip=10.1.0.0/16")
        #expect(set.peers[0].allowedIPs == [.add(IPPrefix("10.1.0.0/16")!)])
    }

    @Test("a link-local endpoint names its interface")
    func scope() throws {
        let set = try set("public_key=\(Self.key)", "endpoint=[fe80::1%eth7]:51820")
        #expect(set.peers[0].endpoint == Endpoint("[fe80::1%7]:51820"))
        #expect(isRefused("set=1", "public_key=\(Self.key)", "endpoint=[fe80::1%eth8]:51820"))
    }

    @Test(
        "what is wrong is EINVAL",
        arguments: [
            "unknown=1", "listen_port=65536", "listen_port=-1", "listen_port=", "listen_port", "=",
            "listen_port= 1",
            "fwmark=4294967296", "fwmark=0x10", "replace_peers=false", "private_key=ab", "get=1", "set=1",
            "errno=0",
            "remove=true", "allowed_ip=10.0.0.0/8", "public_key=zz",
            "private_key=" + String(repeating: "g", count: 64),
        ])
    func wrongInterfaceLine(_ line: String) {
        #expect(isRefused("set=1", line))
        #expect(isRefused("set=1", "listen_port=1", line, "listen_port=2"))
    }

    @Test(
        "what is wrong with a peer is EINVAL",
        arguments: [
            "unknown=1", "listen_port=1", "private_key=\(key)", "remove=false", "update_only=1",
            "endpoint=192.0.2.1",
            "endpoint=192.0.2.1:0", "endpoint=example.com:1", "endpoint=",
            "persistent_keepalive_interval=65536",
            "persistent_keepalive_interval=off", "allowed_ip=10.0.0.0", "allowed_ip=10.0.0.0/33",
            "allowed_ip=--1.0.0.0/8",
            "allowed_ip=", "protocol_version=2", "preshared_key=00", "replace_allowed_ips=false",
            "rx_bytes=1",
        ])
    func wrongPeerLine(_ line: String) {
        #expect(isRefused("set=1", "public_key=\(Self.key)", line))
    }

    @Test("an unknown operation is refused once, with its whole block")
    func unknownOperation() {
        #expect(isRefused("put=1", "listen_port=1", isSet: false))
        #expect(isRefused("get=2", isSet: false))
        #expect(isRefused("get=1", "listen_port=1", isSet: false))
        #expect(isRefused("set=2"))
    }

    @Test("a line or a request without end is too much")
    func limits() {
        var parser = WgRequestParser()
        let fed = parser.feed(repeatElement(UInt8(ascii: "a"), count: WgRequestParser.lineLimit + 1))
        #expect(fed == nil)
        var other = WgRequestParser()
        var isOpen = other.feed(Array("set=1\n".utf8)) != nil
        let chunk = Array(String(repeating: "listen_port=1\n", count: 65536).utf8)
        var total = 0
        while isOpen, total <= WgRequestParser.requestLimit {
            isOpen = other.feed(chunk) != nil
            total += chunk.count
        }
        #expect(!isOpen)
    }

    @Test("junk never traps, and is one request for each block that an empty line ends")
    func junk() throws {
        var random = SplitMix(seed: 1)
        let alphabet = Array("set=1\nge=\n\n_publickey0123456789abcdef/:.[]%-\u{0}\u{ff}".utf8)
        let pieces = [
            "get=1\n", "set=1\n", "\n", "\n\n", "public_key=\(Self.key)\n", "remove=true\n",
            "listen_port=1\n",
            "allowed_ip=10.0.0.0/8\n", "endpoint=[::1%x]:1\n", "=\n", "private_key=\(Self.key)",
        ].map { Array($0.utf8) }
        for _ in 0..<2000 {
            var bytes: [UInt8] = []
            for _ in 0..<Int.random(in: 0...40, using: &random) {
                if Bool.random(using: &random) {
                    bytes += pieces.randomElement(using: &random)!
                } else {
                    bytes.append(alphabet.randomElement(using: &random)!)
                }
            }
            var parser = WgRequestParser()
            let fed = parser.feed(bytes)
            let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            // What stands behind the last line end is no line yet.
            let ends = lines.indices.dropLast().filter {
                $0 > 0 && lines[$0].isEmpty && !lines[$0 - 1].isEmpty
            }
            if lines.contains(where: { $0.count > WgRequestParser.lineLimit }) {
                #expect(fed == nil)
            } else {
                #expect(try #require(fed).count == ends.count)
            }
        }
    }

    @Test("errno is negative after a set and positive after anything else")
    func replies() {
        #expect(String(decoding: WgReply.set(errno: 0), as: UTF8.self) == "errno=0\n\n")
        #expect(String(decoding: WgReply.set(errno: 22), as: UTF8.self) == "errno=-22\n\n")
        #expect(String(decoding: WgReply.failed(isSet: true, errno: 22), as: UTF8.self) == "errno=-22\n\n")
        #expect(String(decoding: WgReply.failed(isSet: false, errno: 22), as: UTF8.self) == "errno=22\n\n")
    }

    @Test("a get says everything in the order that wg reads")
    func report() throws {
        let psk = try #require(PresharedKey(hex: Self.other))
        let peer = WgPeerReport(
            publicKey: try #require(PublicKey(hex: Self.key)), presharedKey: psk,
            endpoint: Endpoint("[2001:db8::1]:7"),
            lastHandshake: 1_700_000_000_000_000_005, transmittedBytes: 1, receivedBytes: 2,
            persistentKeepalive: 25,
            allowedIPs: [IPPrefix("10.0.0.0/8")!])
        let text = WgReply.get(
            WgDeviceReport(privateKey: nil, listenPort: 51820, firewallMark: 7, peers: [peer]))
        #expect(
            String(decoding: text, as: UTF8.self) == """
                listen_port=51820
                fwmark=7
                public_key=\(Self.key)
                preshared_key=\(Self.other)
                protocol_version=1
                endpoint=[2001:db8::1]:7
                last_handshake_time_sec=1700000000
                last_handshake_time_nsec=5
                tx_bytes=1
                rx_bytes=2
                persistent_keepalive_interval=25
                allowed_ip=10.0.0.0/8
                errno=0


                """)
    }
}
