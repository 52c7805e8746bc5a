import TestSupport
import Testing

@testable import WireGuard

@Suite("The MSS option of TCP")
struct MSSClampTests {
    private static let syn: UInt8 = 0x02
    private static let synAck: UInt8 = 0x12
    private static let families = DatapathTests.families
    private static let mss1460: [UInt8] = [2, 4, 0x05, 0xb4]

    private func clamp(_ packet: [UInt8], mtu: Int) throws -> [UInt8] {
        var packet = packet
        try InnerPackets.edit(&packet) { packet in
            if MSSClamp.concerns(packet) { MSSClamp.clamp(packet, innerMTU: mtu) }
        }
        return packet
    }

    private func packet(_ family: Int, options: [UInt8], flags: UInt8 = syn) -> [UInt8] {
        let (source, destination) = Self.families[family]
        return InnerPackets.tcp(
            from: source, to: destination, flags: flags, payload: [], options: options)
    }

    @Test("it is lowered to what the MTU leaves, in SYN and SYN-ACK", arguments: [0, 1], [syn, synAck])
    func lowered(family: Int, flags: UInt8) throws {
        // As Linux sends them: MSS, SACK permitted, timestamps, no operation, window scale.
        let options: [UInt8] = Self.mss1460 + [4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]
        let before = packet(family, options: options, flags: flags)
        let after = try clamp(before, mtu: 1388)
        let expected = UInt16(1388 - (family == 0 ? 40 : 60))
        #expect(
            after
                == packet(
                    family, options: [2, 4] + InnerPackets.bigEndian(expected) + options[4...], flags: flags))
        #expect(InnerPackets.isIntact(after))
    }

    @Test("the checksum is right wherever the option begins", arguments: [0, 1], [0, 1, 2, 3])
    func places(family: Int, place: Int) throws {
        var entropy = SplitMix(seed: 3)
        for _ in 0..<200 {
            let value = UInt16(entropy.number(1300...65_535))
            let mtu = entropy.number(576...1340)
            let options =
                [UInt8](repeating: 1, count: place) + [2, 4] + InnerPackets.bigEndian(value)
                + [UInt8](repeating: 1, count: 4 - place)
            let after = try clamp(packet(family, options: options), mtu: mtu)
            var expected = options
            expected.replaceSubrange(
                place + 2..<place + 4, with: InnerPackets.bigEndian(UInt16(mtu - (family == 0 ? 40 : 60))))
            #expect(after == packet(family, options: expected))
        }
    }

    @Test("it is never raised", arguments: [0, 1])
    func neverRaised(family: Int) throws {
        for value: UInt16 in [0, 536, 1219, 1220] {
            let before = packet(family, options: [2, 4] + InnerPackets.bigEndian(value))
            #expect(try clamp(before, mtu: 1280) == before)
        }
    }

    @Test(
        "options that do not hold together leave the packet alone",
        arguments: [
            // An option of no length, shorter than itself, past the end, an MSS of another length; then alone at the end.
            mss1460 + [8, 0, 1, 1], mss1460 + [8, 1, 1, 1], mss1460 + [8, 10, 1, 1], [2, 3, 5, 0],
            [2, 6, 5, 0xb4, 0, 0, 1, 1], mss1460 + [1, 1, 1, 8],
        ])
    func malformed(options: [UInt8]) throws {
        let before = packet(0, options: options)
        #expect(try clamp(before, mtu: 1280) == before)
    }

    @Test("what follows the end of the list is not read")
    func endOfList() throws {
        let before = packet(0, options: [0, 0, 0, 0] + Self.mss1460)
        #expect(try clamp(before, mtu: 1280) == before)
        let after = try clamp(packet(0, options: Self.mss1460 + [0, 8, 99, 1]), mtu: 1280)
        #expect(after == packet(0, options: [2, 4, 0x04, 0xd8, 0, 8, 99, 1]))
    }

    @Test("only what opens a connection is looked at, and whole")
    func others() throws {
        let data = packet(0, options: Self.mss1460, flags: 0x10)
        #expect(try clamp(data, mtu: 1280) == data)
        var fragment = packet(0, options: Self.mss1460)
        fragment[6] = 0x20
        fragment = InnerPackets.finished4(fragment)
        #expect(try clamp(fragment, mtu: 1280) == fragment)
        // A header that says it is longer than the packet, and a packet that ends before the flags.
        var lying = packet(0, options: Self.mss1460)
        lying[32] = 0xf0
        #expect(try clamp(lying, mtu: 1280) == lying)
        let short = InnerPackets.ip(
            from: InnerPackets.left4, to: InnerPackets.right4, transport: 6, body: [0, 1, 0, 2, 0, 0, 0, 0])
        #expect(try clamp(short, mtu: 1280) == short)
        let udp = InnerPackets.udp(payload: InnerPackets.payload(64))
        #expect(try clamp(udp, mtu: 1280) == udp)
    }
}
