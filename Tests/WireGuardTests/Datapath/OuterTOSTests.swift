import Testing

@testable import WireGuard

@Suite("The class of outer packets")
struct OuterTOSTests {
    private static let families = DatapathTests.families

    private func packet(_ which: Int, _ tos: UInt8, sequence: UInt32 = 0, size: Int = 100) -> [UInt8] {
        let (source, destination) = Self.families[which]
        return InnerPackets.tcp(
            from: source, to: destination, sequence: sequence, payload: InnerPackets.payload(size),
            tos: tos)
    }

    @Test("it has the inner ECN, and the DSCP on request", arguments: [0, 1])
    func outer(which: Int) {
        for tos: UInt8 in [0, 1, 2, 3, 0xb8, 0xba, 0xff] {
            var pair = DatapathPair()
            #expect(pair.send(packet(which, tos)).map(\.tos) == [tos & 3])
            pair.left.ask(copiesDSCP: true)
            let sent = pair.send(packet(which, tos))
            #expect(sent.map(\.tos) == [tos])
            #expect(pair.receive(sent).map(\.packet) == [packet(which, tos)])
        }
    }

    @Test("a run ends where it changes, and a superpacket has one", arguments: [0, 1])
    func runs(which: Int) {
        var pair = DatapathPair()
        let classes: [UInt8] = [2, 2, 0, 0, 0, 3, 2]
        let sent = pair.send(classes.map { (packet(which, $0), VirtioNetHeader()) }).sent
        #expect(sent.map(\.tos) == [2, 0, 3, 2])
        #expect(sent.map { $0.datagram.count / $0.segmentSize } == [2, 3, 1, 1])
        let whole = packet(which, 0xb9, size: 5000)
        let split = pair.send([(whole, .tcp(Self.families[which].0.family, segment: 1000))]).sent
        #expect(split.map(\.tos) == [1])
    }

    @Test("what a router marked reaches the receiver", arguments: [0, 1])
    func marks(which: Int) {
        for inner: UInt8 in [0xb9, 0xba, 0xbb] {
            var pair = DatapathPair()
            var sent = pair.send(packet(which, inner))
            sent[0].tos = 0x20 | 3
            #expect(pair.receive(sent).map(\.packet) == [packet(which, 0xbb)])
        }
    }

    @Test("of segments that came joined each is marked, and they stay joined", arguments: [0, 1])
    func joined(which: Int) {
        var pair = DatapathPair()
        let offload = VirtioNetHeader.tcp(Self.families[which].0.family, segment: 1000)
        var sent = pair.send([(packet(which, 2, size: 4000), offload)]).sent
        #expect(sent.count == 1)
        sent[0].tos = 3
        let written = pair.receive(sent)
        #expect(written.count == 1)
        #expect(written[0].header?.segmentSize == 1000)
        #expect(written[0].packet.prefix(2) == packet(which, 3, size: 4000).prefix(2))
    }

    @Test("a mark on what nobody would answer is a drop", arguments: [0, 1])
    func notCapable(which: Int) {
        var pair = DatapathPair()
        var sent = pair.send(packet(which, 0xb8))
        sent[0].tos = 3
        #expect(pair.receive(sent).isEmpty)
        #expect(pair.right.drops.snapshot == [.congestionMarked: 1])
    }
}
