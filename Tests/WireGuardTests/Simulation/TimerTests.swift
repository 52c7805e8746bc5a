import Testing

@testable import WireGuard

/// Each timer of the whitepaper's section 6, at its exact virtual time. The network takes 10 ms and loses
/// nothing unless a test cuts it.
@Suite struct TimerTests {
    private let start = Instant.at(0)
    private let oneWay = Duration.milliseconds(10)

    /// A pair with a session that the left one began at `start`; what led to it is forgotten.
    private func connectedPair() -> (Simulation, SimulatedNode, SimulatedNode) {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: .milliseconds(100))
        #expect(left.status(of: right).state == .established && right.status(of: left).state == .established)
        left.forgetHistory()
        right.forgetHistory()
        return (simulation, left, right)
    }

    private func jitterRange(after instant: Instant, _ timeout: Duration) -> ClosedRange<Instant> {
        (instant + timeout)...(instant + timeout + Protocol.rekeyTimeoutJitter)
    }

    @Test("the first packet makes a session and arrives after one and a half round trips")
    func firstPacket() {
        let (simulation, left, right) = Simulation.pair()
        let packet = simulation.sendPacket(from: left, to: right)
        simulation.run(until: start + oneWay * 3 - .nanoseconds(1))
        #expect(right.delivered.isEmpty)
        simulation.run(until: start + oneWay * 3)
        #expect(right.delivered == [packet])
        #expect(left.sent.map(\.type) == [.initiation, .transport])
        #expect(right.sent.map(\.type) == [.response])
    }

    @Test("an initiator with nothing to send confirms with an empty keepalive at once")
    func confirmingKeepalive() {
        let (simulation, left, right) = Simulation.pair()
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(left.sent.map(\.type) == [.initiation, .transport])
        #expect(left.keepalives.map(\.at) == [start + oneWay * 2])
        #expect(right.status(of: left).lastHandshake == start + oneWay * 3)
        #expect(left.events.map(\.event) == [.handshakeStarted, .handshakeCompleted(.initiator)])
        #expect(right.events.map(\.event) == [.handshakeCompleted(.responder)])
    }

    @Test("an unanswered initiation is sent again after 5 s and up to 333 ms, each time anew")
    func retry() {
        let (simulation, left, right) = Simulation.pair()
        simulation.isCut = { _, _ in true }
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(89))
        let initiations = left.sent(.initiation)
        #expect((17...18).contains(initiations.count))
        for (earlier, later) in zip(initiations, initiations.dropFirst()) {
            #expect(jitterRange(after: earlier.at, .seconds(5)).contains(later.at))
        }
        #expect(Set(initiations.map { Array($0.bytes[4..<8]) }).count == initiations.count)
        #expect(Set(initiations.map { Array($0.bytes[8..<40]) }).count == initiations.count)
        #expect(
            Set(zip(initiations, initiations.dropFirst()).map { $1.at - $0.at }).count > 2, "jitter varies")
        #expect(left.status(of: right).state == .handshaking(attempts: initiations.count))
        #expect(left.status(of: right).lastFailure == .noReply)
    }

    @Test(
        "after 90 s without an answer it gives up and drops what is staged, and the next packet starts anew")
    func giveUp() {
        let (simulation, left, right) = Simulation.pair()
        simulation.isCut = { _, _ in true }
        simulation.sendPacket(from: left, to: right)
        simulation.sendPacket(from: left, to: right)
        simulation.run(until: start + .seconds(90) - .nanoseconds(1))
        #expect(left.status(of: right).stagedPackets == 2)
        simulation.run(until: start + .seconds(90))
        #expect(left.events.last?.event == .handshakeGaveUp(dropped: 2))
        #expect(left.events.last?.at == start + .seconds(90))
        #expect(left.drops(.stagedExpired) == 2)
        #expect(left.status(of: right).state == .idle)
        #expect(left.status(of: right).stagedPackets == 0)
        #expect(left.device.indexOwners.isEmpty)
        #expect(left.device.nextTimeout == nil)

        simulation.run(for: .seconds(60))
        simulation.isCut = { _, _ in false }
        let packet = simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        #expect(right.delivered == [packet])
    }

    @Test("no initiation follows another within 5 s, even when one is asked for")
    func rekeyTimeout() {
        let (simulation, left, right) = connectedPair()
        simulation.initiate(from: left, to: right)
        simulation.initiate(from: left, to: right)
        simulation.run(for: .seconds(20))
        #expect(left.sent(.initiation).map(\.at) == [start + .seconds(5)])
    }

    @Test("data received and nothing sent for 10 s gives one empty keepalive")
    func passiveKeepalive() {
        let (simulation, left, right) = connectedPair()
        simulation.sendPacket(from: left, to: right)
        let received = simulation.now + oneWay
        simulation.run(for: .seconds(3))
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(60))
        #expect(right.keepalives.map(\.at) == [received + .seconds(10)])
        #expect(left.sent.count == 2, "a keepalive is no data: it is not answered")
    }

    @Test(
        "a keepalive follows 10 s after the first data that nothing sent since has answered",
        arguments: [
            // In milliseconds: what is received, what is sent, and when the keepalive is due.
            ([0, 500], [100], 10_500),
            ([0, 9900], [100], 19_900),
            ([0, 3000, 6000, 9000], [8900], 19_000),
            ([0, 5000, 7000], [4000], 15_000),
        ] as [([Int], [Int], Int)])
    func passiveKeepaliveIsPunctual(received: [Int], sent: [Int], due: Int) {
        let (simulation, left, right) = connectedPair()
        let zero = simulation.now + oneWay
        for at in received {
            simulation.schedule(at: zero + .milliseconds(at) - oneWay) {
                simulation.sendPacket(from: left, to: right)
            }
        }
        for at in sent {
            simulation.schedule(at: zero + .milliseconds(at)) { simulation.sendPacket(from: right, to: left) }
        }
        simulation.run(for: .seconds(60))
        #expect(right.keepalives.map(\.at) == [zero + .milliseconds(due)])
    }

    @Test("a handshake answers data too: after it the 10 s begin anew")
    func handshakeAnswersData() {
        let (simulation, left, right) = connectedPair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(6))
        simulation.initiate(from: right, to: left)
        simulation.run(for: .seconds(1))
        right.forgetHistory()
        simulation.run(for: .seconds(60))
        #expect(right.sent.isEmpty)
    }

    @Test("whoever answers data with data owes no keepalive")
    func answeredData() {
        let (simulation, left, right) = connectedPair()
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(4))
        simulation.sendPacket(from: right, to: left)
        simulation.run(for: .seconds(4))
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(60))
        #expect(left.keepalives.isEmpty)
        // The second packet was never answered with data; looked at when the first one's timer fell due.
        #expect(right.keepalives.count == 1)
        #expect(left.sent(.initiation).isEmpty && right.sent(.initiation).isEmpty)
    }

    @Test("data sent and nothing received for 15 s and jitter starts a handshake, and forgets the source")
    func deadPeer() throws {
        let (simulation, left, right) = connectedPair()
        simulation.isCut = { _, _ in true }
        let sentAt = simulation.now
        #expect(left.status(of: right).underlay?.source != nil)
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(1))
        simulation.sendPacket(from: left, to: right)
        simulation.run(for: .seconds(15))
        #expect(left.sent(.initiation).count == 1)
        let initiation = try #require(left.sent(.initiation).first)
        #expect(jitterRange(after: sentAt, .seconds(15)).contains(initiation.at))
        #expect(initiation.to.source == nil)
    }

    @Test("a peer that keeps answering is not taken for dead, and one that stops is found within 15.5 s")
    func deadPeerAmongTraffic() {
        let (simulation, left, right) = connectedPair()
        for _ in 0..<300 {
            simulation.sendPacket(from: left, to: right)
            simulation.sendPacket(from: right, to: left)
            simulation.run(for: .milliseconds(200))
        }
        #expect(left.sent(.initiation).isEmpty && right.sent(.initiation).isEmpty)
        let deadline = simulation.now + .milliseconds(15_600)
        simulation.isCut = { _, _ in true }
        while simulation.now < deadline {
            simulation.sendPacket(from: left, to: right)
            simulation.run(for: .milliseconds(200))
        }
        #expect(left.sent(.initiation).count == 1)
    }

    @Test("data every 12 s that only keepalives answer starts no handshake")
    func sparseData() {
        let (simulation, left, right) = connectedPair()
        for _ in 0..<9 {
            simulation.sendPacket(from: left, to: right)
            simulation.run(for: .seconds(12))
        }
        #expect(left.sent(.initiation).isEmpty)
        #expect(right.keepalives.count == 9)
    }

    @Test("the initiator rekeys when it sends past 120 s, and its packets go on under the old key until then")
    func rekeyOnSend() {
        let (simulation, left, right) = connectedPair()
        let created = start + oneWay * 2
        simulation.run(until: created + .seconds(120) - .nanoseconds(1))
        simulation.sendPacket(from: left, to: right)
        #expect(left.sent(.initiation).isEmpty)
        simulation.run(until: created + .seconds(120))
        simulation.sendPacket(from: left, to: right)
        #expect(left.sent(.initiation).map(\.at) == [created + .seconds(120)])
        simulation.run(for: .seconds(1))
        #expect(right.delivered.count == 2)
        #expect(left.status(of: right).sessionSince == created + .seconds(120) + oneWay * 2)
        #expect(right.sent(.initiation).isEmpty)
    }

    @Test("the responder does not rekey by time; the keepalive that it is owed makes the initiator do so")
    func rekeyOnKeepalive() {
        let (simulation, left, right) = connectedPair()
        simulation.run(until: start + .seconds(125))
        simulation.sendPacket(from: right, to: left)
        simulation.run(for: .seconds(20))
        #expect(right.sent(.initiation).isEmpty)
        #expect(left.sent(.initiation).map(\.at) == [start + .seconds(135) + oneWay])
    }

    @Test("the initiator rekeys when it receives past 165 s, and not a moment before")
    func rekeyOnReceive() {
        let (simulation, left, right) = connectedPair()
        let created = start + oneWay * 2
        simulation.run(until: created + .seconds(165) - oneWay - .nanoseconds(1))
        simulation.sendPacket(from: right, to: left)
        simulation.run(until: created + .seconds(165) - oneWay)
        #expect(left.delivered.isEmpty)
        simulation.sendPacket(from: right, to: left)
        simulation.run(until: created + .seconds(165) - .nanoseconds(1))
        #expect(left.delivered.count == 1)
        #expect(left.sent(.initiation).isEmpty)
        simulation.run(until: created + .seconds(165))
        #expect(left.sent(.initiation).map(\.at) == [created + .seconds(165)])
        #expect(right.sent(.initiation).isEmpty)
    }

    @Test("a session is refused at 180 s: what is sent then is staged, and waits for a new one")
    func expiry() {
        let (simulation, left, right) = connectedPair()
        let created = start + oneWay * 2
        simulation.run(until: created + .seconds(180) - .nanoseconds(1))
        #expect(left.status(of: right).state == .established)
        #expect(left.device.indexOwners.count == 1)
        simulation.run(until: created + .seconds(180))
        #expect(left.status(of: right).state == .idle)
        #expect(left.events.map(\.event) == [.sessionExpired])
        #expect(left.device.indexOwners.isEmpty)
        let packet = simulation.sendPacket(from: left, to: right)
        #expect(left.sent.map(\.type) == [.initiation])
        #expect(left.status(of: right).stagedPackets == 1)
        simulation.run(for: .seconds(1))
        #expect(right.delivered == [packet])
    }

    @Test("540 s without a new session wipes all key material, and then nothing is awaited")
    func wipe() {
        let (simulation, left, right) = connectedPair()
        simulation.run(for: .seconds(600))
        let created = start + oneWay * 2
        #expect(left.events.map(\.event) == [.sessionExpired, .keyMaterialWiped])
        #expect(left.events.map(\.at) == [created + .seconds(180), created + .seconds(540)])
        #expect(left.device.nextTimeout == nil && right.device.nextTimeout == nil)
        #expect(left.sent.isEmpty && right.sent.isEmpty)
    }

    @Test(
        "a persistent keepalive is sent when it is switched on, and then when nothing passed for its time"
    )
    func persistentKeepalive() {
        let (simulation, left, right) = connectedPair()
        let switchedOn = simulation.now
        let id = left.id(of: right)
        simulation.command(left) { $0.setPersistentKeepalive(25, for: id, now: simulation.now) }
        simulation.run(until: switchedOn + .seconds(30))
        #expect(left.keepalives.map(\.at) == [switchedOn, switchedOn + .seconds(25)])
        simulation.sendPacket(from: right, to: left)
        let received = simulation.now + oneWay
        simulation.run(until: received + .seconds(9))
        #expect(left.keepalives.count == 2)
        simulation.run(until: received + .seconds(36))
        // Owed for the data after 10 s; the next 25 s after that.
        #expect(left.keepalives.map(\.at).suffix(2) == [received + .seconds(10), received + .seconds(35)])
        simulation.command(left) { $0.setPersistentKeepalive(0, for: id, now: simulation.now) }
        left.forgetHistory()
        simulation.run(for: .seconds(60))
        #expect(left.sent.isEmpty)
    }

    @Test("a persistent keepalive without a session asks for one, and again after giving up")
    func persistentKeepaliveWithoutSession() {
        let (simulation, left, right) = Simulation.pair()
        simulation.isCut = { _, _ in true }
        let id = left.id(of: right)
        simulation.command(left) { $0.setPersistentKeepalive(25, for: id, now: simulation.now) }
        #expect(left.sent(.initiation).count == 1)
        simulation.run(for: .seconds(150))
        #expect(left.events.contains { $0.event == .handshakeGaveUp(dropped: 0) })
        simulation.isCut = { _, _ in false }
        simulation.run(for: .seconds(30))
        #expect(left.status(of: right).state == .established)
    }

    @Test("calls of handleTimeout before anything is due do nothing")
    func earlyCalls() {
        let (simulation, left, right) = connectedPair()
        simulation.sendPacket(from: left, to: right)
        left.forgetHistory()
        let timeout = left.device.nextTimeout
        for milliseconds in stride(from: 0, to: 900, by: 100) {
            let early = simulation.now + .milliseconds(milliseconds)
            simulation.command(left) { $0.handleTimeout(now: early) }
        }
        #expect(left.sent.isEmpty && left.events.isEmpty)
        #expect(left.device.nextTimeout == timeout)
    }

    @Test("of timers due together what ends goes before what begins, and each is taken once")
    func timerTable() {
        var timers = PeerTimers()
        #expect(timers.earliest == nil)
        timers[.handshakeRetry] = .at(7)
        timers[.handshakeGiveUp] = .at(7)
        timers[.keepalive] = .at(5)
        timers[.keypairExpiry] = .at(8)
        timers[.wipe] = .at(9)
        #expect(timers.earliest == .at(5))
        #expect(timers.takeDue(at: .at(4.9)) == nil)
        let taken = (0..<5).map { _ in timers.takeDue(at: .at(8)) }
        #expect(taken == [.keypairExpiry, .handshakeGiveUp, .handshakeRetry, .keepalive, nil])
        #expect(timers.earliest == .at(9))
    }
}
