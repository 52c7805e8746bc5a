import Synchronization
import Testing

@testable import WireGuard

/// Both ends begin a handshake at once, and the network delivers in its own order: under whichever keys the
/// two then send, the other hears it.
@Suite struct SimultaneousTests {
    private func newest(_ type: MessageType, of node: SimulatedNode) throws -> [UInt8] {
        try #require(node.sent(type).last).bytes
    }

    @Test("an initiation that overtakes the response before it leaves both directions open")
    func initiationOvertakesResponse() throws {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(10))

        // From here on the messages are delivered by hand.
        simulation.isCut = { _, _ in true }
        func deliver(_ type: MessageType, from sender: SimulatedNode, to receiver: SimulatedNode) throws {
            simulation.inject(try newest(type, of: sender), from: sender.address, to: receiver.address)
        }
        simulation.initiate(from: left, to: right)
        try deliver(.initiation, from: left, to: right)
        simulation.run(for: .milliseconds(5))
        simulation.initiate(from: right, to: left)
        try deliver(.initiation, from: right, to: left)
        try deliver(.response, from: right, to: left)
        try deliver(.response, from: left, to: right)
        simulation.run(for: .milliseconds(20))
        simulation.isCut = { _, _ in false }

        for _ in 0..<20 {
            let toRight = simulation.sendPacket(from: left, to: right)
            let toLeft = simulation.sendPacket(from: right, to: left)
            simulation.run(for: .milliseconds(15))
            #expect(right.delivered.last == toRight)
            #expect(left.delivered.last == toLeft)
        }
        #expect(simulation.monitor.violations == [])
    }

    @Test("after a simultaneous start, the rekey two minutes later loses no packet of either end")
    func rekeyAfterSimultaneousStart() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.initiate(from: right, to: left)
        simulation.run(for: .milliseconds(119_900))
        var toRight: [[UInt8]] = []
        var toLeft: [[UInt8]] = []
        // The end that yields rekeys 10 s later.
        for _ in 0..<5500 {
            toRight.append(simulation.sendPacket(from: left, to: right))
            toLeft.append(simulation.sendPacket(from: right, to: left))
            simulation.run(for: .milliseconds(2))
        }
        simulation.run(for: .milliseconds(100))
        let arrived = (left: Set(left.delivered), right: Set(right.delivered))
        #expect(toRight.count { !arrived.right.contains($0) } == 0)
        #expect(toLeft.count { !arrived.left.contains($0) } == 0)
        #expect(left.sent(.initiation).count + right.sent(.initiation).count >= 3)
    }

    @Test("the data threads get the new key only when what was staged has been given out")
    func stagedPacketsGoFirst() throws {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.isCut = { _, _ in true }
        simulation.run(for: .milliseconds(15))
        let initiation = try newest(.initiation, of: left)
        simulation.inject(initiation, from: left.address, to: right.address)
        let response = try newest(.response, of: right)

        let known = left.device.path(of: left.id(of: right))
        let path = try #require(known)
        var order: [String] = []
        left.command { device in
            device.receive(response, from: UnderlayPath(endpoint: right.address), now: simulation.now)
            while let output = device.poll() {
                guard case .transmit(_, _, .transport, _) = output else { continue }
                order.append(path.sendingIndex == nil ? "staged" : "staged, but overtaken")
            }
        }
        #expect(order == ["staged"])
        #expect(path.sendingIndex != nil)
    }

    @Test("the data threads are never left with a key that is let go, also where both begin again at once")
    func retiredInAnyOrder() throws {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(10))
        // What comes to left is handled in one round of its loop.
        simulation.isCut = { _, _ in true }
        simulation.initiate(from: left, to: right)
        simulation.initiate(from: right, to: left)
        simulation.run(for: .milliseconds(20))
        for (from, to) in [(left, right), (right, left)] {
            simulation.inject(try newest(.initiation, of: from), from: from.address, to: to.address)
        }
        let known = left.device.path(of: left.id(of: right))
        let path = try #require(known)
        let rival = try #require(left.device.slot(left.id(of: right))?.peer.keypairs.next?.localIndex)
        let response = try newest(.response, of: right)
        let id = left.id(of: right)
        left.command { device in
            func look() { #expect(path.sendingIndex.map { device.keypairs.holds($0) } != false) }
            device.receive(response, from: UnderlayPath(endpoint: right.address), now: simulation.now)
            look()
            device.handle(.keyConfirmed(id, localIndex: rival), now: simulation.now)
            look()
            while device.poll() != nil { look() }
            let slots = device.slot(id)?.peer.keypairs
            #expect(path.sendingIndex == slots?.current?.localIndex)
            #expect(slots?.previous?.localIndex == rival)
        }
    }

    @Test("a key that was heard when a newer one had taken its place is not the one that is sent under")
    func heardTooLate() throws {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(10))
        let known = right.device.path(of: right.id(of: left))
        let path = try #require(known)
        let first = try #require(path.sendingIndex)
        // Left asks twice. Right's inbound thread hears the first key while control answers the second time.
        simulation.initiate(from: left, to: right)
        simulation.run(for: .milliseconds(15))
        let id = right.id(of: left)
        let heard = try #require(right.device.slot(id)?.peer.keypairs.next)
        simulation.restart(left)
        simulation.run(for: .milliseconds(20))
        simulation.initiate(from: left, to: right)
        simulation.run(for: .milliseconds(15))
        #expect(right.device.slot(id)?.peer.keypairs.next !== heard)
        path.supersede(with: heard, at: simulation.now)
        #expect(path.sendingIndex == heard.localIndex)
        simulation.command(right) {
            $0.handle(.keyConfirmed(id, localIndex: heard.localIndex), now: simulation.now)
        }
        #expect(path.sendingIndex == first)
    }

    @Test("a reply that control gets before the news of the key waits for it, and asks for no other session")
    func replyBeforeConfirmation() throws {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: .milliseconds(15))
        let id = right.id(of: left)
        let next = try #require(right.device.slot(id)?.peer.keypairs.next)
        next.heard.store(true, ordering: .relaxed)
        let reply = InnerPackets.udp(from: right.innerAddress, to: left.innerAddress, payload: [1])
        simulation.command(right) { $0.handle(.stage(id, packet: reply), now: simulation.now) }
        #expect(right.status(of: left).stagedPackets == 1)
        simulation.command(right) {
            $0.handle(.keyConfirmed(id, localIndex: next.localIndex), now: simulation.now)
        }
        simulation.run(for: .milliseconds(15))
        #expect(right.sent(.initiation).isEmpty)
        #expect(left.delivered == [reply])
    }

    @Test("where the packet that confirms a handshake came from counts more than where its initiation did")
    func confirmationFromElsewhere() throws {
        let (simulation, left, right) = Simulation.pair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(10))
        simulation.restart(right)
        // Left asks from a new port, and by the time of its first packet has another one again.
        simulation.rebind(left)
        simulation.initiate(from: left, to: right)
        simulation.run(for: .milliseconds(15))
        simulation.rebind(left)
        let response = try newest(.response, of: right)
        simulation.inject(response, from: right.address, to: left.address)
        simulation.run(for: .milliseconds(50))
        #expect(right.status(of: left).underlay?.endpoint == left.address)
    }
}
