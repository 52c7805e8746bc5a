import Testing

@testable import WireGuard

@Suite("The path MTU in the packet's way")
struct PathMTUTests {
    private static let families = DatapathTests.families
    private static let mss1460: [UInt8] = [2, 4, 0x05, 0xb4]

    /// Without DF.
    private func fragmentable(_ packet: [UInt8]) -> [UInt8] {
        var packet = packet
        packet[6] = 0
        return InnerPackets.finished4(packet)
    }

    private func length(_ packet: [UInt8]) -> Int {
        packet[0] >> 4 == 4
            ? Int(packet[2]) << 8 | Int(packet[3]) : 40 + Int(packet[4]) << 8 + Int(packet[5])
    }

    @Test("a TCP superpacket is segmented finer, and nobody is told", arguments: [0, 1])
    func tcpSuperpacket(which: Int) {
        let (source, destination) = Self.families[which]
        var pair = DatapathPair(offloads: false)
        pair.left.ask(innerMTU: 1000)
        let payload = InnerPackets.payload(5000)
        let whole = InnerPackets.tcp(from: source, to: destination, sequence: 77, payload: payload)
        let (sent, replies) = pair.send([(whole, .tcp(source.family, segment: 1300))])
        let written = pair.receiveRaw(sent)
        let header = source.family == .v4 ? 40 : 60
        #expect(written.count == (5000 + 999 - header) / (1000 - header))
        #expect(written.allSatisfy { $0.count <= 1000 && InnerPackets.isIntact($0) })
        #expect(written.flatMap { $0.dropFirst(header) } == payload)
        for (number, packet) in written.enumerated() {
            let sequence = InnerPackets.bigEndian(UInt32(77 + number * (1000 - header)))
            #expect(Array(packet[header - 16..<header - 12]) == sequence)
        }
        #expect(replies.isEmpty)
        #expect(pair.left.drops.snapshot.isEmpty)
    }

    @Test("a superpacket whose segments fit stays as it is")
    func fitting() {
        var pair = DatapathPair(offloads: false)
        pair.left.ask(innerMTU: 1340)
        let whole = InnerPackets.tcp(payload: InnerPackets.payload(5200))
        let written = pair.receiveRaw(pair.send([(whole, .tcp(.v4, segment: 1300))]).sent)
        #expect(written.map(\.count) == [1340, 1340, 1340, 1340])
    }

    @Test("the sender of a packet that must not be fragmented is told what passes", arguments: [0, 1])
    func packetTooBig(which: Int) throws {
        let (source, destination) = Self.families[which]
        var pair = DatapathPair()
        pair.left.ask(innerMTU: 1300)
        for isTCP in [true, false] {
            let payload = InnerPackets.payload(1301 - (which == 0 ? 40 : 60))
            let packet =
                isTCP
                ? InnerPackets.tcp(from: source, to: destination, payload: payload)
                : InnerPackets.udp(from: source, to: destination, payload: payload + payload.prefix(12))
            let (sent, replies) = pair.send([(packet, VirtioNetHeader())])
            #expect(sent.isEmpty)
            let reply = try #require(replies.first)
            if which == 0 {
                #expect(Array(reply[20..<22]) == [3, 4])
                #expect(Array(reply[26..<28]) == InnerPackets.bigEndian(UInt16(1300)))
                #expect(Array(reply[28...]) == Array(packet[..<520]))
            } else {
                #expect(Array(reply[40..<42]) == [2, 0])
                #expect(Array(reply[44..<48]) == InnerPackets.bigEndian(UInt32(1300)))
            }
        }
        #expect(pair.left.drops.snapshot == [.outboundTooBig: 2])
    }

    @Test("while a search goes on, nobody is told what he would keep to for minutes")
    func passing() {
        var pair = DatapathPair()
        pair.left.ask(innerMTU: 576)
        pair.left.path.setInnerMTUPassing(true)
        let packet = InnerPackets.udp(payload: InnerPackets.payload(1200))
        let (sent, replies) = pair.send([(packet, VirtioNetHeader())])
        #expect(sent.isEmpty && replies.isEmpty)
        #expect(pair.left.drops.snapshot == [.outboundTooBig: 1])
        pair.left.path.setInnerMTUPassing(false)
        #expect(pair.send([(packet, VirtioNetHeader())]).replies.count == 1)
    }

    @Test(
        "what every IPv6 link must carry goes in outer fragments where the path carries less, and no more does"
    )
    func minimumOfIPv6() throws {
        let (source, destination) = Self.families[1]
        var pair = DatapathPair(offloads: false)
        pair.left.ask(innerMTU: 1200)
        func packet(_ count: Int) -> [UInt8] {
            InnerPackets.udp(from: source, to: destination, payload: InnerPackets.payload(count - 48))
        }
        let sizes = [1200, 1201, 1280, 1280, 1200, 1281]
        let (sent, replies) = pair.send(sizes.map { (packet($0), VirtioNetHeader()) })
        #expect(sent.map(\.mayFragment) == [false, true, true, true, false])
        #expect(sent.filter(\.mayFragment).allSatisfy { $0.datagram.count == $0.segmentSize })
        let written = pair.receiveRaw(sent)
        #expect(written.map(\.count) == sizes.dropLast() && written.allSatisfy(InnerPackets.isIntact))
        let reply = try #require(replies.first)
        #expect(replies.count == 1)
        #expect(Array(reply[44..<48]) == InnerPackets.bigEndian(UInt32(1280)))
        #expect(pair.left.drops.snapshot == [.outboundTooBig: 1])

        let whole = InnerPackets.udp(
            from: source, to: destination, payload: InnerPackets.payload(2 * 1232 + 100))
        let pieces = pair.send([(whole, .udp(.v6, segment: 1232))]).sent
        #expect(pieces.map(\.mayFragment) == [true, true, false])
        #expect(pair.receiveRaw(pieces).map(\.count) == [1280, 1280, 148])

        // Nobody would fragment it on the way.
        pair.left.path.setUnderlay(
            UnderlayPath(endpoint: Endpoint(address: IPAddress("2001:db8::2")!, port: 51820)))
        let (none, answers) = pair.send([(packet(1280), VirtioNetHeader())])
        #expect(none.isEmpty && answers.count == 1)
        #expect(pair.left.drops.snapshot == [.outboundTooBig: 2])
    }

    @Test("a packet that may be fragmented goes in fragments that fit")
    func fragments() {
        var pair = DatapathPair()
        pair.left.ask(innerMTU: 600)
        let packet = fragmentable(InnerPackets.udp(payload: InnerPackets.payload(1372)))
        let (sent, replies) = pair.send([(packet, VirtioNetHeader())])
        let written = pair.receive(sent).map(\.packet)
        #expect(written.map(\.count) == [596, 596, 248])
        #expect(written.flatMap { $0.dropFirst(20) } == Array(packet[20...]))
        #expect(replies.isEmpty)
        #expect(pair.left.drops.snapshot.isEmpty && pair.right.drops.snapshot.isEmpty)
    }

    @Test(
        "datagrams of a superpacket that are too long are told of once, and counted each", arguments: [0, 1])
    func udpSuperpacket(which: Int) throws {
        let (source, destination) = Self.families[which]
        var pair = DatapathPair()
        pair.left.ask(innerMTU: 1280)
        let whole = InnerPackets.udp(
            from: source, to: destination, payload: InnerPackets.payload(3 * 1300 + 400))
        let (sent, replies) = pair.send([(whole, .udp(source.family, segment: 1300))])
        // The last one is short enough.
        #expect(pair.receive(sent).map { length($0.packet) } == [400 + (which == 0 ? 28 : 48)])
        #expect(replies.count == 1)
        // It quotes the first of them as it would have been.
        let quoted = Array(try #require(replies.first).dropFirst(which == 0 ? 28 : 48))
        #expect(length(quoted) == 1300 + (which == 0 ? 28 : 48))
        #expect(pair.left.drops.snapshot == [.outboundTooBig: 3])
    }

    @Test("datagrams of a superpacket that may be fragmented go in fragments")
    func udpFragments() {
        var pair = DatapathPair()
        pair.left.ask(innerMTU: 1000)
        let payload = InnerPackets.payload(2600)
        let whole = fragmentable(InnerPackets.udp(payload: payload))
        let written = pair.receive(pair.send([(whole, .udp(.v4, segment: 1300))]).sent).map(\.packet)
        #expect(written.map(\.count) == [996, 352, 996, 352])
        #expect(written.flatMap { $0.dropFirst($0[7] == 0 ? 28 : 20) } == payload)
        #expect(pair.left.drops.snapshot.isEmpty)
    }

    @Test(
        "the MSS of a connection is lowered whichever end opens it", arguments: [0, 1],
        [0x02, 0x12] as [UInt8])
    func segmentSize(which: Int, flags: UInt8) {
        let (source, destination) = Self.families[which]
        let header = which == 0 ? 40 : 60
        func packet(_ mss: Int) -> [UInt8] {
            InnerPackets.tcp(
                from: source, to: destination, flags: flags, payload: [],
                options: [2, 4] + InnerPackets.bigEndian(UInt16(mss)))
        }
        let lowered = packet(1300 - header)
        var partial = VirtioNetHeader()
        partial.flags = VirtioNetHeader.Flag.needsChecksum
        partial.checksumStart = UInt16(header - 20)
        partial.checksumOffset = 16
        for (isOut, isIn) in [(true, false), (false, true)] {
            var pair = DatapathPair()
            if isOut { pair.left.ask(innerMTU: 1300) }
            if isIn { pair.right.ask(innerMTU: 1300) }
            #expect(pair.receive(pair.send(packet(1460))).map(\.packet) == [lowered])
            let unfinished = InnerPackets.partial(packet(1460), field: 16)
            #expect(pair.receive(pair.send([(unfinished, partial)]).sent).map(\.packet) == [lowered])
        }
    }

    @Test("padding stays below the path MTU")
    func padding() {
        var pair = DatapathPair()
        pair.left.ask(innerMTU: 1003)
        let packet = InnerPackets.udp(payload: InnerPackets.payload(1001 - 28))
        let sent = pair.send(packet)
        #expect(sent.map(\.datagram.count) == [1003 + 32])
        #expect(pair.receive(sent).map(\.packet) == [packet])
    }

    @Test("a message that the socket refuses is told of twice a second at most")
    func refused() {
        var pair = DatapathPair()
        var told = 0
        for _ in 0..<20 {
            pair.outbound.begin(table: pair.left.table, now: pair.now)
            var packet = InnerPackets.udp(payload: [1]) + [UInt8](repeating: 0, count: 16)
            unsafe packet.withUnsafeMutableBytes { bytes in
                unsafe pair.outbound.add(
                    bytes.baseAddress!, count: bytes.count - 16, offload: VirtioNetHeader())
            }
            pair.outbound.runWasTooBig(pair.outbound.run(0))
            pair.outbound.runWasTooBig(pair.outbound.run(0))
            pair.outbound.sent()
            pair.outbound.finish()
            pair.now = pair.now + .milliseconds(100)
            told += pair.left.events(pair.left.outboundEvents).count {
                if case .sendTooBig(PeerID(0)) = $0 { true } else { false }
            }
        }
        #expect(told == 4)
    }
}
