import Testing

@testable import WireGuard

/// When keys leave memory, and when the source address of outer packets is forgotten: only a look inside
/// tells.
@Suite struct KeyLifeTests {
    private let oneWay = Duration.milliseconds(10)

    /// Keys of sessions, held by nobody here.
    private struct Watch {
        private struct Keys {
            weak var keypair: Keypair?
            weak var send: TransportKey?
            weak var receive: TransportKey?
        }
        private var all: [Keys] = []

        mutating func add(_ keypair: Keypair?) {
            guard let keypair, !all.contains(where: { $0.keypair === keypair }) else { return }
            all.append(Keys(keypair: keypair, send: keypair.sendKey, receive: keypair.receiveKey))
        }

        var count: Int { all.count }
        var left: Int { all.count { $0.keypair != nil || $0.send != nil || $0.receive != nil } }
    }

    private func currentKeypair(of node: SimulatedNode, towards other: SimulatedNode) -> Keypair? {
        node.device.slot(node.id(of: other))?.peer.keypairs.current
    }

    @Test("of many sessions one after the other, the keys of at most three are in memory, and then none's")
    func rekeys() {
        let (simulation, left, right) = Simulation.pair()
        var watches = [Watch(), Watch()]
        for round in 0..<8 {
            // Either side may be the initiator.
            simulation.initiate(from: round % 3 == 0 ? right : left, to: round % 3 == 0 ? left : right)
            simulation.run(for: .seconds(1))
            simulation.sendPacket(from: left, to: right)
            simulation.sendPacket(from: right, to: left)
            simulation.run(for: .seconds(5))
            watches[0].add(currentKeypair(of: left, towards: right))
            watches[1].add(currentKeypair(of: right, towards: left))
            for watch in watches { #expect(watch.left <= 3, "round \(round)") }
        }
        for watch in watches { #expect(watch.count == 8 && watch.left >= 1) }
        // The last traffic is answered, and the last session runs out.
        simulation.run(for: .seconds(200))
        for watch in watches { #expect(watch.left == 0) }
        #expect(left.device.indexOwners.isEmpty && right.device.indexOwners.isEmpty)
    }

    @Test("a session's keys are let go at 180 s, when the peer is removed, and when our own key changes")
    func endings() {
        for ending in 0..<3 {
            let (simulation, left, right) = Simulation.pair()
            simulation.sendPacket(from: left, to: right)
            simulation.run(for: .seconds(1))
            var watch = Watch()
            watch.add(currentKeypair(of: left, towards: right))
            #expect(watch.left == 1)
            let id = left.id(of: right)
            switch ending {
            case 0: simulation.run(for: .seconds(180))
            case 1: simulation.command(left) { $0.removePeer(id) }
            default: simulation.command(left) { $0.setPrivateKey(nil, now: simulation.now) }
            }
            // What control does once a round.
            simulation.run(for: .milliseconds(1))
            #expect(watch.left == 0, "ending \(ending)")
        }
    }

    @Test(
        "540 s after the last session the key of an initiation under way is let go too, and another is made")
    func wipeOfInitiation() {
        let (simulation, left, right) = Simulation.pair()
        let start = simulation.now
        simulation.initiate(from: left, to: right)
        simulation.run(until: start + .seconds(520))
        simulation.isCut = { _, _ in true }
        let packet = simulation.sendPacket(from: left, to: right)
        simulation.run(until: start + .seconds(540) + oneWay * 2 - .nanoseconds(1))
        #expect(left.device.indexOwners.count == 1)
        simulation.run(until: start + .seconds(540) + oneWay * 2)
        #expect(left.device.indexOwners.isEmpty)
        #expect(left.events.last?.event == .keyMaterialWiped)
        simulation.isCut = { _, _ in false }
        simulation.run(for: .seconds(7))
        #expect(right.delivered == [packet])
    }

    @Test("the source address is kept for a rekey, and forgotten on each of its retries")
    func stickySource() {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(121))
        let source = left.status(of: right).underlay?.source
        #expect(source != nil)
        left.forgetHistory()
        simulation.isCut = { from, _ in from == left.address }
        simulation.sendPacket(from: left, to: right)
        // What comes under the old key tells the source again: the next retry forgets it again.
        for _ in 0..<2 {
            simulation.run(for: .seconds(5.4))
            #expect(left.status(of: right).underlay == UnderlayPath(endpoint: right.address))
            simulation.sendPacket(from: right, to: left)
            simulation.run(for: oneWay)
            #expect(left.status(of: right).underlay?.source == source)
        }
        let sources = left.sent(.initiation).map(\.to.source)
        #expect(sources == [source, nil, nil])
    }
}
