import TestSupport
import Testing

@testable import WireGuard

/// Two ends that were told which cipher to use, the same or not.
@Suite struct CipherTests {
    init() throws { try #require(Cipher.aes256GCM.isAvailable, "this machine has no hardware AES") }

    private func sessionCipher(of node: SimulatedNode, towards other: SimulatedNode) -> Cipher? {
        node.device.slot(node.id(of: other))?.peer.keypairs.current?.sendKey.cipher
    }

    @Test("ends that both use AES-256-GCM carry packets both ways, over rekeys and a restart")
    func session() {
        let (simulation, left, right) = Simulation.pair(cipher: .aes256GCM)
        var given = (left: [[UInt8]](), right: [[UInt8]]())
        for second in 0..<300 {
            if second == 200 { simulation.restart(right) }
            // Lost with the session when the far end restarts: only before and well after it.
            if !(195..<230).contains(second) {
                given.right.append(simulation.sendPacket(from: left, to: right))
                given.left.append(simulation.sendPacket(from: right, to: left))
            } else {
                simulation.sendPacket(from: left, to: right)
            }
            simulation.run(for: .seconds(1))
        }
        #expect(given.right.allSatisfy { right.delivered.contains($0) })
        #expect(given.left.allSatisfy { left.delivered.contains($0) })
        #expect(left.sent(.initiation).count >= 3)
        #expect(sessionCipher(of: left, towards: right) == .aes256GCM)
        #expect(sessionCipher(of: right, towards: left) == .aes256GCM)
        #expect(simulation.monitor.violations == [])
    }

    @Test("one gateway speaks each cipher with the peer that uses it")
    func both() {
        let simulation = Simulation()
        let hub = simulation.addNode()
        let plain = simulation.addNode()
        let fast = simulation.addNode()
        hub.know(plain, now: simulation.now)
        hub.know(fast, cipher: .aes256GCM, now: simulation.now)
        plain.know(hub, now: simulation.now)
        fast.know(hub, cipher: .aes256GCM, now: simulation.now)
        let fromPlain = simulation.sendPacket(from: plain, to: hub)
        let toFast = simulation.sendPacket(from: hub, to: fast)
        simulation.run(for: .seconds(1))
        #expect(hub.delivered == [fromPlain] && fast.delivered == [toFast])
        #expect(sessionCipher(of: hub, towards: plain) == .chacha20Poly1305)
        #expect(sessionCipher(of: hub, towards: fast) == .aes256GCM)
    }

    @Test("ends that were told different ciphers have no session, and each says what the other uses")
    func mismatch() {
        let simulation = Simulation()
        let left = simulation.addNode()
        let right = simulation.addNode()
        left.know(right, cipher: .aes256GCM, now: simulation.now)
        right.know(left, cipher: .chacha20Poly1305, now: simulation.now)
        simulation.sendPacket(from: left, to: right)
        simulation.sendPacket(from: right, to: left)
        simulation.run(for: .seconds(30))
        #expect(left.delivered.isEmpty && right.delivered.isEmpty)
        #expect(left.sent(.response).isEmpty && right.sent(.response).isEmpty)
        #expect(left.drops(.cipherMismatch) > 0 && right.drops(.cipherMismatch) > 0)
        for (node, other, theirs) in [(left, right, Cipher.chacha20Poly1305), (right, left, .aes256GCM)] {
            #expect(node.status(of: other).lastFailure == .dropped(.cipherMismatch))
            #expect(node.status(of: other).foreignCipher == theirs)
        }
    }

    @Test("a mismatched initiation does not touch the session in use, nor the peer's endpoint")
    func mismatchDuringSession() throws {
        let (simulation, left, right) = Simulation.pair(cipher: .aes256GCM)
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(10))
        let index = right.device.slot(right.id(of: left))?.peer.keypairs.current?.localIndex
        let endpoint = right.status(of: left).underlay

        // The same identity with the other cipher, from elsewhere and later: an operator's second daemon.
        var entropy = SplitMix(seed: 9)
        let secret = try left.privateKey.sharedSecret(with: right.privateKey.publicKey)
        var message = try InitiatorHandshake.begin(
            static: left.privateKey, peer: right.privateKey.publicKey, staticStatic: secret,
            presharedKey: .none, cipher: .chacha20Poly1305, index: 77,
            timestamp: TAI64N(unixNanoseconds: 4_000_000_000_000_000_000), entropy: &entropy
        ).0
        var macs = MacGenerator(peer: right.privateKey.publicKey)
        macs.stamp(&message, now: simulation.now)
        simulation.inject(message.bytes, from: Simulation.strangerAddress, to: right.address)
        #expect(right.drops(.cipherMismatch) == 1)
        #expect(right.status(of: left).underlay == endpoint)
        #expect(right.device.slot(right.id(of: left))?.peer.keypairs.current?.localIndex == index)

        // Its timestamp, which lies in the far future, does not lock the true peer out.
        simulation.run(for: .seconds(130))
        let packet = simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(10))
        #expect(right.delivered.contains(packet))
        #expect(right.device.slot(right.id(of: left))?.peer.keypairs.current?.localIndex != index)
    }
}
