import Testing

@testable import WireGuard

@Suite("Fragments of IPv4")
struct FragmenterTests {
    private func fragment(_ packet: [UInt8], mtu: Int) throws -> [[UInt8]]? {
        try InnerPackets.fragments(of: packet, mtu: mtu)
    }

    /// What a receiver makes of them: payload by offset, and whether the last one has come.
    private func joined(_ pieces: [[UInt8]]) -> (start: Int, payload: [UInt8], isWhole: Bool) {
        let sorted = pieces.sorted { offset($0) < offset($1) }
        var payload: [UInt8] = []
        let start = offset(sorted[0])
        for piece in sorted {
            #expect(offset(piece) == start + payload.count)
            payload += piece[(Int(piece[0] & 15) * 4)...]
        }
        return (start, payload, sorted.last![6] & 0x20 == 0)
    }

    private func offset(_ packet: [UInt8]) -> Int { (Int(packet[6] & 0x1f) << 8 | Int(packet[7])) * 8 }

    private func packet(payload: Int, options: [UInt8] = [], field: UInt16 = 0) -> [UInt8] {
        let body = InnerPackets.payload(payload)
        var header: [UInt8] = [UInt8(0x45 + options.count / 4), 0xb8]
        header += InnerPackets.bigEndian(UInt16(20 + options.count + payload)) + [0xab, 0xcd]
        header += InnerPackets.bigEndian(field) + [64, 17, 0, 0]
        header += InnerPackets.left4.bytes + InnerPackets.right4.bytes + options
        return InnerPackets.finished4(header + body)
    }

    @Test("the pieces fit, have right headers, and make up the packet", arguments: [28, 68, 576, 1280, 1419])
    func pieces(mtu: Int) throws {
        for size in [mtu - 20, mtu - 19, mtu, 1500, 4000, 65_000] where size + 20 <= 65_535 {
            let packet = packet(payload: size)
            let pieces = try #require(try fragment(packet, mtu: mtu))
            for piece in pieces {
                #expect(piece.count <= mtu)
                #expect(Int(piece[2]) << 8 | Int(piece[3]) == piece.count)
                #expect(InnerPackets.internetChecksum(Array(piece[..<20])) == 0)
                #expect(Array(piece[4..<6]) == [0xab, 0xcd])
                #expect(piece[1] == 0xb8 && piece[8] == 64 && piece[9] == 17)
                #expect(piece[12..<20] == packet[12..<20])
            }
            #expect(pieces.dropLast().allSatisfy { ($0.count - 20) % 8 == 0 && $0[6] & 0x20 != 0 })
            let whole = joined(pieces)
            #expect(whole.start == 0 && whole.isWhole && whole.payload == Array(packet[20...]))
        }
    }

    @Test("a packet that fits stays in one piece")
    func fits() throws {
        let packet = packet(payload: 1260)
        #expect(try fragment(packet, mtu: 1280) == [packet])
    }

    @Test("a fragment is fragmented further: its offset counts on, and more fragments stay to come")
    func fragment() throws {
        for (field, isLast) in [(UInt16(0x2000 | 100), false), (UInt16(100), true)] {
            let packet = packet(payload: 1304, field: field)
            let pieces = try #require(try fragment(packet, mtu: 600))
            #expect(pieces.count == 3)
            let whole = joined(pieces)
            #expect(whole.start == 800 && whole.isWhole == isLast && whole.payload == Array(packet[20...]))
        }
    }

    @Test("options go into the first piece, and those with the copied flag into all")
    func options() throws {
        // Router alert (copied), no operation, record route (not copied), end.
        let options: [UInt8] = [0x94, 4, 0, 0, 1, 7, 7, 4, 0, 0, 0, 0]
        let packet = packet(payload: 1400, options: options)
        let pieces = try #require(try fragment(packet, mtu: 700))
        #expect(Array(pieces[0][20..<32]) == options && pieces[0][0] == 0x48)
        for piece in pieces.dropFirst() {
            #expect(piece[0] == 0x46 && Array(piece[20..<24]) == [0x94, 4, 0, 0])
        }
        for piece in pieces {
            #expect(piece.count <= 700)
            #expect(InnerPackets.internetChecksum(Array(piece[..<(Int(piece[0] & 15) * 4)])) == 0)
        }
        #expect(joined(pieces).payload == Array(packet[32...]))
    }

    @Test("options of a length that cannot be end the list, and are padded", arguments: [UInt8(0), 1, 40])
    func lyingOptions(length: UInt8) throws {
        let packet = packet(payload: 1400, options: [0x82, 3, 9, 0x94, length, 0, 0, 0])
        let pieces = try #require(try fragment(packet, mtu: 700))
        #expect(Array(pieces[1][20..<24]) == [0x82, 3, 9, 0] && pieces[1][0] == 0x46)
        #expect(joined(pieces).payload == Array(packet[28...]))
    }

    @Test("neither DF, nor IPv6, nor an MTU without room, nor an offset past the end can be fragmented")
    func refused() throws {
        #expect(try fragment(packet(payload: 1400, field: 0x4000), mtu: 1280) == nil)
        #expect(try fragment(packet(payload: 1400), mtu: 27) == nil)
        #expect(try fragment(packet(payload: 1400, field: 8150), mtu: 1280) == nil)
        let packet6 = InnerPackets.udp(
            from: InnerPackets.left6, to: InnerPackets.right6, payload: InnerPackets.payload(1400))
        #expect(try fragment(packet6, mtu: 1280) == nil)
    }
}
