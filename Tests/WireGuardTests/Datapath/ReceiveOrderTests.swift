import Testing

@testable import WireGuard

/// What was looked at before a packet is dropped, and what was not: the order of PROTOCOL.md, "Transport".
@Suite("The order of what is checked on receive")
struct ReceiveOrderTests {
    private let packet = InnerPackets.udp(payload: InnerPackets.payload(64))
    private let elsewhere = UnderlayPath(
        endpoint: Endpoint(address: IPAddress("198.51.100.7")!, port: 9),
        source: LocalSource(address: IPAddress("192.0.2.2")!, interface: 3))

    private func confirmations(_ pair: borrowing DatapathPair) -> [UInt32] {
        pair.right.events(pair.right.inboundEvents).compactMap {
            if case .keyConfirmed(_, let index) = $0 { index } else { nil }
        }
    }

    @Test("age and count are looked at before anything is decrypted, the age first")
    func limitsFirst() {
        var pair = DatapathPair()
        var forged = pair.send(packet)[0].datagram
        forged[20] ^= 1
        #expect(pair.receive(forged).isEmpty)
        #expect(pair.right.drops.snapshot == [.authenticationFailed: 1])
        // The first counter that is refused, 2^64 - 2^13 - 1, little endian.
        forged.replaceSubrange(8..<16, with: [0xff, 0xdf] + [UInt8](repeating: 0xff, count: 6))
        #expect(pair.receive(forged).isEmpty)
        #expect(pair.right.drops[.counterExhausted] == 1)
        pair.now = pair.now + .seconds(180)
        #expect(pair.receive(forged).isEmpty)
        #expect(pair.right.drops[.keypairExpired] == 1)
        #expect(pair.right.drops[.authenticationFailed] == 1)
    }

    @Test("a forged packet takes no counter, and moves no window")
    func windowAfterDecryption() {
        var pair = DatapathPair()
        let sent = pair.send(packet)
        var forged = sent[0].datagram
        forged[40] ^= 1
        #expect(pair.receive(forged).isEmpty)
        // Were it believed, everything sent so far would be too old.
        forged[15] = 0x7f
        #expect(pair.receive(forged).isEmpty)
        #expect(pair.receive(sent).count == 1)
    }

    @Test("a packet played back moves no endpoint, confirms no key and counts as nothing heard")
    func replayed() {
        var pair = DatapathPair()
        let sent = pair.send(packet)
        #expect(pair.receive(sent).count == 1)
        #expect(confirmations(pair).count == 1)
        let heard = pair.now
        pair.now = pair.now + .seconds(1)
        #expect(pair.receive(sent, from: elsewhere).isEmpty)
        #expect(pair.right.drops.snapshot == [.replayed: 1])
        #expect(pair.right.path.underlay == DatapathPair.leftUnderlay)
        #expect(pair.right.path.lastReceived == heard)
        #expect(pair.right.path.receivedPackets == 1)
        #expect(confirmations(pair).isEmpty)
    }

    private func roams(_ pair: borrowing DatapathPair) -> Int {
        pair.right.events(pair.right.inboundEvents).count { if case .roamed = $0 { true } else { false } }
    }

    @Test("a peer that comes from two places in turn is followed at once, and told of ten times a second")
    func roamingPace() {
        var pair = DatapathPair()
        var told = 0
        for number in 1...1000 {
            let place = number % 2 == 0 ? DatapathPair.leftUnderlay : elsewhere
            _ = pair.receive(pair.send(packet), from: place)
            #expect(pair.right.path.underlay == place)
            told += roams(pair)
            pair.now = pair.now + .milliseconds(1)
        }
        #expect(told == 10)
        // Where it is in the end is told too.
        pair.now = pair.now + .milliseconds(100)
        for expected in [1, 0] {
            _ = pair.receive(pair.send(packet))
            #expect(roams(pair) == expected)
            pair.now = pair.now + .seconds(1)
        }
    }

    @Test("a change of endpoint that the ring has no room for is told with the next packet")
    func roamingWithoutRoom() {
        var pair = DatapathPair()
        while pair.right.inboundEvents.roamed(PeerID(9)) {}
        _ = pair.receive(pair.send(packet), from: elsewhere)
        #expect(pair.right.path.underlay == elsewhere)
        _ = pair.right.events(pair.right.inboundEvents)
        for expected in [1, 0] {
            pair.now = pair.now + .milliseconds(100)
            _ = pair.receive(pair.send(packet), from: elsewhere)
            #expect(roams(pair) == expected)
        }
    }

    @Test("an authentic packet moves the endpoint and confirms the key, whatever is wrong inside it")
    func wrongInside() throws {
        let foreign = InnerPackets.udp(from: IPAddress("10.9.0.1")!, to: InnerPackets.right4, payload: [1])
        for (inside, reason) in [
            ([0x50], DropReason.innerVersionUnknown), ([0x45], .innerLengthWrong),
            (foreign, .innerSourceNotAllowed),
        ] {
            var pair = DatapathPair()
            let keypair = try #require(pair.left.keypair)
            let message = DatapathPair.Sent(
                datagram: try #require(keypair.seal(inside, mtu: 1420)), segmentSize: 0)
            #expect(pair.receive([message], from: elsewhere).isEmpty)
            #expect(pair.right.drops.snapshot == [reason: 1])
            #expect(pair.right.path.underlay == elsewhere)
            #expect(pair.right.path.lastReceived == pair.now)
            #expect(pair.right.path.unansweredDataReceived == pair.now)
            #expect(confirmations(pair) == [keypair.remoteIndex])
        }
    }

    @Test("version and length are looked at before the source")
    func sourceLast() throws {
        var pair = DatapathPair()
        var lie = InnerPackets.udp(from: IPAddress("10.9.0.1")!, to: InnerPackets.right4, payload: [1])
        lie[3] += 200
        #expect(pair.receive(try #require(pair.left.keypair?.seal(lie, mtu: 1420))).isEmpty)
        #expect(pair.right.drops.snapshot == [.innerLengthWrong: 1])
    }

    @Test(
        "a responder's key is confirmed by the first packet under it, an initiator's by none",
        arguments: [true, false])
    func confirmation(isRightResponder: Bool) {
        var pair = DatapathPair(leftRole: isRightResponder ? .initiator : .responder)
        for _ in 0..<3 { #expect(pair.receive(pair.send(packet)).count == 1) }
        #expect(confirmations(pair).count == (isRightResponder ? 1 : 0))
    }

    @Test("what stands behind the inner packet is cut off, be it zeros or not", arguments: [false, true])
    func trimmed(isVersion6: Bool) throws {
        let inner =
            isVersion6
            ? InnerPackets.udp(from: InnerPackets.left6, to: InnerPackets.right6, payload: [1, 2, 3]) : packet
        var pair = DatapathPair()
        let keypair = try #require(pair.left.keypair)
        for tail in [[], [0], [1, 2, 3], [UInt8](repeating: 0x45, count: 40)] as [[UInt8]] {
            let written = pair.receive(try #require(keypair.seal(inner + tail, mtu: 1420)))
            #expect(written.map(\.packet) == [inner])
        }
    }
}
