import Testing

@testable import WireGuard

@Suite("Translated prefixes in the packet's way")
struct TranslationPathTests {
    private static let translation = PrefixTranslation([
        PrefixTranslation.Pair(inside: IPPrefix("10.1.0.0/16")!, outside: IPPrefix("10.99.0.0/16")!)!,
        PrefixTranslation.Pair(inside: IPPrefix("fd00:1::/64")!, outside: IPPrefix("fd00:99::/64")!)!,
    ])
    private static let outside: [IPAddress] = [IPAddress("10.99.0.2")!, IPAddress("fd00:99::2")!]
    private static let families = DatapathTests.families

    /// The right one knows the left one's hosts by their outside numbers.
    private func pair(innerMTU: Int = 0) -> DatapathPair {
        let pair = DatapathPair()
        pair.left.ask(translation: Self.translation, innerMTU: innerMTU)
        pair.right.table = ForwardingTable(
            connections: [
                ForwardingTable.Connection(
                    prefixes: [IPPrefix("10.99.0.0/16")!, IPPrefix("fd00:99::/64")!],
                    paths: [pair.right.path])
            ], mtu: 1420)
        return pair
    }

    @Test("a packet leaves as from outside, with or without its checksum finished", arguments: [0, 1])
    func outbound(which: Int) {
        let (source, destination) = Self.families[which]
        var pair = pair()
        let expected = InnerPackets.tcp(
            from: Self.outside[which], to: destination, payload: InnerPackets.payload(77))
        let packet = InnerPackets.tcp(from: source, to: destination, payload: InnerPackets.payload(77))
        #expect(pair.receive(pair.send(packet)).map(\.packet) == [expected])
        var partial = VirtioNetHeader()
        partial.flags = VirtioNetHeader.Flag.needsChecksum
        partial.checksumStart = which == 0 ? 20 : 40
        partial.checksumOffset = 16
        let sent = pair.send([(InnerPackets.partial(packet, field: 16), partial)]).sent
        #expect(pair.receive(sent).map(\.packet) == [expected])
    }

    @Test("each segment of a superpacket leaves as from outside", arguments: [0, 1], [true, false])
    func superpackets(which: Int, isTCP: Bool) {
        let (source, destination) = Self.families[which]
        var pair = pair()
        let payload = InnerPackets.payload(3500)
        let whole =
            isTCP
            ? InnerPackets.tcp(from: source, to: destination, payload: payload)
            : InnerPackets.udp(from: source, to: destination, payload: payload)
        let offload =
            isTCP ? VirtioNetHeader.tcp(source.family, segment: 1000) : .udp(source.family, segment: 1000)
        let written = pair.receive(pair.send([(whole, offload)]).sent)
        // The far end joins what has right checksums.
        #expect(written.count == 1)
        let range = which == 0 ? 12..<16 : 8..<24
        #expect(Array(written[0].packet[range]) == Self.outside[which].bytes)
        #expect(Array(written[0].packet.suffix(3500)) == payload)
        #expect(pair.right.drops.snapshot.isEmpty)
    }

    @Test("a packet to an outside number arrives at the host inside", arguments: [0, 1])
    func inbound(which: Int) {
        let (far, here) = (Self.families[which].0, Self.families[which].1)
        var pair = DatapathPair()
        // The right one translates now: 10.2 is 10.98 to the left one.
        let there = which == 0 ? IPAddress("10.98.0.2")! : IPAddress("fd00:98::2")!
        pair.right.ask(
            translation: PrefixTranslation([
                PrefixTranslation.Pair(inside: IPPrefix("10.2.0.0/16")!, outside: IPPrefix("10.98.0.0/16")!)!,
                PrefixTranslation.Pair(inside: IPPrefix("fd00:2::/64")!, outside: IPPrefix("fd00:98::/64")!)!,
            ]))
        pair.left.table = ForwardingTable(
            connections: [
                ForwardingTable.Connection(
                    prefixes: [IPPrefix("10.98.0.0/16")!, IPPrefix("fd00:98::/64")!], paths: [pair.left.path])
            ], mtu: 1420)
        let packet = InnerPackets.tcp(from: far, to: there, payload: InnerPackets.payload(50))
        let expected = InnerPackets.tcp(from: far, to: here, payload: InnerPackets.payload(50))
        #expect(pair.receive(pair.send(packet)).map(\.packet) == [expected])
        // Joined after it was translated.
        let whole = InnerPackets.tcp(from: far, to: there, payload: InnerPackets.payload(4000))
        let written = pair.receive(pair.send([(whole, .tcp(far.family, segment: 1000))]).sent)
        #expect(written.count == 1)
        let range = which == 0 ? 16..<20 : 24..<40
        #expect(Array(written[0].packet[range]) == here.bytes)
    }

    @Test("its sender is answered about the packet that it knows", arguments: [0, 1])
    func quoted(which: Int) throws {
        let (source, destination) = Self.families[which]
        var pair = pair(innerMTU: 1280)
        let packet = InnerPackets.udp(
            from: source, to: destination, payload: InnerPackets.payload(1300))
        let (sent, replies) = pair.send([(packet, VirtioNetHeader())])
        #expect(sent.isEmpty)
        let reply = try #require(replies.first)
        let (ip, end) = which == 0 ? (28, 20) : (48, 40)
        #expect(Array(reply[ip...].prefix(520)) == Array(packet[..<520]))
        #expect(Array(reply[(end - (which == 0 ? 4 : 16))..<end]) == source.bytes)
    }

    @Test("fragments that are made here are translated, each")
    func fragments() {
        var pair = pair(innerMTU: 600)
        var packet = InnerPackets.udp(payload: InnerPackets.payload(1000))
        packet[6] = 0
        packet = InnerPackets.finished4(packet)
        let written = pair.receive(pair.send(packet)).map(\.packet)
        #expect(written.count == 2)
        for piece in written {
            #expect(Array(piece[12..<16]) == Self.outside[0].bytes)
            #expect(InnerPackets.internetChecksum(Array(piece[..<20])) == 0)
        }
        // Put together again they are what would have gone whole.
        let whole = InnerPackets.udp(
            from: Self.outside[0], to: InnerPackets.right4, payload: InnerPackets.payload(1000))
        #expect(written.flatMap { $0.dropFirst(20) } == Array(whole[20...]))
    }

    @Test("who speaks to the far end of an inside link is not translated, and neither is the answer")
    func insideLink() {
        let link = InsideLink(local: IPAddress("10.1.255.1")!, remote: IPAddress("10.1.255.2")!)
        var bundle = TunnelBundle([link])
        bundle.table = ForwardingTable(
            connections: [
                ForwardingTable.Connection(
                    prefixes: [IPPrefix("10.2.0.0/16")!], paths: bundle.paths, translation: Self.translation)
            ], mtu: 1420)
        let ours = InnerPackets.udp(from: link.local, to: link.remote, payload: [1, 2, 3])
        #expect(bundle.send([ours]).map(\.packet) == [ours])
        let theirs = InnerPackets.udp(from: link.remote, to: IPAddress("10.99.0.2")!, payload: [4])
        #expect(bundle.receive([theirs], by: 0) == [theirs])
        let site = InnerPackets.udp(
            from: InnerPackets.right4, to: IPAddress("10.99.255.1")!, payload: [5])
        let translated = InnerPackets.udp(from: InnerPackets.right4, to: link.local, payload: [5])
        #expect(bundle.receive([site], by: 0) == [translated])
    }

    @Test("a packet is staged as from outside")
    func staged() throws {
        var pair = pair()
        pair.left.path.publish(sending: nil)
        _ = pair.send(InnerPackets.udp(payload: [1, 2]))
        let expected = InnerPackets.udp(from: Self.outside[0], to: InnerPackets.right4, payload: [1, 2])
        let staged = pair.left.events(pair.left.outboundEvents).compactMap { event -> [UInt8]? in
            if case .stage(_, let packet) = event { packet } else { nil }
        }
        #expect(staged == [expected])
    }
}
