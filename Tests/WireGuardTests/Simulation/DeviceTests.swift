import TestSupport
import Testing

@testable import WireGuard

/// What an operator does to a device, and what strangers send it.
@Suite struct DeviceTests {
    private let now = Instant.at(0)

    @Test("our own public key is no peer: refused when added, removed when it becomes ours")
    func ownKey() {
        let (simulation, left, right) = Simulation.pair()
        let own = PeerConfiguration(publicKey: left.privateKey.publicKey)
        left.command { device in
            let refused = device.addPeer(own, now: now)
            #expect(refused == nil)
        }
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        let id = left.id(of: right)
        simulation.command(left) { $0.setPrivateKey(right.privateKey, now: simulation.now) }
        #expect(left.device.peers.isEmpty)
        let found = left.device.peerID(for: right.privateKey.publicKey)
        let status = left.device.status(of: id)
        #expect(found == nil && status == nil)
        #expect(left.events.last?.event == .removedAsOurself)
        #expect(left.device.indexOwners.isEmpty)
    }

    @Test("each handshake message is told of at both ends when that is asked for, and why one was refused")
    func traces() {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(left.traces.isEmpty && right.traces.isEmpty)
        simulation.command(left) { $0.tracesHandshakes = true }
        simulation.command(right) { $0.tracesHandshakes = true }
        simulation.run(for: .seconds(10))
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(left.traces.map(\.step) == [.initiationSent(number: 1), .responseReceived])
        #expect(right.traces.map(\.step) == [.initiationReceived, .responseSent])
        #expect(left.traces.allSatisfy { $0.peer == left.id(of: right) && $0.endpoint == right.address })

        let peer = right.id(of: left)
        simulation.command(right) { $0.removePeer(peer) }
        simulation.run(for: .seconds(10))
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(
            right.traces.last
                == HandshakeTrace(
                    step: .refused(.peerUnknown, key: left.privateKey.publicKey), peer: nil,
                    endpoint: left.address))
    }

    @Test("what was refused while a peer was off is no reason once it is on again")
    func enabledAgain() {
        let (simulation, left, right) = Simulation.pair()
        let peer = left.id(of: right)
        simulation.command(left) { $0.setEnabled(false, for: peer) }
        simulation.initiate(from: right, to: left)
        simulation.run(for: .seconds(1))
        #expect(left.status(of: right).lastFailure == .dropped(.peerDisabled))
        simulation.command(left) { $0.setEnabled(true, for: peer) }
        #expect(left.status(of: right).lastFailure == nil)
    }

    @Test("a removed peer frees its indices, and events that come late for it reach nobody")
    func removal() {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        let id = left.id(of: right)
        simulation.command(left) { $0.removePeer(id) }
        #expect(left.device.indexOwners.isEmpty)
        #expect(left.device.nextTimeout == nil)
        left.forgetHistory()
        let again = PeerConfiguration(
            publicKey: right.privateKey.publicKey, underlay: UnderlayPath(endpoint: right.address))
        simulation.command(left) { device in
            let other = device.addPeer(again, now: simulation.now)
            #expect(other != id, "a number is not used again")
            device.handle(.stage(id, packet: [1, 2, 3]), now: simulation.now)
            device.handle(.dataSent(id, at: simulation.now), now: simulation.now)
            device.handle(.keyConfirmed(id, localIndex: 7), now: simulation.now)
        }
        #expect(left.sent.isEmpty)
        #expect(left.device.nextTimeout == nil)
    }

    @Test("one of several peers is removed, and the timers of the others go on")
    func removalAmongOthers() {
        var entropy = SplitMix(seed: 5)
        let keys = (0..<5).map { _ in PrivateKey.generate(from: &entropy).publicKey }
        var device = Device(
            privateKey: PrivateKey.generate(from: &entropy), keypairs: KeypairTable(capacity: 64),
            entropy: entropy)
        let underlay = UnderlayPath(endpoint: Endpoint(address: IPAddress("192.0.2.9")!, port: 1))
        var ids: [PeerID] = []
        for key in keys {
            ids.append(device.addPeer(PeerConfiguration(publicKey: key, underlay: underlay), now: now)!)
        }
        for id in ids { device.initiate(id, now: now) }
        while device.poll() != nil {}
        device.removePeer(ids[1])
        device.removePeer(ids[4])
        device.handleTimeout(now: now + .seconds(6))
        var retried: [PeerID?] = []
        while let output = device.poll() {
            if case .transmit(_, _, _, let peer) = output { retried.append(peer) }
        }
        #expect(Set(retried) == Set([ids[0], ids[2], ids[3]]))
        #expect(device.indexOwners.count == 3)
    }

    @Test("as many peers as the keypair table has room for, and then no more")
    func fullTable() {
        var entropy = SplitMix(seed: 6)
        var device = Device(
            privateKey: PrivateKey.generate(from: &entropy),
            keypairs: KeypairTable(capacity: 4 * KeypairTable.indicesPerPeer), entropy: entropy)
        for number in 0..<5 {
            let key = PrivateKey.generate(from: &entropy).publicKey
            let id = device.addPeer(PeerConfiguration(publicKey: key), now: now)
            #expect((id != nil) == (number < 4))
        }
    }

    @Test("each way to fail is counted, and shown with the peer and the time")
    func reasons() throws {
        // Another pre-shared key at the far end.
        var (simulation, left, right) = Simulation.pair()
        var entropy = SplitMix(seed: 8)
        let id = left.id(of: right)
        left.command { $0.setPresharedKey(.generate(from: &entropy), for: id) }
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(left.status(of: right).lastFailure == .dropped(.handshakeDecryptionFailed))
        #expect(left.status(of: right).lastFailureAt == now + .milliseconds(20))
        #expect(left.status(of: right).lastFailure?.description == "handshake decryption failed")

        // No reply at all.
        (simulation, left, right) = Simulation.pair()
        simulation.isCut = { _, _ in true }
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(6))
        #expect(left.status(of: right).lastFailure?.description == "no reply to handshake")

        // The far end has us under another key: all it can tell is where the message came from.
        simulation = Simulation()
        left = simulation.addNode()
        right = simulation.addNode()
        let wrong = PrivateKey.generate(from: &entropy).publicKey
        left.know(right, publicKey: wrong, now: now)
        right.know(left, now: now)
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(right.drops(.mac1Invalid) == 1)
        #expect(right.status(of: left).lastFailure?.description == "mac1 invalid")
        var refused = try #require(right.device.refusedHandshakes.all.first)
        #expect(refused.reason == .mac1Invalid && refused.key == nil && refused.count == 1)
        #expect(refused.endpoint == left.address)

        // It does not know our key.
        simulation = Simulation()
        left = simulation.addNode()
        right = simulation.addNode()
        left.know(right, now: now)
        right.know(left, publicKey: wrong, now: now)
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(right.drops(.peerUnknown) == 1)
        #expect(right.status(of: left).lastFailure == .dropped(.peerUnknown))
        simulation.run(for: .seconds(11))
        refused = try #require(right.device.refusedHandshakes.all.first)
        #expect(right.device.refusedHandshakes.all.count == 1)
        #expect(refused.reason == .peerUnknown && refused.key == left.privateKey.publicKey)
        #expect(refused.count == 3 && refused.last > now)

        // Once it is known, it is no news any more.
        simulation = Simulation()
        left = simulation.addNode()
        right = simulation.addNode()
        left.know(right, now: now)
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(right.device.refusedHandshakes.all.map(\.reason) == [.peerUnknown])
        right.know(left, now: simulation.now)
        simulation.run(for: .seconds(10))
        #expect(right.status(of: left).lastHandshake != nil && right.device.refusedHandshakes.all.isEmpty)
    }

    @Test("an end counts its answers that the far end makes no use of, until it does")
    func unconfirmedAnswers() {
        let (simulation, left, right) = Simulation.pair()
        // What right sends is lost.
        simulation.isCut = { from, _ in from == right.address }
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(12))
        #expect(right.device.unconfirmedAnswers(of: right.id(of: left))?.count == 3)
        #expect(left.device.unconfirmedAnswers(of: left.id(of: right)) == nil)
        simulation.isCut = { _, _ in false }
        simulation.run(for: .seconds(6))
        #expect(left.status(of: right).state == .established)
        #expect(right.device.unconfirmedAnswers(of: right.id(of: left)) == nil)
    }

    @Test("of refused handshakes few are kept, and those that name a key longest")
    func refusedHandshakes() throws {
        let simulation = Simulation()
        let node = simulation.addNode()
        var entropy = SplitMix(seed: 12)
        func initiate(_ key: PrivateKey, knowing own: PublicKey, from address: UInt32) throws {
            var (message, _) = try InitiatorHandshake.begin(
                static: key, peer: own, staticStatic: try key.sharedSecret(with: own), presharedKey: .none,
                cipher: .chacha20Poly1305, index: 1, timestamp: TAI64N(unixNanoseconds: 0), entropy: &entropy)
            var macs = MacGenerator(peer: own)
            macs.stamp(&message, now: simulation.now)
            let sender = UnderlayPath(endpoint: Endpoint(address: IPAddress(v4: address), port: 7))
            simulation.command(node) { $0.receive(message.bytes, from: sender, now: simulation.now) }
        }
        let stranger = PrivateKey.generate(from: &entropy)
        let another = PrivateKey.generate(from: &entropy).publicKey
        try initiate(stranger, knowing: node.privateKey.publicKey, from: 1)
        for address in 2..<UInt32(100) { try initiate(stranger, knowing: another, from: address) }
        let all = node.device.refusedHandshakes.all
        #expect(all.count == 16)
        #expect(all.filter { $0.key != nil }.map(\.key) == [stranger.publicKey])
        #expect(all.last?.address == IPAddress(v4: 99))
    }

    @Test("a reason is forgotten when a handshake succeeds")
    func reasonCleared() {
        let (simulation, left, right) = Simulation.pair()
        simulation.isCut = { _, _ in true }
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(6))
        simulation.isCut = { _, _ in false }
        simulation.run(for: .seconds(6))
        #expect(left.status(of: right).state == .established)
        #expect(left.status(of: right).lastFailure == nil)
    }

    @Test("without an endpoint nothing is sent or kept, and the reason is shown")
    func noEndpoint() {
        let (simulation, _, right) = Simulation.pair(rightKnowsEndpoint: false)
        let left = simulation.nodes[0]
        let id = right.id(of: left)
        simulation.command(right) { device in
            device.initiate(id, now: now)
            device.handle(.stage(id, packet: [0x45]), now: now)
        }
        #expect(right.sent.isEmpty)
        #expect(right.status(of: left).stagedPackets == 0)
        #expect(right.drops(.noEndpoint) == 1)
        #expect(right.status(of: left).lastFailure == .noEndpoint)
        #expect(right.device.nextTimeout == nil)
    }

    @Test("without a private key packets wait, and one that is set later sends them")
    func noPrivateKey() {
        let (simulation, left, right) = Simulation.pair()
        let key = left.privateKey
        simulation.command(left) { $0.setPrivateKey(nil, now: simulation.now) }
        let packet = simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(7))
        #expect(left.sent.isEmpty)
        #expect(left.status(of: right).lastFailure == .noPrivateKey)
        simulation.inject(
            [1, 0, 0, 0] + [UInt8](repeating: 7, count: 144), from: right.address, to: left.address)
        #expect(left.drops(.mac1Invalid) == 1)
        simulation.command(left) { $0.setPrivateKey(key, now: simulation.now) }
        simulation.run(for: .seconds(1))
        #expect(right.delivered == [packet])
    }

    @Test("a peer whose public key is a point of low order gets no handshake")
    func lowOrderPeer() {
        var entropy = SplitMix(seed: 9)
        var device = Device(
            privateKey: PrivateKey.generate(from: &entropy), keypairs: KeypairTable(capacity: 16),
            entropy: entropy)
        let zero = PublicKey([UInt8](repeating: 0, count: 32))!
        let underlay = UnderlayPath(endpoint: Endpoint(address: IPAddress("192.0.2.9")!, port: 1))
        let id = device.addPeer(PeerConfiguration(publicKey: zero, underlay: underlay), now: now)!
        device.initiate(id, now: now)
        var outputs = 0
        while device.poll() != nil { outputs += 1 }
        #expect(outputs == 0)
        let status = device.status(of: id)
        #expect(status?.lastFailure == .dropped(.lowOrderPoint))
    }

    @Test("under load a stranger gets a cookie and no work, and with the cookie its handshake")
    func cookies() {
        let (simulation, left, right) = Simulation.pair()
        func load() { right.command { $0.noteQueue(fill: 0.2, now: simulation.now) } }
        load()
        let packet = simulation.sendPacket(from: left, to: right)
        simulation.run(for: .milliseconds(500))
        #expect(right.sent.map(\.type) == [.cookieReply])
        #expect(right.drops(.cookieRequired) == 1)
        #expect(right.device.indexOwners.isEmpty)
        for _ in 0..<12 {
            load()
            simulation.run(for: .milliseconds(400))
        }
        simulation.run(for: .milliseconds(600))
        #expect(left.sent(.initiation).count == 2)
        #expect(left.sent(.initiation)[1].bytes.suffix(16) != [UInt8](repeating: 0, count: 16)[...])
        #expect(right.delivered == [packet])
        #expect(right.drops(.cookieRequired) == 1)
    }

    @Test("an initiator under load makes the responder show a cookie too")
    func cookieForResponse() {
        let (simulation, left, right) = Simulation.pair()
        left.command { $0.noteQueue(fill: 1, now: simulation.now) }
        let packet = simulation.sendPacket(from: left, to: right)
        simulation.run(for: .milliseconds(100))
        #expect(left.sent.map(\.type) == [.initiation, .cookieReply])
        left.command { $0.noteQueue(fill: 1, now: simulation.now + .seconds(5)) }
        simulation.run(for: .seconds(6))
        #expect(right.sent(.response).count == 2)
        #expect(left.drops(.cookieRequired) == 1)
        #expect(right.delivered == [packet])
    }

    @Test("strangers get 16 Diffie-Hellmans at once, and then cookies; a known peer gets through")
    func strangersAreCheap() throws {
        let (simulation, left, right) = Simulation.pair()
        var entropy = SplitMix(seed: 13)
        var macs = MacGenerator(peer: right.privateKey.publicKey)
        // A stranger needs our public key and one message; he takes another index for each copy.
        let key = PrivateKey.generate(from: &entropy)
        let secret = try key.sharedSecret(with: right.privateKey.publicKey)
        var (message, _) = try InitiatorHandshake.begin(
            static: key, peer: right.privateKey.publicKey, staticStatic: secret, presharedKey: .none,
            cipher: .chacha20Poly1305, index: 1, timestamp: TAI64N(unixNanoseconds: 0), entropy: &entropy)
        macs.stamp(&message, now: simulation.now)
        let stranger = UnderlayPath(endpoint: Simulation.strangerAddress)
        func flood(_ count: Int) {
            simulation.command(right) { device in
                for _ in 0..<count { device.receive(message.bytes, from: stranger, now: simulation.now) }
            }
        }
        flood(1000)
        #expect(right.drops(.peerUnknown) == 16)
        #expect(right.drops(.cookieRequired) == 984)
        #expect(right.sent(.cookieReply).count == 984)
        // It goes on, 1,000 times a second.
        for round in 0..<700 {
            simulation.run(for: .milliseconds(10))
            flood(10)
            if round == 50 { simulation.initiate(from: left, to: right) }
        }
        #expect(right.drops(.peerUnknown) < 200, "some twenty a second")
        #expect(left.sent(.initiation).count == 2, "the second carries the cookie")
        #expect(right.status(of: left).lastHandshake != nil)
    }

    @Test("what a few strangers ask a second is no load, and neither is what known peers ask, all at once")
    func knownPeersAreNoLoad() {
        let simulation = Simulation()
        let hub = simulation.addNode()
        let others = (0..<20).map { _ in simulation.addNode() }
        for other in others {
            hub.know(other, now: simulation.now)
            other.know(hub, now: simulation.now)
        }
        for other in others {
            simulation.initiate(from: other, to: hub)
            simulation.initiate(from: hub, to: other)
        }
        simulation.run(for: .milliseconds(100))
        #expect(hub.drops(.cookieRequired) == 0)
        #expect(others.allSatisfy { $0.status(of: hub).state == .established })
        // Replayed: nothing new, one every 10 ms.
        let old = others[0].sent(.initiation)[0].bytes
        for _ in 0..<200 {
            simulation.run(for: .milliseconds(10))
            simulation.inject(old, from: Simulation.strangerAddress, to: hub.address)
        }
        #expect(hub.drops(.timestampNotNewer) == 200)
        #expect(hub.drops(.cookieRequired) == 0)
    }

    @Test("under load even a peer with a cookie is held to 20 handshakes a second")
    func rateLimit() {
        let (simulation, left, right) = Simulation.pair()
        right.command { $0.noteQueue(fill: 0.2, now: simulation.now) }
        simulation.initiate(from: left, to: right)
        simulation.run(for: .milliseconds(100))
        right.command { $0.noteQueue(fill: 1, now: simulation.now + .seconds(5)) }
        simulation.run(for: .seconds(5.5))
        let withCookie = left.sent(.initiation)[1].bytes
        right.command { $0.noteQueue(fill: 1, now: simulation.now) }
        for _ in 0..<20 { simulation.inject(withCookie, from: left.address, to: right.address) }
        #expect(right.drops(.timestampNotNewer) == 5)
        #expect(right.drops(.handshakeRateLimited) == 15)
        let stolen = Simulation.strangerAddress
        simulation.inject(withCookie, from: stolen, to: right.address)
        #expect(right.drops(.mac2Invalid) == 1, "a cookie is good for one address and port")
    }

    @Test("load is remembered for a second")
    func loadEnds() {
        var entropy = SplitMix(seed: 10)
        var device = Device(
            privateKey: PrivateKey.generate(from: &entropy), keypairs: KeypairTable(capacity: 16),
            entropy: entropy)
        device.noteQueue(fill: 0.124, now: now)
        var isLoaded = [device.isUnderLoad(at: now)]
        device.noteQueue(fill: 0.125, now: now)
        device.noteQueue(fill: 0, now: now + .milliseconds(500))
        isLoaded.append(device.isUnderLoad(at: now + .milliseconds(999)))
        isLoaded.append(device.isUnderLoad(at: now + .seconds(1)))
        #expect(isLoaded == [false, true, false])
    }

    @Test("messages of every wrong length, type and content are counted and change nothing")
    func junk() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: .milliseconds(15))
        let messages = left.sent.map(\.bytes) + right.sent.map(\.bytes)
        let before = right.device.drops.values.reduce(0, +)
        var expected: UInt64 = 0
        let underlay = UnderlayPath(endpoint: Simulation.strangerAddress)
        var entropy = SplitMix(seed: 11)
        right.command { device in
            for message in messages {
                for count in 0..<message.count {
                    device.receive(Array(message[..<count]), from: underlay, now: simulation.now)
                    expected += 1
                }
                device.receive(message + [0], from: underlay, now: simulation.now)
                expected += 1
            }
            for count in 0..<200 {
                device.receive(entropy.bytes(count), from: underlay, now: simulation.now)
                for type in UInt8(0)...5 {
                    device.receive(
                        [type, 0, 0, 0] + entropy.bytes(count), from: underlay, now: simulation.now)
                }
                expected += 7
            }
        }
        #expect(right.device.drops.values.reduce(0, +) - before == expected)
        #expect(right.device.indexOwners.count == 1)
        right.forgetHistory()
        simulation.run(for: .seconds(1))
        #expect(right.status(of: left).state == .established)
    }

    @Test("a bit flipped anywhere in an initiation changes nothing", arguments: [false, true])
    func flippedInitiation(isMacRight: Bool) {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        let initiation = left.sent(.initiation)[0].bytes
        var macs = MacGenerator(peer: right.privateKey.publicKey)
        var at = simulation.now
        right.command { device in
            // With a right mac1 the sender index and the MACs may be anything, so only the rest is flipped.
            for bit in stride(
                from: isMacRight ? 8 * 8 : 0, to: 8 * (isMacRight ? 116 : 132), by: isMacRight ? 13 : 3)
            {
                var bytes = initiation.flipping(bit: bit)
                if isMacRight, var message = HandshakeInitiation(bytes) {
                    macs.stamp(&message, now: simulation.now)
                    bytes = message.bytes
                }
                // Each costs a Diffie-Hellman: at once they would be a load.
                at = at + HandshakeLoad.interval
                device.receive(bytes, from: UnderlayPath(endpoint: Simulation.strangerAddress), now: at)
            }
            #expect(device.indexOwners.isEmpty)
            let output = device.poll()
            #expect(output == nil)
        }
        simulation.run(for: .seconds(1))
        #expect(right.status(of: left).state == .established)
        #expect(right.status(of: left).underlay?.endpoint == left.address)
    }

    @Test("a thousand peers: the next timeout is the earliest of all")
    func manyPeers() {
        var entropy = SplitMix(seed: 12)
        var device = Device(privateKey: nil, keypairs: KeypairTable(capacity: 8192), entropy: entropy)
        for number in 0..<1000 {
            let keepalive = UInt16(1000 - number)
            let key = PublicKey(entropy.bytes(32))!
            _ = device.addPeer(PeerConfiguration(publicKey: key, persistentKeepalive: keepalive), now: now)
        }
        #expect(device.nextTimeout == now + .seconds(1))
        device.handleTimeout(now: now + .seconds(10))
        #expect(device.nextTimeout == now + .seconds(11))
    }
}
