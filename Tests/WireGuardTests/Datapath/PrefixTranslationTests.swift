import TestSupport
import Testing

@testable import WireGuard

@Suite("1:1 translation of prefixes")
struct PrefixTranslationTests {
    private static let list = [
        PrefixTranslation.Pair(inside: IPPrefix("10.0.0.0/16")!, outside: IPPrefix("10.99.0.0/16")!)!,
        PrefixTranslation.Pair(inside: IPPrefix("192.168.3.128/25")!, outside: IPPrefix("172.20.9.0/25")!)!,
        PrefixTranslation.Pair(inside: IPPrefix("fd00:1::/64")!, outside: IPPrefix("2001:db8:7:ff::/64")!)!,
    ]
    private let translation = PrefixTranslation(list)

    private func outbound(_ packet: [UInt8]) throws -> (PrefixTranslation.Outcome, [UInt8]) {
        var packet = packet
        let outcome = try InnerPackets.edit(&packet) { translation.outbound($0) }
        return (outcome, packet)
    }

    private func inbound(_ packet: [UInt8]) throws -> (PrefixTranslation.Outcome, [UInt8]) {
        var packet = packet
        let outcome = try InnerPackets.edit(&packet) { translation.inbound($0) }
        return (outcome, packet)
    }

    /// What is here, as the far end sees it, and a far host.
    private static let hosts: [(inside: IPAddress, outside: IPAddress, far: IPAddress)] = [
        (IPAddress("10.0.7.9")!, IPAddress("10.99.7.9")!, IPAddress("10.2.0.2")!),
        (IPAddress("192.168.3.255")!, IPAddress("172.20.9.127")!, IPAddress("10.2.0.2")!),
        (IPAddress("fd00:1::abcd:1")!, IPAddress("2001:db8:7:ff::abcd:1")!, IPAddress("fd00:2::2")!),
    ]

    private static let sizes = [0, 1, 2, 3, 40, 1000]

    private func echo(_ type4: UInt8, _ type6: UInt8, from source: IPAddress, to destination: IPAddress)
        -> [UInt8]
    {
        icmp(
            [source.family == .v4 ? type4 : type6, 0, 0, 0, 0, 1, 0, 2] + InnerPackets.payload(30),
            from: source, to: destination)
    }

    private func icmp(_ body: [UInt8], from source: IPAddress, to destination: IPAddress) -> [UInt8] {
        var body = body
        let sum =
            source.family == .v4
            ? InnerPackets.internetChecksum(body)
            : InnerPackets.transportChecksum(body, from: source, to: destination, transport: 58)
        body.replaceSubrange(2..<4, with: InnerPackets.bigEndian(sum))
        return InnerPackets.ip(
            from: source, to: destination, transport: source.family == .v4 ? 1 : 58, body: body)
    }

    @Test(
        "a packet out has its source translated, as if its sender had had the other address",
        arguments: [0, 1, 2])
    func out(which: Int) throws {
        let (inside, outside, far) = Self.hosts[which]
        for size in Self.sizes {
            let payload = InnerPackets.payload(size)
            #expect(
                try outbound(InnerPackets.udp(from: inside, to: far, payload: payload))
                    == (.translated, InnerPackets.udp(from: outside, to: far, payload: payload)))
            #expect(
                try outbound(InnerPackets.tcp(from: inside, to: far, payload: payload))
                    == (.translated, InnerPackets.tcp(from: outside, to: far, payload: payload)))
        }
        #expect(
            try outbound(echo(8, 128, from: inside, to: far))
                == (.translated, echo(8, 128, from: outside, to: far)))
    }

    @Test("a packet in has its destination translated", arguments: [0, 1, 2])
    func into(which: Int) throws {
        let (inside, outside, far) = Self.hosts[which]
        for size in Self.sizes {
            let payload = InnerPackets.payload(size)
            #expect(
                try inbound(InnerPackets.udp(from: far, to: outside, payload: payload))
                    == (.translated, InnerPackets.udp(from: far, to: inside, payload: payload)))
            #expect(
                try inbound(InnerPackets.tcp(from: far, to: outside, payload: payload))
                    == (.translated, InnerPackets.tcp(from: far, to: inside, payload: payload)))
        }
        #expect(
            try inbound(echo(0, 129, from: far, to: outside))
                == (.translated, echo(0, 129, from: far, to: inside)))
    }

    @Test("any addresses, prefixes and contents: the same as a full recomputation")
    func recomputation() throws {
        var entropy = SplitMix(seed: 9)
        for round in 0..<4000 {
            let isV4 = round % 2 == 0
            let family = isV4 ? IPAddress.Family.v4 : .v6
            func random(_ entropy: inout SplitMix) -> IPAddress {
                IPAddress(bytes: entropy.bytes(isV4 ? 4 : 16))!
            }
            let length = entropy.number(0...family.width)
            let insidePrefix = IPPrefix(address: random(&entropy), length: length)!.network
            let outsidePrefix = IPPrefix(address: random(&entropy), length: length)!.network
            let one = PrefixTranslation([.init(inside: insidePrefix, outside: outsidePrefix)!])
            let host = random(&entropy).bits & ~insidePrefix.mask
            let inside = IPAddress(family: family, bits: insidePrefix.first | host)
            let outside = IPAddress(family: family, bits: outsidePrefix.first | host)
            #expect(one.outside(inside) == outside && one.inside(outside) == inside)
            let far = random(&entropy)
            let payload = entropy.bytes(entropy.number(0...50))
            let isTCP = entropy.number(0...1) == 0
            var out =
                isTCP
                ? InnerPackets.tcp(from: inside, to: far, payload: payload)
                : InnerPackets.udp(from: inside, to: far, payload: payload)
            let expected =
                isTCP
                ? InnerPackets.tcp(from: outside, to: far, payload: payload)
                : InnerPackets.udp(from: outside, to: far, payload: payload)
            let outcome = try InnerPackets.edit(&out) { one.outbound($0) }
            #expect(outcome == .translated && out == expected)
            var back = echo(8, 128, from: far, to: outside)
            _ = try InnerPackets.edit(&back) { one.inbound($0) }
            #expect(back == echo(8, 128, from: far, to: inside))
        }
    }

    @Test("what is in no prefix passes as it is, each way", arguments: [0, 2])
    func unmapped(which: Int) throws {
        let (inside, outside, far) = Self.hosts[which]
        for packet in [
            InnerPackets.udp(from: far, to: inside, payload: [1]),
            InnerPackets.udp(from: outside, to: far, payload: [1]),
        ] {
            #expect(try outbound(packet) == (.unchanged, packet))
        }
        for packet in [
            InnerPackets.udp(from: inside, to: far, payload: [1]),
            InnerPackets.udp(from: far, to: inside, payload: [1]),
        ] {
            #expect(try inbound(packet) == (.unchanged, packet))
        }
    }

    @Test("a UDP checksum of zero stays, and one that becomes zero is written as 0xffff", arguments: [0, 2])
    func zeroUDP(which: Int) throws {
        let (inside, outside, far) = Self.hosts[which]
        let field = inside.family == .v4 ? 26 : 46
        var packet = InnerPackets.udp(from: inside, to: far, payload: [1, 2, 3])
        packet[field] = 0
        packet[field + 1] = 0
        let (_, after) = try outbound(packet)
        #expect(Array(after[field..<field + 2]) == [0, 0])
        // The payload that makes the sum of the translated packet 0xffff.
        let probe = InnerPackets.udp(from: outside, to: far, payload: [0, 0])
        let payload = Array(probe[field..<field + 2])
        let zero = InnerPackets.udp(from: outside, to: far, payload: payload)
        #expect(Array(zero[field..<field + 2]) == [0xff, 0xff])
        #expect(try outbound(InnerPackets.udp(from: inside, to: far, payload: payload)).1 == zero)
    }

    @Test("a first fragment has its checksum translated, a later one has none")
    func fragments4() throws {
        let (inside, outside, far) = Self.hosts[0]
        func pieces(_ source: IPAddress) throws -> [[UInt8]] {
            var packet = InnerPackets.udp(from: source, to: far, payload: InnerPackets.payload(1200))
            packet[6] = 0
            packet = InnerPackets.finished4(packet)
            return try #require(try InnerPackets.fragments(of: packet, mtu: 500))
        }
        #expect(try pieces(inside).map { try outbound($0).1 } == pieces(outside))
    }

    /// A fragment header (RFC 8200, section 4.5) before the body.
    private func fragment6(
        _ body: [UInt8], next: UInt8, offset: UInt16, from source: IPAddress, to destination: IPAddress
    ) -> [UInt8] {
        InnerPackets.ip(
            from: source, to: destination, transport: 44,
            body: [next, 0] + InnerPackets.bigEndian(offset) + [1, 2, 3, 4] + body)
    }

    @Test("IPv6 extension headers are walked, and a later fragment has no checksum")
    func extensions6() throws {
        let (inside, outside, far) = Self.hosts[2]
        func datagram(_ source: IPAddress) -> [UInt8] {
            Array(InnerPackets.udp(from: source, to: far, payload: InnerPackets.payload(64))[40...])
        }
        func wrapped(_ source: IPAddress) -> [UInt8] {
            let hopByHop: [UInt8] = [60, 0, 1, 4, 0, 0, 0, 0]
            let options: [UInt8] = [17, 1, 1, 4, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0]
            return InnerPackets.ip(
                from: source, to: far, transport: 0, body: hopByHop + options + datagram(source))
        }
        #expect(try outbound(wrapped(inside)) == (.translated, wrapped(outside)))
        func first(_ source: IPAddress) -> [UInt8] {
            fragment6(Array(datagram(source)[..<40]), next: 17, offset: 1, from: source, to: far)
        }
        #expect(try outbound(first(inside)) == (.translated, first(outside)))
        let tail = InnerPackets.payload(32)
        #expect(
            try outbound(fragment6(tail, next: 17, offset: 40, from: inside, to: far))
                == (.translated, fragment6(tail, next: 17, offset: 40, from: outside, to: far)))
        // Headers without an end.
        let endless = InnerPackets.ip(
            from: inside, to: far, transport: 0, body: [0, 200, 0, 0, 0, 0, 0, 0])
        _ = try outbound(endless)
    }

    @Test("a destination on the way of a routing header is not in the checksum")
    func routing() throws {
        let (inside, outside, far) = Self.hosts[2]
        let body = Array(InnerPackets.udp(from: far, to: IPAddress("fd00:9::9")!, payload: [1, 2])[40...])
        let routing: [UInt8] = [17, 2, 4, 1, 0, 0, 0, 0] + IPAddress("fd00:9::9")!.bytes
        func packet(_ destination: IPAddress) -> [UInt8] {
            InnerPackets.ip(from: far, to: destination, transport: 43, body: routing + body)
        }
        #expect(try inbound(packet(outside)) == (.translated, packet(inside)))
    }

    @Test("a fragment whose checksum lies in the next one is dropped, and not written to")
    func impossible() throws {
        let (inside, _, far) = Self.hosts[0]
        var packet = Array(InnerPackets.tcp(from: inside, to: far, payload: [1])[..<36])
        packet[3] = 36
        packet[6] = 0x20
        packet = InnerPackets.finished4(packet)
        #expect(try outbound(packet) == (.impossible, packet))
        packet.replaceSubrange(12..<16, with: far.bytes)
        packet = InnerPackets.finished4(packet)
        #expect(try outbound(packet) == (.unchanged, packet))
    }

    // MARK: ICMP errors

    /// Port unreachable, time exceeded and packet too big about `quoted`.
    private func errors(_ quoted: [UInt8], from source: IPAddress, to destination: IPAddress) -> [[UInt8]] {
        let heads: [[UInt8]] =
            source.family == .v4
            ? [[3, 3, 0, 0, 0, 0, 0, 0], [3, 4, 0, 0, 0, 0, 5, 0], [11, 0, 0, 0, 0, 0, 0, 0]]
            : [[1, 4, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 5, 0], [3, 0, 0, 0, 0, 0, 0, 0]]
        return heads.map { icmp($0 + quoted, from: source, to: destination) }
    }

    /// About TCP, UDP with and without a checksum, and ping; whole and cut short, not in a checksum.
    private func quotations(from source: IPAddress, to destination: IPAddress) -> [[UInt8]] {
        let header = source.family == .v4 ? 20 : 40
        var bare = InnerPackets.udp(from: source, to: destination, payload: [9])
        bare[header + 6] = 0
        bare[header + 7] = 0
        let tcp = InnerPackets.tcp(from: source, to: destination, payload: InnerPackets.payload(300))
        let udp = InnerPackets.udp(from: source, to: destination, payload: InnerPackets.payload(300))
        return [tcp, udp, bare, echo(8, 128, from: source, to: destination)]
            + [0, 8, 16, 18, 19, 40].flatMap { [Array(tcp[..<(header + $0)]), Array(udp[..<(header + $0)])] }
    }

    @Test("an error that goes out quotes the packet as its sender wrote it", arguments: [0, 1, 2])
    func errorsOut(which: Int) throws {
        let (inside, outside, far) = Self.hosts[which]
        let pairs = zip(quotations(from: far, to: inside), quotations(from: far, to: outside))
        for (before, after) in pairs {
            for (error, expected) in zip(
                errors(before, from: inside, to: far), errors(after, from: outside, to: far))
            {
                #expect(try outbound(error) == (.translated, expected))
            }
        }
    }

    @Test("an error that comes in quotes the packet as its sender here wrote it", arguments: [0, 1, 2])
    func errorsIn(which: Int) throws {
        let (inside, outside, far) = Self.hosts[which]
        let pairs = zip(quotations(from: outside, to: far), quotations(from: inside, to: far))
        for (before, after) in pairs {
            for (error, expected) in zip(
                errors(before, from: far, to: outside), errors(after, from: far, to: inside))
            {
                #expect(try inbound(error) == (.translated, expected))
            }
        }
    }

    @Test("an error of a router whose own address is in no pair quotes rightly too", arguments: [0, 2])
    func errorsOfRouters(which: Int) throws {
        let (inside, outside, far) = Self.hosts[which]
        let router = IPAddress(inside.family == .v4 ? "198.51.100.1" : "fd77::1")!
        let before = InnerPackets.udp(from: far, to: inside, payload: [1, 2, 3])
        let after = InnerPackets.udp(from: far, to: outside, payload: [1, 2, 3])
        for (error, expected) in zip(
            errors(before, from: router, to: far), errors(after, from: router, to: far))
        {
            #expect(try outbound(error) == (.translated, expected))
        }
    }

    @Test("a quotation that is none is left alone, wherever it ends", arguments: [0, 2])
    func brokenQuotations(which: Int) throws {
        let (inside, outside, far) = Self.hosts[which]
        let quoted = InnerPackets.tcp(from: far, to: inside, payload: [])
        for count in 0..<(inside.family == .v4 ? 20 : 40) {
            let body = Array(quoted[..<count])
            for (error, expected) in zip(
                errors(body, from: inside, to: far), errors(body, from: outside, to: far))
            {
                #expect(try outbound(error) == (.translated, expected))
            }
        }
        for first: UInt8 in [0x00, 0x4f, 0x44, 0x50, 0xff] {
            let body = [first] + quoted[1...]
            for (error, expected) in zip(
                errors(body, from: inside, to: far), errors(body, from: outside, to: far))
            {
                #expect(try outbound(error) == (.translated, expected))
            }
        }
    }

    @Test("bytes of any kind are translated without harm")
    func noise() throws {
        var entropy = SplitMix(seed: 21)
        for _ in 0..<20_000 {
            var packet = entropy.bytes(entropy.number(20...120))
            if entropy.number(0...1) == 0 {
                packet[0] = 0x40 | UInt8(entropy.number(5...7))
                packet[2] = 0
                packet[3] = UInt8(packet.count)
                packet[9] = [1, 6, 17, 33, 58][entropy.number(0...4)]
                packet.replaceSubrange(12..<14, with: [10, 0])
                packet.replaceSubrange(16..<18, with: [10, 99])
            } else if packet.count >= 40 {
                packet[0] = 0x60
                packet[4] = 0
                packet[5] = UInt8(packet.count - 40)
                packet[6] = [0, 6, 17, 43, 44, 58, 60][entropy.number(0...6)]
                packet.replaceSubrange(8..<16, with: IPAddress("fd00:1::")!.bytes[..<8])
                packet.replaceSubrange(24..<32, with: IPAddress("2001:db8:7:ff::")!.bytes[..<8])
            }
            guard (try? InnerPackets.edit(&packet, { _ in })) != nil else { continue }
            _ = try outbound(packet)
            _ = try inbound(packet)
        }
    }

    @Test("a pair is of one family and of one length")
    func pairs() {
        #expect(
            PrefixTranslation.Pair(inside: IPPrefix("10.0.0.0/16")!, outside: IPPrefix("10.99.0.0/24")!)
                == nil)
        #expect(
            PrefixTranslation.Pair(inside: IPPrefix("10.0.0.0/16")!, outside: IPPrefix("fd00::/16")!) == nil)
        let pair = PrefixTranslation.Pair(inside: IPPrefix("10.0.5.5/16")!, outside: IPPrefix("10.9.3.3/16")!)
        #expect(pair?.inside == IPPrefix("10.0.0.0/16") && pair?.outside == IPPrefix("10.9.0.0/16"))
    }
}
