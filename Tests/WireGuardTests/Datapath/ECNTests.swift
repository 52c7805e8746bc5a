import Testing

@testable import WireGuard

@Suite("ECN through the tunnel")
struct ECNTests {
    private func decapsulate(_ packet: [UInt8], outer: UInt8) throws -> [UInt8] {
        var packet = packet
        try InnerPackets.edit(&packet) { try ECN.decapsulate($0, outer: outer) }
        return packet
    }

    private func packet(_ family: Int, tos: UInt8) -> [UInt8] {
        let (source, destination) = DatapathTests.families[family]
        return InnerPackets.tcp(
            from: source, to: destination, payload: InnerPackets.payload(20), tos: tos)
    }

    /// RFC 6040, figure 4: a row an inner codepoint, a column an outer one; Not-ECT, ECT(1), ECT(0), CE by
    /// their numbers.
    private static let table: [[UInt8?]] = [
        [0, 0, 0, nil],
        [1, 1, 1, 3],
        [2, 1, 2, 3],
        [3, 3, 3, 3],
    ]

    @Test("an opened packet has what both headers said, and a right checksum", arguments: [0, 1])
    func decapsulation(family: Int) throws {
        for inner in UInt8(0)..<4 {
            for outer in UInt8(0)..<4 {
                for codepoint: UInt8 in [0, 46 << 2, 0xfc] {
                    let before = packet(family, tos: codepoint | inner)
                    // The outer DSCP is the network's own affair.
                    let marked = 0xb8 | outer
                    if let expected = Self.table[Int(inner)][Int(outer)] {
                        let after = try decapsulate(before, outer: marked)
                        #expect(after == packet(family, tos: codepoint | expected))
                        #expect(InnerPackets.isIntact(after))
                    } else {
                        #expect(throws: DropReason.congestionMarked) {
                            try decapsulate(before, outer: marked)
                        }
                    }
                }
            }
        }
    }

    @Test("the TOS of IPv4 and the traffic class of IPv6 are one octet", arguments: [0, 1])
    func octet(family: Int) throws {
        for tos in UInt8.min...UInt8.max {
            var packet = packet(family, tos: tos)
            #expect(try InnerPackets.edit(&packet) { $0.tos } == tos)
        }
    }
}
