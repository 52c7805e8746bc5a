import TestSupport
import Testing

@testable import WireGuard

/// Handshakes between two real devices: who may send when, and what a handshake that goes wrong leaves
/// behind.
@Suite struct SessionLifeTests {
    private let oneWay = Duration.milliseconds(10)

    private func exchange(_ simulation: Simulation, _ left: SimulatedNode, _ right: SimulatedNode) {
        let there = simulation.sendPacket(from: left, to: right)
        let back = simulation.sendPacket(from: right, to: left)
        simulation.run(for: .milliseconds(100))
        #expect(right.delivered.contains(there), "left to right")
        #expect(left.delivered.contains(back), "right to left")
        #expect(simulation.monitor.violations == [])
    }

    @Test("packets staged during the handshake arrive in order, before those sent after it")
    func stagedOrder() {
        let (simulation, left, right) = Simulation.pair()
        var packets = (0..<5).map { _ in simulation.sendPacket(from: left, to: right) }
        simulation.run(for: oneWay * 2)
        packets += (0..<5).map { _ in simulation.sendPacket(from: left, to: right) }
        simulation.run(for: .seconds(1))
        #expect(right.delivered == packets)
    }

    @Test("128 packets are staged, and the oldest goes for the newest")
    func stagedLimit() {
        let (simulation, left, right) = Simulation.pair()
        simulation.isCut = { _, _ in true }
        let packets = (0..<200).map { _ in simulation.sendPacket(from: left, to: right) }
        #expect(left.status(of: right).stagedPackets == 128)
        #expect(left.drops(.stagedQueueFull) == 72)
        simulation.isCut = { _, _ in false }
        simulation.run(for: .seconds(6))
        #expect(right.delivered == Array(packets.suffix(128)))
    }

    @Test("a responder with packets to send holds them until it has been spoken to under the new key")
    func responderWaits() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        // The confirmation is lost: the responder has a key, and may not use it.
        var isConfirmationLost = true
        simulation.run(for: oneWay)
        simulation.isCut = { from, _ in from == left.address && isConfirmationLost }
        simulation.run(for: oneWay * 3)
        #expect(left.status(of: right).state == .established)
        #expect(right.status(of: left).state == .idle)
        isConfirmationLost = false
        let packet = simulation.sendPacket(from: right, to: left)
        simulation.run(for: .seconds(1))
        #expect(left.delivered == [packet])
        exchange(simulation, left, right)
    }

    @Test("what a responder has staged goes the moment it is spoken to, and its own initiation is let go")
    func responderStaged() {
        let (simulation, left, right) = Simulation.pair()
        let began = simulation.now
        simulation.initiate(from: left, to: right)
        simulation.run(for: oneWay + .milliseconds(1))
        let packets = (0..<3).map { _ in simulation.sendPacket(from: right, to: left) }
        #expect(right.sent.map(\.type) == [.response, .initiation])
        // Its initiation is lost, so that all depends on the confirmation.
        simulation.isCut = { from, _ in from == right.address && simulation.now > began + oneWay * 2 }
        simulation.run(until: began + oneWay * 3)
        simulation.isCut = { _, _ in false }
        #expect(right.status(of: left).stagedPackets == 0)
        simulation.run(until: began + oneWay * 4)
        #expect(left.delivered == packets)
        simulation.run(for: .seconds(8))
        #expect(right.sent(.initiation).count == 1)
        #expect(right.device.indexOwners.count == 1)
    }

    @Test("when both begin at once both handshakes succeed, and either key carries packets")
    func simultaneousInitiation() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.initiate(from: right, to: left)
        simulation.run(for: oneWay * 4)
        #expect(left.status(of: right).state == .established && right.status(of: left).state == .established)
        #expect(left.sent.map(\.type) == [.initiation, .response, .transport])
        #expect(right.sent.map(\.type) == [.initiation, .response, .transport])
        exchange(simulation, left, right)
        simulation.run(for: .seconds(30))
        #expect(left.sent(.initiation).count == 1 && right.sent(.initiation).count == 1)
    }

    @Test("when both begin at once and one response is lost, the other handshake serves both")
    func simultaneousInitiationOneLost() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.initiate(from: right, to: left)
        simulation.run(for: oneWay)
        var isFirst = true
        simulation.isCut = { from, _ in
            defer { if from == left.address { isFirst = false } }
            return from == left.address && isFirst
        }
        simulation.run(for: .milliseconds(100))
        #expect(left.status(of: right).state == .established && right.status(of: left).state == .established)
        exchange(simulation, left, right)
        simulation.run(for: .seconds(20))
        #expect(left.sent(.initiation).count == 1, "what it wanted is there")
        #expect(right.sent(.initiation).count == 1)
        #expect(left.device.indexOwners.count <= 2 && right.device.indexOwners.count <= 2)
    }

    @Test("ends that began at once do not rekey at once: the second time only one of them asks")
    func symmetryIsBroken() {
        for seed in UInt64(1)...4 {
            let (simulation, left, right) = Simulation.pair(seed: seed)
            simulation.initiate(from: left, to: right)
            simulation.initiate(from: right, to: left)
            for _ in 0..<125 {
                simulation.run(for: .seconds(1))
                simulation.sendPacket(from: left, to: right)
                simulation.sendPacket(from: right, to: left)
            }
            #expect(left.sent(.initiation).count + right.sent(.initiation).count == 3)
            for _ in 0..<300 {
                simulation.run(for: .seconds(1))
                simulation.sendPacket(from: left, to: right)
                simulation.sendPacket(from: right, to: left)
            }
            simulation.run(for: .seconds(1))
            #expect(left.delivered.count == 425 && right.delivered.count == 425)
            #expect(left.sent(.initiation).count + right.sent(.initiation).count == 5)
        }
    }

    @Test("a rekey loses no packet under way, whoever begins it, or both", arguments: 0..<3)
    func rekeyUnderLoad(who: Int) {
        for seed in UInt64(1)...10 {
            let (simulation, left, right) = Simulation.pair(seed: seed)
            // Three keys at once are too many for what is also overtaken on the way.
            simulation.conditions.delay =
                .milliseconds(who == 2 ? 15 : 5)...(.milliseconds(who == 2 ? 15 : 25))
            simulation.sendPacket(from: left, to: right)
            simulation.run(for: .seconds(6))
            for millisecond in 0..<200 {
                if millisecond == 50, who != 1 { simulation.initiate(from: left, to: right) }
                if millisecond == 50 + Int(seed), who != 0 { simulation.initiate(from: right, to: left) }
                simulation.sendPacket(from: left, to: right)
                simulation.sendPacket(from: right, to: left)
                simulation.run(for: .milliseconds(1))
            }
            simulation.run(for: .seconds(1))
            #expect(right.delivered.count == 201 && left.delivered.count == 200)
            #expect(simulation.monitor.violations == [])
        }
    }

    @Test("a response is ignored once the handshake is complete, and an unknown one always")
    func lateResponse() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(1))
        let since = left.status(of: right).sessionSince
        let response = right.sent(.response)[0].bytes
        simulation.inject(response, from: right.address, to: left.address)
        #expect(left.drops(.responseUnexpected) == 1)
        #expect(left.status(of: right).sessionSince == since)
        simulation.restart(left)
        simulation.inject(response, from: right.address, to: left.address)
        #expect(left.drops(.receiverIndexUnknown) == 1)
    }

    @Test("a response to an initiation that has been replaced is dropped")
    func responseToOlderInitiation() {
        let (simulation, left, right) = Simulation.pair()
        simulation.conditions.delay = .seconds(3)...(.seconds(3))
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(6.1))
        #expect(left.sent(.initiation).count == 2)
        #expect(left.drops(.receiverIndexUnknown) == 1)
        #expect(left.status(of: right).state == .handshaking(attempts: 2))
    }

    @Test("a forged response does not end the wait for the true one")
    func forgedResponse() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: oneWay)
        let response = right.sent(.response)[0].bytes
        // All but mac2, which nobody looks at without load.
        for bit in stride(from: 0, to: (response.count - 16) * 8, by: 7) {
            simulation.inject(response.flipping(bit: bit), from: right.address, to: left.address)
        }
        // One that only the key betrays: the MAC is right, for it needs no secret.
        var forged = HandshakeResponse(response)!
        forged.encryptedNothing[0] ^= 1
        var macs = MacGenerator(peer: left.privateKey.publicKey)
        macs.stamp(&forged, now: simulation.now)
        simulation.inject(forged.bytes, from: right.address, to: left.address)
        #expect(left.drops(.handshakeDecryptionFailed) == 1)
        #expect(left.status(of: right).state == .handshaking(attempts: 1))
        simulation.run(for: oneWay * 2)
        exchange(simulation, left, right)
    }

    @Test("an initiation played back is dropped and the session in use goes on")
    func replayedInitiation() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(1))
        let before = right.device.indexOwners.count
        let underlay = right.status(of: left).underlay
        right.forgetHistory()
        simulation.inject(
            left.sent(.initiation)[0].bytes, from: Simulation.strangerAddress, to: right.address)
        #expect(right.drops(.timestampNotNewer) == 1)
        #expect(right.status(of: left).lastFailure == .dropped(.timestampNotNewer))
        #expect(right.sent.isEmpty, "no answer")
        #expect(right.device.indexOwners.count == before)
        #expect(right.status(of: left).underlay == underlay, "what is played back moves nobody")
        exchange(simulation, left, right)
    }

    @Test("after our restart an old initiation, played back from elsewhere, moves nobody")
    func replayAfterRestart() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(6))
        let old = left.sent(.initiation)[0].bytes
        simulation.restart(right)
        simulation.initiate(from: right, to: left)
        simulation.run(for: .seconds(1))
        right.forgetHistory()
        simulation.inject(old, from: Simulation.strangerAddress, to: right.address)
        // It cannot know better than to answer.
        #expect(right.sent.map(\.to.endpoint) == [Simulation.strangerAddress])
        #expect(right.status(of: left).underlay?.endpoint == left.address)
        exchange(simulation, left, right)
        // Nor does it when the peer, where it always was, asks for a session.
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(6))
        #expect(right.status(of: left).lastHandshake == simulation.now - .seconds(6) + oneWay * 3)
        #expect(right.status(of: left).underlay?.endpoint == left.address)

        // From a new address it is believed when it uses the key.
        simulation.restart(right)
        simulation.inject(old, from: Simulation.strangerAddress, to: right.address)
        simulation.run(for: .seconds(1))
        simulation.rebind(left)
        simulation.initiate(from: left, to: right)
        simulation.run(for: oneWay * 3)
        #expect(right.status(of: left).underlay?.endpoint == left.address)
        exchange(simulation, left, right)
    }

    @Test("initiations of one peer come at most once in 20 ms")
    func initiationFlood() {
        let (simulation, left, right) = Simulation.pair()
        // Restarts send as fast as they like.
        for _ in 0..<5 {
            simulation.initiate(from: left, to: right)
            simulation.restart(left)
            simulation.run(for: .milliseconds(4))
        }
        simulation.run(for: .milliseconds(50))
        #expect(right.drops(.initiationTooSoon) == 4)
        #expect(right.sent(.response).count == 1)
    }

    @Test("the greatest timestamp of a peer outlives our change of key")
    func timestampOutlivesKey() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(1))
        let recorded = left.sent(.initiation)[0].bytes
        let original = right.privateKey
        var entropy = SplitMix(seed: 99)
        let other = PrivateKey.generate(from: &entropy)
        simulation.command(right) { $0.setPrivateKey(other, now: simulation.now) }
        #expect(right.status(of: left).state == .idle)
        #expect(right.device.indexOwners.isEmpty)
        simulation.command(right) { $0.setPrivateKey(original, now: simulation.now) }
        simulation.inject(recorded, from: left.address, to: right.address)
        #expect(right.drops(.timestampNotNewer) == 1)
    }

    @Test("a clock set back a day does not lock us out, not even after a restart with the floor from disk")
    func clockSetBack() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(10))
        var last = left.device.lastTimestamp!
        left.command { $0.realtimeOffset -= 86_400_000_000_000 }
        for _ in 0..<3 {
            simulation.restart(left)
            simulation.run(for: .seconds(6))
            simulation.initiate(from: left, to: right)
            simulation.run(for: .seconds(1))
            #expect(left.device.lastTimestamp! > last)
            last = left.device.lastTimestamp!
            exchange(simulation, left, right)
        }
        #expect(right.drops(.timestampNotNewer) == 0)
    }

    @Test("whoever restarts is back within a round trip of its start when it initiates")
    func restart() {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(30))
        for node in [left, right] {
            let other = node === left ? right : left
            simulation.restart(node)
            simulation.initiate(from: node, to: other)
            simulation.run(for: oneWay * 3)
            exchange(simulation, left, right)
            simulation.run(for: .seconds(30))
        }
    }

    @Test("after a rekey packets under way with the old key still arrive, and old indices are freed")
    func previousKey() {
        let (simulation, left, right) = Simulation.pair()
        for _ in 0..<4 {
            simulation.initiate(from: left, to: right)
            simulation.run(for: oneWay * 2 - .milliseconds(1))
            let late = simulation.sendPacket(from: left, to: right)
            simulation.run(for: .seconds(6))
            #expect(right.delivered.contains(late))
        }
        #expect(left.device.indexOwners.count <= 2 && right.device.indexOwners.count <= 2)
        #expect(simulation.monitor.violations == [])
    }

    @Test("each of several gateways gets what is for it, whoever of the others is cut, moves or restarts")
    func threeGateways() {
        let simulation = Simulation(seed: 3)
        let nodes = (0..<3).map { _ in simulation.addNode() }
        for node in nodes {
            for other in nodes where other !== node { node.know(other, now: simulation.now) }
        }
        var expected: [[[UInt8]]] = [[], [], []]
        func everyoneToEveryone(but missing: Int? = nil) {
            for (number, from) in nodes.enumerated() {
                for (other, to) in nodes.enumerated() where other != number {
                    let packet = simulation.sendPacket(from: from, to: to)
                    if number != missing, other != missing { expected[other].append(packet) }
                }
            }
            simulation.run(for: .seconds(1))
        }
        everyoneToEveryone()
        let lost = nodes[2].address
        simulation.isCut = { $0 == lost || $1 == lost }
        everyoneToEveryone(but: 2)
        simulation.isCut = { _, _ in false }
        // The one that moves must speak first: nobody knows where it is.
        simulation.rebind(nodes[0])
        simulation.run(for: .seconds(5))
        simulation.initiate(from: nodes[0], to: nodes[1])
        simulation.initiate(from: nodes[0], to: nodes[2])
        simulation.run(for: .seconds(1))
        everyoneToEveryone()
        simulation.restart(nodes[1])
        simulation.initiate(from: nodes[1], to: nodes[2])
        simulation.run(for: .seconds(1))
        for (number, node) in nodes.enumerated() {
            #expect(Set(node.delivered) == Set(expected[number]))
            #expect(node.delivered.count == expected[number].count)
        }
        #expect(simulation.monitor.violations == [])
    }

    @Test(
        "past 2^60 messages either side asks for new keys, and past the last counter the old one is not used"
    )
    func counterEnd() throws {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(10))
        let toLeft = right.id(of: left)
        var keypair = try #require(right.device.slot(toLeft)?.peer.keypairs.current)
        #expect(keypair.role == .responder)
        _ = keypair.takeCounters(Int(Protocol.rekeyAfterMessages))
        var packets = [simulation.sendPacket(from: right, to: left)]
        #expect(right.sent(.initiation).count == 1)
        simulation.run(for: .seconds(10))

        keypair = try #require(right.device.slot(toLeft)?.peer.keypairs.current)
        #expect(keypair.role == .initiator && keypair.sendCounter < 100)
        _ = keypair.takeCounters(.max)
        _ = keypair.takeCounters(Int(Protocol.rejectAfterMessages - keypair.sendCounter))
        #expect(keypair.sendCounter == Protocol.rejectAfterMessages)
        packets.append(simulation.sendPacket(from: right, to: left))
        #expect(right.sent.last?.type == .initiation)
        #expect(right.status(of: left).stagedPackets == 1)
        simulation.run(for: .seconds(1))
        #expect(left.delivered == packets)
        #expect(keypair.sendCounter == Protocol.rejectAfterMessages)
        exchange(simulation, left, right)
    }

    @Test(
        "after a suspend, however long, the first packet needs one handshake and no more",
        arguments: [600, 4, 30, 100, 200, 545, 86_400], [0, 25] as [UInt16])
    func suspend(seconds: Int, keepalive: UInt16) {
        for isAwaitingAnswer in [false, true] {
            let (simulation, left, right) = Simulation.pair()
            let id = left.id(of: right)
            simulation.command(left) { $0.setPersistentKeepalive(keepalive, for: id, now: simulation.now) }
            exchange(simulation, left, right)
            simulation.run(for: .seconds(20))
            // What is under way when the machine goes to sleep, and what is owed.
            if isAwaitingAnswer { simulation.initiate(from: left, to: right) }
            simulation.sendPacket(from: left, to: right)
            simulation.sendPacket(from: right, to: left)
            simulation.suspend(left, for: .seconds(seconds))
            let woken = simulation.now
            let packet = simulation.sendPacket(from: left, to: right)
            simulation.run(until: woken + oneWay * 3)
            #expect(right.delivered.contains(packet), "\(seconds) s, awaiting an answer: \(isAwaitingAnswer)")
            exchange(simulation, left, right)
        }
    }

    @Test("whoever runs a second time from the same memory uses no key again, and needs one handshake")
    func secondRun() throws {
        let (simulation, left, right) = Simulation.pair()
        exchange(simulation, left, right)
        simulation.run(for: .seconds(6))
        let old = try #require(left.device.slot(left.id(of: right))?.peer.keypairs.current)
        let counter = old.sendCounter
        left.forgetHistory()
        let began = simulation.now
        // An initiation that was just sent is no reason to wait: its ephemeral key is known to the other run.
        simulation.isCut = { _, _ in true }
        simulation.initiate(from: left, to: right)
        simulation.run(for: .milliseconds(100))
        simulation.isCut = { _, _ in false }
        simulation.forgetRun(of: left)
        simulation.command(left) { device in
            let count = device.retireSessions(now: simulation.now)
            #expect(count == 1)
        }
        #expect(left.status(of: right).state == .handshaking(attempts: 1))
        let packet = simulation.sendPacket(from: left, to: right)
        #expect(left.sent.map(\.type) == [.initiation, .initiation])
        #expect(Set(left.sent.map { Array($0.bytes[8..<40]) }).count == 2, "another ephemeral key")
        simulation.run(until: began + .milliseconds(100) + oneWay * 3)
        #expect(right.delivered.contains(packet))
        #expect(old.sendCounter == counter)
        exchange(simulation, left, right)
        // Nothing to replace.
        let (idle, quiet, _) = Simulation.pair()
        idle.command(quiet) { device in
            let count = device.retireSessions(now: idle.now)
            #expect(count == 0)
        }
        #expect(quiet.sent.isEmpty)
    }

    @Test("another address of ours that a peer writes to is followed, and is no change of its endpoint")
    func otherSource() {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        exchange(simulation, left, right)
        right.forgetHistory()
        let id = right.id(of: left)
        let elsewhere = LocalSource(address: IPAddress("192.0.2.77")!, interface: 9)
        right.device.path(of: id)?.setUnderlay(UnderlayPath(endpoint: left.address, source: elsewhere))
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(right.delivered.count == 1)
        #expect(right.status(of: left).underlay?.source?.address == right.address.address)
        #expect(right.events.isEmpty)
    }

    @Test("a session survives the change of address and port of the side behind a NAT")
    func natRebinding() {
        let (simulation, left, right) = Simulation.pair(rightKnowsEndpoint: false)
        simulation.sendPacket(from: right, to: left)
        #expect(right.drops(.noEndpoint) == 1)
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        exchange(simulation, left, right)
        simulation.rebind(left)
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(right.status(of: left).underlay?.endpoint == left.address)
        #expect(right.events.last?.event == .roamed(right.status(of: left).underlay!))
        exchange(simulation, left, right)
        #expect(right.events.count { if case .roamed = $0.event { true } else { false } } == 1)
        // A handshake moves the peer too.
        simulation.rebind(left)
        simulation.run(for: .seconds(5))
        simulation.initiate(from: left, to: right)
        simulation.run(for: oneWay)
        #expect(right.status(of: left).underlay?.endpoint == left.address)
        simulation.run(for: .seconds(1))
        exchange(simulation, left, right)
    }
}
