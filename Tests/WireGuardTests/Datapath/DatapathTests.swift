import Testing

@testable import WireGuard

@Suite("The packet's way")
struct DatapathTests {
    static let families: [(IPAddress, IPAddress)] = [
        (InnerPackets.left4, InnerPackets.right4), (InnerPackets.left6, InnerPackets.right6),
    ]

    @Test("a packet goes through unchanged", arguments: [0, 1, 15, 16, 17, 700, 1372, 1392])
    func roundTrip(size: Int) {
        var pair = DatapathPair()
        for (source, destination) in Self.families {
            let packet = InnerPackets.udp(from: source, to: destination, payload: InnerPackets.payload(size))
            let sent = pair.send(packet)
            #expect(sent.count == 1)
            #expect((sent[0].datagram.count - 32) % 16 == 0 || sent[0].datagram.count - 32 == 1420)
            #expect(pair.receive(sent).map(\.packet) == [packet])
        }
        #expect(pair.left.drops.snapshot.isEmpty)
        #expect(pair.right.drops.snapshot.isEmpty)
    }

    @Test("padding never goes past the MTU", arguments: [(1419, 1420), (1420, 1420), (1500, 1500), (5, 16)])
    func padding(count: Int, padded: Int) {
        #expect(paddedLength(count, mtu: 1420) == padded)
    }

    @Test("a TCP superpacket is split into segments with right headers", arguments: [0, 1])
    func tcpSegmentation(which: Int) {
        let (source, destination) = Self.families[which]
        var pair = DatapathPair(offloads: false)
        let payload = InnerPackets.payload(5000)
        let timestamps: [UInt8] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]
        // FIN, PSH, ACK and CWR.
        let whole = InnerPackets.tcp(
            from: source, to: destination, sequence: 0xffff_fff0, flags: 0x99, payload: payload,
            options: timestamps)
        let (sent, _) = pair.send([(whole, .tcp(source.family, segment: 1300))])
        #expect(sent.count == 1)
        #expect(sent[0].segmentSize > 1300)
        // Without the virtio header what is written is the packet: put back the ten bytes that were taken
        // off.
        let written = pair.receiveRaw(sent)
        #expect(written.count == 4)
        let header = source.family == .v4 ? 20 : 40
        var collected: [UInt8] = []
        for (number, packet) in written.enumerated() {
            #expect(InnerPackets.isIntact(packet))
            if source.family == .v4 {
                #expect(packet[4..<6] == InnerPackets.bigEndian(UInt16(7 + number))[...])
            }
            let sequence = InnerPackets.bigEndian(0xffff_fff0 &+ UInt32(number * 1300))
            #expect(Array(packet[header + 4..<header + 8]) == sequence)
            let flags = packet[header + 13]
            #expect(flags == (number == 0 ? 0x90 : number == 3 ? 0x19 : 0x10))
            collected += packet[(header + 32)...]
        }
        #expect(collected == payload)
    }

    @Test("a UDP superpacket is split into datagrams", arguments: [0, 1])
    func udpSegmentation(which: Int) {
        let (source, destination) = Self.families[which]
        var pair = DatapathPair(offloads: false)
        let payload = InnerPackets.payload(3001)
        let whole = InnerPackets.udp(from: source, to: destination, payload: payload)
        let (sent, _) = pair.send([(whole, .udp(source.family, segment: 1000))])
        let written = pair.receiveRaw(sent)
        #expect(written.count == 4)
        #expect(written.allSatisfy(InnerPackets.isIntact))
        #expect(written.flatMap { $0.dropFirst(source.family == .v4 ? 28 : 48) } == payload)
    }

    @Test("segments are put together again on the other side", arguments: [0, 1], [true, false])
    func coalescing(which: Int, isTCP: Bool) throws {
        let (source, destination) = Self.families[which]
        var pair = DatapathPair()
        let payload = InnerPackets.payload(6100)
        let whole =
            isTCP
            ? InnerPackets.tcp(from: source, to: destination, flags: 0x18, payload: payload)
            : InnerPackets.udp(from: source, to: destination, payload: payload)
        let offload =
            isTCP ? VirtioNetHeader.tcp(source.family, segment: 1000) : .udp(source.family, segment: 1000)
        let written = pair.receive(pair.send([(whole, offload)]).sent)
        #expect(written.count == 1)
        let first = try #require(written.first)
        let header = try #require(first.header)
        #expect(header.segmentation == offload.segmentation)
        #expect(header.segmentSize == 1000)
        #expect(header.checksumStart == offload.checksumStart)
        #expect(header.checksumOffset == offload.checksumOffset)
        #expect(header.flags == VirtioNetHeader.Flag.needsChecksum)
        // All but the transport checksum, which is the pseudo-header's sum for the kernel to finish.
        let field = Int(header.checksumStart + header.checksumOffset)
        var finished = first.packet
        let transport = Array(finished[Int(header.checksumStart)...])
        #expect(InnerPackets.internetChecksum(transport) != 0 || payload.isEmpty)
        finished.replaceSubrange(field..<field + 2, with: whole[field..<field + 2])
        #expect(finished == whole)
        let sum = ~InnerPackets.internetChecksum(
            source.bytes + destination.bytes + [0, isTCP ? 6 : 17]
                + InnerPackets.bigEndian(UInt16(transport.count)))
        #expect(Array(first.packet[field..<field + 2]) == InnerPackets.bigEndian(sum))
    }

    @Test("a segment with a wrong checksum reaches the receiver as it came, alone")
    func wrongChecksum() {
        var pair = DatapathPair()
        let first = InnerPackets.tcp(sequence: 0, payload: InnerPackets.payload(100))
        var second = InnerPackets.tcp(sequence: 100, payload: InnerPackets.payload(100))
        second[second.count - 1] ^= 1
        let third = InnerPackets.tcp(sequence: 200, payload: InnerPackets.payload(100))
        let sent = pair.send([first, second, third].map { ($0, VirtioNetHeader()) }).sent
        let written = pair.receive(sent)
        #expect(written.map(\.packet) == [first, second, third])
        #expect(written.map { $0.header?.flags } == [2, 0, 2])
    }

    @Test("a wrong IPv4 header checksum is passed on as it came, not repaired")
    func wrongHeaderChecksum() {
        var pair = DatapathPair()
        let first = InnerPackets.tcp(sequence: 0, payload: InnerPackets.payload(100))
        var second = InnerPackets.tcp(sequence: 100, payload: InnerPackets.payload(100))
        second[10] ^= 0xff
        let third = InnerPackets.tcp(sequence: 200, payload: InnerPackets.payload(100))
        let sent = pair.send([first, second, third].map { ($0, VirtioNetHeader()) }).sent
        #expect(pair.receive(sent).map(\.packet) == [first, second, third])
    }

    @Test("what does not belong together stays apart, in order")
    func notCoalesced() {
        let base = InnerPackets.tcp(sequence: 0, payload: InnerPackets.payload(100))
        let others: [[UInt8]] = [
            InnerPackets.tcp(sequence: 101, payload: InnerPackets.payload(100)),
            InnerPackets.tcp(sequence: 100, payload: InnerPackets.payload(101)),
            InnerPackets.tcp(sequence: 100, payload: InnerPackets.payload(100), tos: 4),
            InnerPackets.tcp(sequence: 100, flags: 0x11, payload: InnerPackets.payload(100)),
            InnerPackets.tcp(sequence: 100, flags: 0x50, payload: InnerPackets.payload(100)),
            InnerPackets.tcp(sequence: 100, flags: 0x10, payload: []),
            InnerPackets.tcp(sequence: 100, payload: InnerPackets.payload(100), options: [1, 1, 1, 1]),
            InnerPackets.tcp(sequence: 100, payload: InnerPackets.payload(100), sourcePort: 40001),
        ]
        for other in others {
            var pair = DatapathPair()
            let sent = pair.send([(base, VirtioNetHeader()), (other, VirtioNetHeader())]).sent
            #expect(pair.receive(sent).map(\.packet) == [base, other])
        }
    }

    @Test("up to eight interleaved flows are each put together; more lose nothing", arguments: [1, 8, 9, 20])
    func manyFlows(flows: Int) {
        var pair = DatapathPair()
        var packets: [[UInt8]] = []
        for round in 0..<3 {
            for flow in 0..<flows {
                packets.append(
                    InnerPackets.tcp(
                        sequence: UInt32(round * 50), payload: InnerPackets.payload(50, seed: UInt8(flow)),
                        sourcePort: 1000 + UInt16(flow)))
            }
        }
        let written = pair.receive(pair.send(packets.map { ($0, VirtioNetHeader()) }).sent)
        let bytes = written.map { $0.packet.count - 40 }.reduce(0, +)
        #expect(bytes == flows * 3 * 50)
        if flows <= 8 { #expect(written.count == flows) }
        for flow in 0..<flows {
            let port = InnerPackets.bigEndian(1000 + UInt16(flow))
            let payload = written.filter { Array($0.packet[20..<22]) == port }.flatMap {
                $0.packet.dropFirst(40)
            }
            #expect(payload == (0..<3).flatMap { _ in InnerPackets.payload(50, seed: UInt8(flow)) })
        }
    }

    @Test("an unfinished checksum is finished before sealing")
    func partialChecksum() {
        var pair = DatapathPair()
        var packet = InnerPackets.udp(payload: InnerPackets.payload(99))
        let whole = packet
        let pseudo = ~InnerPackets.internetChecksum(
            InnerPackets.left4.bytes + InnerPackets.right4.bytes + [0, 17]
                + InnerPackets.bigEndian(UInt16(107)))
        packet.replaceSubrange(26..<28, with: InnerPackets.bigEndian(pseudo))
        var offload = VirtioNetHeader()
        offload.flags = VirtioNetHeader.Flag.needsChecksum
        offload.checksumStart = 20
        offload.checksumOffset = 6
        #expect(pair.receive(pair.send([(packet, offload)]).sent).map(\.packet) == [whole])
    }

    @Test("offload headers that lie are dropped under their name")
    func lyingOffloads() {
        var pair = DatapathPair()
        let packet = InnerPackets.tcp(payload: InnerPackets.payload(3000))
        var lies: [VirtioNetHeader] = []
        for change in [
            { (h: inout VirtioNetHeader) in h.segmentSize = 0 },
            { $0.checksumStart = 60_000 }, { $0.checksumStart = 3 }, { $0.checksumOffset = 6 },
            { $0.segmentation = VirtioNetHeader.Segmentation.tcp6 }, { $0.segmentation = 77 },
            { $0.flags = 0 },
        ] {
            var header = VirtioNetHeader.tcp(.v4, segment: 1000)
            change(&header)
            lies.append(header)
        }
        for lie in lies { #expect(pair.send([(packet, lie)]).sent.isEmpty) }
        #expect(pair.left.drops[.outboundOffloadInvalid] == UInt64(lies.count))
    }

    @Test("segments of one byte do not overrun the send buffer")
    func tinySegments() {
        var pair = DatapathPair()
        let packet = InnerPackets.tcp(payload: InnerPackets.payload(60_000))
        let (sent, _) = pair.send([(packet, .tcp(.v4, segment: 1))])
        #expect(sent.map(\.datagram.count).reduce(0, +) <= 1 << 20)
        #expect(pair.left.drops[.outboundOffloadInvalid] > 0)
    }

    @Test("malformed packets from the TUN are counted, and nothing is sent")
    func malformedOutbound() {
        var pair = DatapathPair()
        let packet = InnerPackets.udp(payload: InnerPackets.payload(40))
        for count in 0..<28 { #expect(pair.send(Array(packet[..<count])).isEmpty) }
        #expect(pair.left.drops[.outboundMalformed] == 28)
        var version5 = packet
        version5[0] = 0x55
        #expect(pair.send(version5).isEmpty)
        var lying = packet
        lying[2] = 0xff
        #expect(pair.send(lying).isEmpty)
        #expect(pair.left.drops[.outboundMalformed] == 30)
    }

    @Test(
        "a packet without a tunnel is answered with ICMP unreachable, at most a hundred a second",
        arguments: [0, 1])
    func unreachable(which: Int) throws {
        let (source, _) = Self.families[which]
        let elsewhere = source.family == .v4 ? IPAddress("172.16.0.9")! : IPAddress("fd00:9::9")!
        var pair = DatapathPair()
        let packet = InnerPackets.udp(from: source, to: elsewhere, payload: InnerPackets.payload(64))
        let (sent, replies) = pair.send([(packet, VirtioNetHeader())])
        #expect(sent.isEmpty)
        let reply = try #require(replies.first)
        if source.family == .v4 {
            #expect(Array(reply[20..<22]) == [3, 1])
            #expect(InnerPackets.internetChecksum(Array(reply[..<20])) == 0)
            #expect(InnerPackets.internetChecksum(Array(reply[20...])) == 0)
            #expect(Array(reply[28...]) == packet)
        } else {
            #expect(Array(reply[40..<42]) == [1, 3])
            #expect(InnerPackets.isIntact(reply))
            #expect(Array(reply[48...]) == packet)
        }
        var answered = 1
        for _ in 0..<5 {
            answered += pair.send((0..<60).map { _ in (packet, VirtioNetHeader()) }).replies.count
        }
        #expect(answered == 100)
        #expect(pair.left.drops[.noRoute] == 301)
    }

    @Test("no answer is given to an ICMP error")
    func unreachableForError() {
        var pair = DatapathPair()
        let error = InnerPackets.ip(
            from: InnerPackets.left4, to: IPAddress("172.16.0.9")!, transport: 1,
            body: [3, 1, 0, 0] + [0, 0, 0, 0])
        #expect(pair.send([(error, VirtioNetHeader())]).replies.isEmpty)
    }

    @Test("a packet for a peer without an endpoint is answered with ICMP unreachable too", arguments: [0, 1])
    func unreachableWithoutEndpoint(which: Int) throws {
        let (source, destination) = Self.families[which]
        var pair = DatapathPair()
        pair.left.path.setUnderlay(nil)
        let packet = InnerPackets.udp(from: source, to: destination, payload: InnerPackets.payload(64))
        let (sent, replies) = pair.send([(packet, VirtioNetHeader())])
        #expect(sent.isEmpty)
        let reply = try #require(replies.first)
        #expect(Array(reply.suffix(packet.count)) == packet)
        #expect(reply[source.family == .v4 ? 20 : 40] == (source.family == .v4 ? 3 : 1))
        #expect(pair.left.drops.snapshot == [.noEndpoint: 1])
        #expect(pair.left.events(pair.left.outboundEvents).isEmpty)
    }

    @Test(
        "our own outer packet is not sealed again when a route leads it back into its tunnel",
        arguments: [0, 1])
    func routingLoop(which: Int) throws {
        let (source, destination) = Self.families[which]
        var pair = DatapathPair()
        let message = try #require(
            pair.send(InnerPackets.udp(from: source, to: destination, payload: [1, 2, 3])).first
        ).datagram
        func outer(_ payload: [UInt8]) -> [UInt8] {
            InnerPackets.udp(from: source, to: destination, payload: payload)
        }
        #expect(pair.send(outer(message)).isEmpty)
        #expect(pair.left.drops.snapshot == [.routingLoop: 1])
        // The first fragment of a longer one. The second is not known for ours, but once sealed it is short.
        if source.family == .v6 {
            let fragment = InnerPackets.ip(
                from: source, to: destination, transport: 44,
                body: [17, 0, 0, 1, 0, 0, 0, 9] + outer(message)[40...])
            #expect(pair.send(fragment).isEmpty)
            #expect(pair.left.drops[.routingLoop] == 2)
        }
        // Somebody else's tunnel inside ours is a packet like any other.
        var another = message
        another[4] ^= 1
        for payload in [another, Array(message[..<15]), [1, 0, 0, 0] + message[4...]] {
            #expect(pair.receive(pair.send(outer(payload))).map(\.packet) == [outer(payload)])
        }
    }

    @Test("without a keypair the packet goes to control; without an endpoint it is refused")
    func staging() {
        var pair = DatapathPair()
        pair.left.path.publish(sending: nil)
        let packet = InnerPackets.udp(payload: InnerPackets.payload(64))
        #expect(pair.send(packet).isEmpty)
        guard case .stage(let peer, let staged)? = pair.left.events(pair.left.outboundEvents).first else {
            Issue.record("nothing was staged")
            return
        }
        #expect(peer == PeerID(0))
        #expect(staged == packet)
        pair.left.path.setUnderlay(nil)
        #expect(pair.send(packet).isEmpty)
        #expect(pair.left.drops[.noEndpoint] == 1)
    }

    @Test("a flood into a tunnel without a session costs control 256 packets in 100 ms, and is counted")
    func stagingCredit() {
        var pair = DatapathPair()
        pair.left.path.publish(sending: nil)
        let packet = InnerPackets.udp(payload: InnerPackets.payload(64))
        /// How many of these packets control gets.
        func flood(_ count: Int) -> Int {
            for _ in 0..<count { _ = pair.send(packet) }
            return pair.left.events(pair.left.outboundEvents).count {
                if case .stage = $0 { true } else { false }
            }
        }
        var staged = 0
        for _ in 0..<100 { staged += flood(100) }
        #expect(staged == 256)
        #expect(pair.left.drops.snapshot == [.stagedQueueFull: 10_000 - 256])
        pair.now = pair.now + .milliseconds(99)
        #expect(flood(1) == 0)
        // A second of it.
        staged = 0
        for _ in 0..<1000 {
            pair.now = pair.now + .milliseconds(1)
            staged += flood(10)
        }
        #expect((2500...2600).contains(staged))
    }

    @Test("a key is refused when its time or its count is over, before any counter repeats")
    func expiry() {
        var young = DatapathPair()
        let packet = InnerPackets.udp(payload: InnerPackets.payload(64))
        young.now = young.now + .seconds(180)
        #expect(young.send(packet).isEmpty)
        var old = DatapathPair(firstCounter: Protocol.rejectAfterMessages - 2)
        #expect(old.send(packet).count == 1)
        #expect(old.send(packet).count == 1)
        for _ in 0..<3 { #expect(old.send(packet).isEmpty) }
        #expect(old.left.keypair?.sendCounter == Protocol.rejectAfterMessages)
    }

    @Test(
        "the initiator's old key asks for a new one; the responder's does not",
        arguments: [Role.initiator, .responder])
    func rekey(role: Role) {
        var pair = DatapathPair(leftRole: role)
        pair.now = pair.now + .seconds(119)
        let packet = InnerPackets.udp(payload: InnerPackets.payload(64))
        func asks(_ events: [DatapathEvent]) -> Int {
            events.count { if case .rekeyDue = $0 { true } else { false } }
        }
        _ = pair.send(packet)
        #expect(asks(pair.left.events(pair.left.outboundEvents)) == 0)
        pair.now = pair.now + .seconds(1)
        _ = pair.send(packet)
        _ = pair.send(packet)
        #expect(asks(pair.left.events(pair.left.outboundEvents)) == (role == .initiator ? 1 : 0))
    }

    @Test("first data is told once until disarmed")
    func firstData() {
        var pair = DatapathPair()
        let packet = InnerPackets.udp(payload: InnerPackets.payload(64))
        func count(_ events: [DatapathEvent]) -> Int {
            events.count {
                switch $0 {
                case .dataSent, .dataReceived: true
                default: false
                }
            }
        }
        for _ in 0..<3 { _ = pair.receive(pair.send(packet)) }
        #expect(count(pair.left.events(pair.left.outboundEvents)) == 1)
        #expect(count(pair.right.events(pair.right.inboundEvents)) == 1)
        pair.left.path.disarmDataSent()
        pair.right.path.disarmDataReceived()
        _ = pair.receive(pair.send(packet))
        #expect(count(pair.left.events(pair.left.outboundEvents)) == 1)
        #expect(count(pair.right.events(pair.right.inboundEvents)) == 1)
    }
}

extension DatapathPair {
    /// For a TUN without a virtio header: what is written is the packet and nothing else.
    mutating func receiveRaw(_ datagrams: [Sent]) -> [[UInt8]] {
        inbound.begin(table: right.table, now: now)
        var written: [[UInt8]] = []
        for var datagram in datagrams {
            unsafe datagram.datagram.withUnsafeMutableBytes { bytes in
                unsafe inbound.add(
                    bytes.baseAddress!, count: bytes.count, segmentSize: datagram.segmentSize,
                    from: Self.leftUnderlay)
                while let slices = unsafe inbound.nextWrite() {
                    let slice = unsafe slices[0]
                    unsafe written.append(
                        Array(UnsafeRawBufferPointer(start: slice.base, count: slice.count)))
                }
            }
        }
        inbound.written()
        inbound.finish()
        return written
    }
}
