import Testing

@testable import WireGuard

@Suite("ICMP errors to inner senders")
struct ICMPErrorTests {
    private func reply(_ kind: ICMPError.Kind, to packet: [UInt8]) throws -> [UInt8]? {
        var packet = packet
        var reply = ICMPError()
        try InnerPackets.edit(&packet) { reply.make(kind, for: $0) }
        return unsafe reply.bytes.map { unsafe Array($0) }
    }

    @Test("fragmentation needed names the MTU that would pass, and comes from the destination")
    func fragmentationNeeded() throws {
        let packet = InnerPackets.udp(payload: InnerPackets.payload(1400))
        let reply = try #require(try reply(.tooBig(mtu: 1328), to: packet))
        #expect(Array(reply[20..<22]) == [3, 4])
        #expect(Array(reply[24..<28]) == [0, 0] + InnerPackets.bigEndian(UInt16(1328)))
        #expect(Array(reply[12..<20]) == InnerPackets.right4.bytes + InnerPackets.left4.bytes)
        #expect(InnerPackets.internetChecksum(Array(reply[..<20])) == 0)
        #expect(InnerPackets.internetChecksum(Array(reply[20...])) == 0)
        #expect(Array(reply[28...]) == Array(packet[..<520]))
        #expect(reply.count <= 576)
    }

    @Test("packet too big names the MTU that would pass, and never less than IPv6 has")
    func packetTooBig() throws {
        let packet = InnerPackets.tcp(
            from: InnerPackets.left6, to: InnerPackets.right6, payload: InnerPackets.payload(1300))
        for (mtu, told) in [(1392, 1392), (1280, 1280), (1000, 1280)] {
            let reply = try #require(try reply(.tooBig(mtu: mtu), to: packet))
            #expect(Array(reply[40..<42]) == [2, 0])
            #expect(Array(reply[44..<48]) == InnerPackets.bigEndian(UInt32(told)))
            #expect(Array(reply[8..<40]) == InnerPackets.right6.bytes + InnerPackets.left6.bytes)
            #expect(InnerPackets.isIntact(reply))
            #expect(Array(reply[48...]) == Array(packet[..<520]))
        }
    }

    @Test("a ping that is too big is answered, an ICMP error and a later fragment are not")
    func whatIsAnswered() throws {
        let echo = InnerPackets.ip(
            from: InnerPackets.left4, to: InnerPackets.right4, transport: 1,
            body: [8, 0, 0, 0] + InnerPackets.payload(1400))
        #expect(try reply(.tooBig(mtu: 1280), to: echo) != nil)
        let error = InnerPackets.ip(
            from: InnerPackets.left4, to: InnerPackets.right4, transport: 1,
            body: [11, 0, 0, 0] + InnerPackets.payload(1400))
        #expect(try reply(.tooBig(mtu: 1280), to: error) == nil)
        var fragment = InnerPackets.udp(payload: InnerPackets.payload(1400))
        fragment[7] = 4
        #expect(try reply(.tooBig(mtu: 1280), to: InnerPackets.finished4(fragment)) == nil)
    }
}
