import LinuxIO
import Testing
import WireGuard

@testable import Daemon
@testable import GatewayCore

@Suite struct GatewaySpecTests {
    private func key(_ byte: UInt8) -> PublicKey { PublicKey(repeatElement(byte, count: 32))! }
    private func prefix(_ text: String) -> IPPrefix { IPPrefix(text)! }

    private func set(_ edit: (inout WgSet) -> Void) -> WgSet {
        var set = WgSet()
        edit(&set)
        return set
    }

    private func peer(_ byte: UInt8, _ edit: (inout WgPeerChange) -> Void = { _ in }) -> WgSet {
        set { set in
            var change = WgPeerChange(publicKey: key(byte))
            edit(&change)
            set.peers = [change]
        }
    }

    private func state(_ sets: WgSet...) -> GatewaySpec {
        var state = GatewaySpec()
        for set in sets {
            let steps = state.apply(set)
            #expect(steps != nil)
        }
        return state
    }

    @Test("a peer that came by wg is a connection of one tunnel, named by its key without a slash")
    func newPeer() throws {
        let state = state(peer(0xff) { $0.allowedIPs = [.add(prefix("10.0.0.0/8"))] })
        let connection = try #require(state.connections.first)
        #expect(connection.name == "________")
        #expect(connection.tunnels.map(\.publicKey) == [key(0xff)])
        #expect(connection.prefixes == [prefix("10.0.0.0/8")])
    }

    @Test("names stay unique when keys begin alike")
    func names() throws {
        var bytes = [UInt8](repeating: 1, count: 32)
        let first = PublicKey(bytes)!
        bytes[31] = 2
        let second = PublicKey(bytes)!
        let state = state(
            set { $0.peers = [WgPeerChange(publicKey: first), WgPeerChange(publicKey: second)] })
        #expect(Set(state.connections.map(\.name)).count == 2)
    }

    @Test("an allowed IP moves from the peer that had it")
    func moves() throws {
        let state = state(
            peer(1) { $0.allowedIPs = [.add(prefix("10.0.0.0/8")), .add(prefix("10.1.0.0/16"))] },
            peer(2) { $0.allowedIPs = [.add(prefix("10.0.0.0/8"))] })
        #expect(state.connection(of: key(1))?.prefixes == [prefix("10.1.0.0/16")])
        #expect(state.connection(of: key(2))?.prefixes == [prefix("10.0.0.0/8")])
        #expect(state.owners(of: prefix("10.0.0.0/8")) == [state.connection(of: key(2))?.name])
    }

    @Test("a prefix is taken only from its own peer")
    func removal() throws {
        let state = state(
            peer(1) { $0.allowedIPs = [.add(prefix("10.0.0.0/8"))] },
            peer(2) { $0.allowedIPs = [.remove(prefix("10.0.0.0/8"))] })
        #expect(state.connection(of: key(1))?.prefixes == [prefix("10.0.0.0/8")])
        let later = self.state(
            peer(1) { $0.allowedIPs = [.add(prefix("10.0.0.0/8")), .add(prefix("fd00::/8"))] },
            peer(1) { $0.allowedIPs = [.remove(prefix("10.0.0.0/8"))] })
        #expect(later.connections.flatMap(\.prefixes) == [prefix("fd00::/8")])
    }

    @Test("replaced allowed IPs leave no trace")
    func replaced() throws {
        let state = state(
            peer(1) { $0.allowedIPs = [.add(prefix("10.0.0.0/8"))] },
            peer(1) {
                $0.replaceAllowedIPs = true
                $0.allowedIPs = [.add(prefix("10.2.0.0/16"))]
            })
        #expect(state.connections.flatMap(\.prefixes) == [prefix("10.2.0.0/16")])
        #expect(state.owners(of: prefix("10.0.0.0/8")).isEmpty)
    }

    @Test("what is learned takes the place of what was, with its metric, and leaves the rest alone")
    func learned() throws {
        var state = state(peer(1) { $0.allowedIPs = [.add(prefix("10.0.0.0/8"))] })
        let name = try #require(state.connections.first?.name)
        func learn(_ routes: (String, UInt32)...) -> Bool {
            state.learn(routes.map { LearnedRoute(prefix($0), metric: $1) }, for: name)
        }
        var changes = [learn(("10.1.0.0/16", 32), ("10.2.0.0/16", 32), ("10.0.0.0/8", 32))]
        changes.append(learn(("10.1.0.0/16", 32), ("10.2.0.0/16", 32)))
        changes.append(learn(("10.1.0.0/16", 64), ("10.3.0.0/16", 32)))
        #expect(changes == [true, false, true])
        #expect(
            state.connection(named: name)?.routes
                == ConnectionRoutes([
                    ConnectionSpec.Route(prefix("10.0.0.0/8"), origin: .wg),
                    ConnectionSpec.Route(prefix("10.1.0.0/16"), origin: .learned, metric: 64),
                    ConnectionSpec.Route(prefix("10.3.0.0/16"), origin: .learned, metric: 32),
                ]))
        #expect(state.owners(of: prefix("10.1.0.0/16")) == [name])
        #expect(state.owners(of: prefix("10.2.0.0/16")).isEmpty)
    }

    @Test("update_only never makes a peer, remove never fails")
    func updateOnly() throws {
        let state = state(peer(1) { $0.updateOnly = true }, peer(2) { $0.remove = true })
        #expect(state.connections.isEmpty)
    }

    @Test("removing the last tunnel removes the connection and its prefixes")
    func removedPeer() throws {
        var state = state(peer(1) { $0.allowedIPs = [.add(prefix("10.0.0.0/8"))] })
        let applied = state.apply(peer(1) { $0.remove = true })
        let steps = try #require(applied)
        guard case .removePeer(key(1))? = steps.first, steps.count == 1 else {
            Issue.record("wrong steps \(steps.count)")
            return
        }
        #expect(state.connections.isEmpty)
        #expect(state.owners(of: prefix("10.0.0.0/8")).isEmpty)
    }

    @Test("replace_peers removes all before it adds")
    func replacePeers() throws {
        var state = state(peer(1) { $0.allowedIPs = [.add(prefix("10.0.0.0/8"))] }, peer(2))
        let applied = state.apply(
            set {
                $0.replacePeers = true
                $0.peers = [WgPeerChange(publicKey: key(2))]
            })
        let steps = try #require(applied)
        #expect(state.connections.flatMap(\.tunnels).map(\.publicKey) == [key(2)])
        #expect(steps.count == 3)
        #expect(state.connections.flatMap(\.prefixes).isEmpty)
    }

    @Test("nobody is his own peer, whichever comes first")
    func ownKey() throws {
        let own = PrivateKey(hex: String(repeating: "ab", count: 32))!
        let change = WgPeerChange(publicKey: own.publicKey)
        let keyFirst = state(
            set {
                $0.privateKey = .set(own)
                $0.peers = [change]
            })
        #expect(keyFirst.connections.isEmpty)
        let peerFirst = state(set { $0.peers = [change] }, set { $0.privateKey = .set(own) })
        #expect(peerFirst.connections.isEmpty)
    }

    @Test("the keepalive is the last thing said of a peer, so that it finds key and endpoint")
    func order() throws {
        var state = GatewaySpec()
        let applied = state.apply(
            peer(1) {
                $0.persistentKeepalive = 25
                $0.endpoint = Endpoint("192.0.2.1:1")
                $0.presharedKey = PresharedKey.none
            })
        let steps = try #require(applied)
        #expect(steps.count == 4)
        guard case .addPeer? = steps.first, case .persistentKeepalive(key(1), 25)? = steps.last else {
            Issue.record("wrong order")
            return
        }
    }

    @Test("too many peers are refused, and nothing has changed")
    func peerLimit() throws {
        var state = state(peer(1))
        let refused = state.apply(
            set { set in
                set.listenPort = 7
                set.peers = (0...GatewaySpec.peerLimit).map { number in
                    let bytes = (0..<32).map { UInt8(truncatingIfNeeded: number >> (8 * min($0, 7))) }
                    return WgPeerChange(publicKey: PublicKey(bytes)!)
                }
            })
        #expect(refused == nil)
        #expect(state.peerCount == 1)
        #expect(state.listenPort == 0)
    }
}
