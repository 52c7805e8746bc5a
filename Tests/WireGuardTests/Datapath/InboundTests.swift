import Testing

@testable import WireGuard

@Suite("What comes from the network")
struct InboundTests {
    let packet = InnerPackets.udp(payload: InnerPackets.payload(64))

    @Test("each message is delivered once, and 8,000 late is fine")
    func replays() {
        var pair = DatapathPair()
        let late = pair.send(packet)
        #expect(pair.receive(late + late).count == 1)
        #expect(pair.right.drops[.replayed] == 1)
        let held = pair.send(packet)
        for _ in 0..<8000 { _ = pair.send(packet) }
        #expect(pair.receive(pair.send(packet)).count == 1)
        #expect(pair.receive(held).count == 1)
        #expect(pair.receive(held).isEmpty)
        for _ in 0..<200 { _ = pair.send(packet) }
        #expect(pair.receive(pair.send(packet)).count == 1)
        #expect(pair.receive(late).isEmpty)
        #expect(pair.right.drops[.replayed] == 3)
    }

    @Test("no flipped bit gets through, and none changes any state")
    func bitFlips() {
        var pair = DatapathPair()
        let sent = pair.send(packet)[0]
        for position in sent.datagram.indices {
            var flipped = sent.datagram
            flipped[position] ^= 1 << UInt8(position % 8)
            #expect(pair.receive(flipped).isEmpty)
        }
        #expect(pair.right.path.lastReceived == nil)
        #expect(pair.right.path.receivedBytes == 0)
        #expect(pair.right.drops.snapshot.values.reduce(0, +) == UInt64(sent.datagram.count))
        #expect(pair.receive([sent]).count == 1)
    }

    @Test("every truncation of a message is dropped under a name")
    func truncations() {
        var pair = DatapathPair()
        let sent = pair.send(packet)[0].datagram
        for count in 0..<sent.count { #expect(pair.receive(Array(sent[..<count])).isEmpty) }
        #expect(pair.right.drops[.datagramTruncated] == 4)
        #expect(pair.right.drops[.messageLengthWrong] == 28)
        #expect(pair.right.drops[.authenticationFailed] == UInt64(sent.count - 32))
    }

    @Test(
        "wrong types, lengths and indices are dropped; handshake messages of the right length go to control")
    func kinds() {
        var pair = DatapathPair()
        #expect(pair.receive([5, 0, 0, 0] + [UInt8](repeating: 0, count: 60)).isEmpty)
        #expect(pair.receive([4, 1, 0, 0] + [UInt8](repeating: 0, count: 60)).isEmpty)
        #expect(pair.receive([0, 0, 0, 0]).isEmpty)
        #expect(pair.right.drops[.messageTypeUnknown] == 3)
        #expect(pair.receive([1, 0, 0, 0] + [UInt8](repeating: 0, count: 143)).isEmpty)
        #expect(pair.right.drops[.messageLengthWrong] == 1)
        #expect(pair.receive([4, 0, 0, 0, 1, 2, 3, 4] + [UInt8](repeating: 0, count: 60)).isEmpty)
        #expect(pair.right.drops[.receiverIndexUnknown] == 1)
        let initiation: [UInt8] = [1, 0, 0, 0] + [UInt8](repeating: 9, count: 144)
        #expect(pair.receive(initiation).isEmpty)
        guard case .handshakeMessage(let bytes, let from)? = pair.right.events(pair.right.inboundEvents).first
        else {
            Issue.record("no event")
            return
        }
        #expect(bytes == initiation)
        #expect(from == DatapathPair.leftUnderlay)
    }

    @Test("a flood of handshakes fills its share of the queue and no more")
    func flood() {
        var pair = DatapathPair()
        let initiation: [UInt8] = [1, 0, 0, 0] + [UInt8](repeating: 9, count: 144)
        for _ in 0..<2000 { _ = pair.receive(initiation) }
        #expect((0.7...0.75).contains(pair.right.inboundEvents.handshakeFill))
        #expect(pair.right.drops[.handshakeQueueFull] > 0)
        // The events that timers hang on still get through.
        #expect(pair.receive(pair.send(packet)).count == 1)
        let events = pair.right.events(pair.right.inboundEvents)
        #expect(events.contains { if case .keyConfirmed = $0 { true } else { false } })
        #expect(events.contains { if case .dataReceived = $0 { true } else { false } })
        #expect(pair.right.inboundEvents.handshakeFill == 0)
    }

    @Test("each worker takes the messages of its own peers, and passes on those of others'")
    func workers() throws {
        var own = DatapathPair(rightWorker: 0, rightWorkers: 3)
        #expect(own.receive(own.send(packet)).count == 1)
        var other = DatapathPair(rightWorker: 1, rightWorkers: 3)
        let message = other.send(packet)[0].datagram
        #expect(
            other.receive([DatapathPair.Sent(datagram: message, segmentSize: 0, tos: 3)]).isEmpty)
        let event = try #require(other.right.events(other.right.inboundEvents).first)
        guard case .stray(message, DatapathPair.leftUnderlay, tos: 3) = event else {
            Issue.record("\(event)")
            return
        }
        #expect(other.right.drops.snapshot.isEmpty)
        // What no keypair is there for is nobody's, and takes nobody's time.
        var unknown = message
        unknown[7] ^= 1
        #expect(other.receive(unknown).isEmpty)
        #expect(other.right.drops.snapshot == [.receiverIndexUnknown: 1])
        #expect(other.right.events(other.right.inboundEvents).isEmpty)
    }

    @Test("messages of other workers' peers fill their share of the queue, and what is more is counted")
    func strays() {
        var pair = DatapathPair(rightWorker: 1, rightWorkers: 3)
        let message = pair.send(packet)
        for _ in 0..<1000 { #expect(pair.receive(message).isEmpty) }
        #expect(pair.right.inboundEvents.handshakeFill == 0, "they are no load of handshakes")
        #expect(pair.right.drops[.strayQueueFull] > 0)
        // There is room left for what timers hang on.
        #expect(pair.right.inboundEvents.rekeyDue(PeerID(9)))
        let passed = UInt64(pair.right.events(pair.right.inboundEvents).count - 1)
        #expect(passed + pair.right.drops[.strayQueueFull] == 1000)
    }

    @Test("a peer may not send from an address that is not behind it")
    func foreignSource() {
        var pair = DatapathPair()
        let foreign = InnerPackets.udp(from: IPAddress("10.9.0.1")!, to: InnerPackets.right4, payload: [1])
        #expect(pair.receive(pair.send(foreign)).isEmpty)
        let own = InnerPackets.udp(from: InnerPackets.right4, to: InnerPackets.right4, payload: [1])
        #expect(pair.receive(pair.send(own)).isEmpty)
        #expect(pair.right.drops[.innerSourceNotAllowed] == 2)
    }

    @Test("control hears of a packet from a foreign address, and of a flood of them twice a second")
    func foreignSourceTold() throws {
        var pair = DatapathPair()
        let foreign = InnerPackets.udp(
            from: IPAddress("10.9.0.1")!, to: InnerPackets.right4, payload: [UInt8](repeating: 1, count: 500))
        var told: [(packet: [UInt8], length: Int)] = []
        for _ in 0..<1000 {
            #expect(pair.receive(pair.send(foreign)).isEmpty)
            for case .sourceRefused(let peer, let packet, let length) in pair.right.events(
                pair.right.inboundEvents)
            {
                #expect(peer == pair.right.path.peer)
                told.append((packet, length))
            }
            pair.now = pair.now + .milliseconds(1)
        }
        #expect(pair.right.drops[.innerSourceNotAllowed] == 1000)
        #expect(told.count == 2)
        let first = try #require(told.first)
        #expect(first.packet == Array(foreign[..<96]) && first.length == foreign.count)
    }

    @Test("inner packets that lie about themselves are dropped under a name")
    func lyingInner() throws {
        var pair = DatapathPair()
        let keypair = try #require(pair.left.keypair)
        var lies: [[UInt8]] = []
        for (position, value) in [(0, UInt8(0x41)), (0, 0x44), (2, 0xff), (3, 10)] {
            var lie = packet
            lie[position] = value
            lies.append(lie)
        }
        lies.append([0x45])
        var long6 = InnerPackets.udp(from: InnerPackets.left6, to: InnerPackets.right6, payload: [1, 2, 3])
        long6[4] = 0xff
        lies.append(long6)
        for lie in lies { #expect(pair.receive(try #require(keypair.seal(lie, mtu: 1420))).isEmpty) }
        #expect(pair.right.drops[.innerLengthWrong] == UInt64(lies.count))
        for version in [0, 5, 7, 15] as [UInt8] {
            var lie = packet
            lie[0] = version << 4 | 5
            #expect(pair.receive(try #require(keypair.seal(lie, mtu: 1420))).isEmpty)
        }
        #expect(pair.right.drops[.innerVersionUnknown] == 4)
    }

    @Test("fragments and options pass, uncoalesced")
    func fragmentsAndOptions() {
        var pair = DatapathPair()
        var fragment = InnerPackets.tcp(sequence: 100, payload: InnerPackets.payload(100))
        fragment[6] = 0x20
        let whole = InnerPackets.tcp(sequence: 0, payload: InnerPackets.payload(100))
        let written = pair.receive(
            pair.send([(whole, VirtioNetHeader()), (fragment, VirtioNetHeader())]).sent)
        #expect(written.map(\.packet) == [whole, fragment])
    }

    @Test("a keepalive counts as heard, and writes nothing")
    func keepalive() throws {
        var pair = DatapathPair()
        let keepalive = try #require(pair.left.keypair?.seal([], mtu: 1420))
        #expect(keepalive.count == 32)
        #expect(pair.receive(keepalive).isEmpty)
        #expect(pair.right.path.lastReceived == pair.now)
        #expect(pair.right.path.unansweredDataReceived == nil)
        #expect(pair.right.drops.snapshot.isEmpty)
    }

    @Test("an authentic packet from elsewhere moves the endpoint; a forged one does not")
    func roaming() {
        var pair = DatapathPair()
        let elsewhere = UnderlayPath(
            endpoint: Endpoint(address: IPAddress("198.51.100.7")!, port: 9),
            source: LocalSource(address: IPAddress("192.0.2.2")!, interface: 3))
        let sent = pair.send(packet)
        var forged = sent
        forged[0].datagram[20] ^= 1
        _ = pair.receive(forged, from: elsewhere)
        #expect(pair.right.path.underlay == DatapathPair.leftUnderlay)
        _ = pair.receive(sent, from: elsewhere)
        #expect(pair.right.path.underlay == elsewhere)
        #expect(
            pair.right.events(pair.right.inboundEvents).contains {
                if case .roamed = $0 { true } else { false }
            })
        pair.right.path.forgetSource()
        #expect(pair.right.path.underlay == UnderlayPath(endpoint: elsewhere.endpoint))
    }

    @Test("what was under way to an address of an interface that was left brings it back after a while only")
    func leftSource() throws {
        var pair = DatapathPair()
        let underlay = { (address: String, interface: UInt32) in
            UnderlayPath(
                endpoint: DatapathPair.leftUnderlay.endpoint,
                source: LocalSource(address: IPAddress(address)!, interface: interface))
        }
        let (old, new) = (underlay("192.0.2.2", 3), underlay("192.0.2.66", 4))
        _ = pair.receive(pair.send(packet), from: old)
        #expect(pair.right.path.underlay == old)
        let until = pair.now + .seconds(3)
        pair.right.path.leaveSource(of: 3, until: until)
        _ = pair.receive(pair.send(packet), from: old)
        #expect(pair.right.path.underlay == UnderlayPath(endpoint: old.endpoint))
        _ = pair.receive(pair.send(packet), from: new)
        #expect(pair.right.path.underlay == new)
        pair.right.path.forgetSource()
        pair.now = until
        _ = pair.receive(pair.send(packet), from: old)
        #expect(pair.right.path.underlay == old)
    }

    @Test("of a datagram with more messages than any kernel joins, what there is room for is taken")
    func tooManySegments() throws {
        var pair = DatapathPair()
        let keepalives = try (0..<300).flatMap { _ in try #require(pair.left.keypair?.seal([], mtu: 1420)) }
        #expect(pair.receive([DatapathPair.Sent(datagram: keepalives, segmentSize: 32)]).isEmpty)
        #expect(pair.right.path.receivedPackets == 256)
        #expect(pair.right.drops[.datagramOversized] == 1)
    }

    @Test("a session past its time is not believed")
    func expired() {
        var pair = DatapathPair()
        let sent = pair.send(packet)
        pair.now = pair.now + .seconds(180)
        #expect(pair.receive(sent).isEmpty)
        #expect(pair.right.drops[.keypairExpired] == 1)
    }
}
