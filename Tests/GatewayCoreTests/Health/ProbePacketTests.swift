import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

@Suite struct ProbePacketTests {
    private let secret = FixedEntropy.secret(7)
    private let otherSecret = FixedEntropy.secret(8)
    private let ports: ClosedRange<UInt16> = 61_000...61_063
    private let left4 = IPAddress("169.254.101.2")!
    private let right4 = IPAddress("169.254.101.1")!
    private let left6 = IPAddress("fd00::2")!
    private let right6 = IPAddress("fd00::1")!

    private func pair(_ family: IPAddress.Family) -> (left: IPAddress, right: IPAddress) {
        family == .v4 ? (left4, right4) : (left6, right6)
    }

    /// As the far end's kernel or data plane answers, by a checksum that is computed anew.
    private func reply(to request: [UInt8]) -> [UInt8] {
        var reply = request
        let isV4 = request[0] >> 4 == 4
        let (source, destination, body) = isV4 ? (12..<16, 16..<20, 20) : (8..<24, 24..<40, 40)
        reply.replaceSubrange(source, with: request[destination])
        reply.replaceSubrange(destination, with: request[source])
        reply[body] = isV4 ? 0 : 129
        reply[body + 2] = 0
        reply[body + 3] = 0
        let sum = checksum(Array(reply[body...]), of: reply, transport: isV4 ? nil : 58)
        reply[body + 2] = UInt8(sum >> 8)
        reply[body + 3] = UInt8(sum & 255)
        return reply
    }

    /// RFC 1071, in another way than the code's: add, and carry around at each step.
    private func checksum(_ body: [UInt8], of packet: [UInt8], transport: UInt8?) -> UInt16 {
        var bytes: [UInt8] = []
        if let transport {
            bytes += packet[0] >> 4 == 4 ? packet[12..<20] : packet[8..<40]
            bytes += [0, 0, UInt8(body.count >> 8), UInt8(body.count & 255), 0, 0, 0, transport]
        }
        bytes += body
        if bytes.count % 2 == 1 { bytes.append(0) }
        var sum: UInt32 = 0
        for index in stride(from: 0, to: bytes.count, by: 2) {
            sum += UInt32(bytes[index]) << 8 | UInt32(bytes[index + 1])
            if sum > 0xffff { sum -= 0xffff }
        }
        return ~UInt16(sum)
    }

    @Test("1. an IPv4 echo request, byte by byte")
    func echoV4() throws {
        let packet = try #require(
            ProbePacket.echo(from: left4, to: right4, secret: secret, peer: PeerID(7), sequence: 0x1_0002))
        let expected: [UInt8] = [
            0x45, 0x00, 0x00, 0x34,  // version and header length, class, total length
            0x00, 0x00, 0x40, 0x00,  // identification, do not fragment
            0x40, 0x01, 0xdc, 0xcc,  // time to live, ICMP, checksum
            0xa9, 0xfe, 0x65, 0x02, 0xa9, 0xfe, 0x65, 0x01,  // from, to
            0x08, 0x00, 0x00, 0x00, 0x00, 0x07, 0x00, 0x02,  // echo request, checksum, identifier, sequence
            0x76, 0x67, 0x77, 0x64, 0xff, 0xff,  // "vgwd", nothing is said of what is heard
            0, 0, 0, 0, 0, 0, 0, 0,  // token
            0x00, 0x00, 0x00, 0x07, 0x00, 0x01, 0x00, 0x02,  // peer, sequence
            0x00, 0x00,  // purpose: health
        ]
        var withoutChecksums = packet
        for place in [10, 11, 22, 23] + Array(34..<42) { withoutChecksums[place] = expected[place] }
        #expect(withoutChecksums == expected)
        let said: [UInt8] = [0, 0, 0, 0, 7, 0, 1, 0, 2, 0, 0]
        let key = [UInt8](repeating: 7, count: 32)
        #expect(Array(packet[34..<42]) == Array(Blake2s.digest(said, size: 16, key: key).prefix(8)))
        let telling = ProbePacket.echo(
            from: left4, to: right4, secret: secret, peer: PeerID(7), sequence: 1, silence: .milliseconds(300)
        )
        #expect(telling.map { Array($0[32..<34]) } == [1, 44])
        #expect(checksum(Array(packet[..<20]), of: packet, transport: nil) == 0)
        #expect(checksum(Array(packet[20...]), of: packet, transport: nil) == 0)
    }

    @Test("2. an IPv6 echo request has hop limit 64 and a checksum over its pseudo header")
    func echoV6() throws {
        let packet = try #require(
            ProbePacket.echo(from: left6, to: right6, secret: secret, peer: PeerID(7), sequence: 2))
        #expect(Array(packet[..<8]) == [0x60, 0, 0, 0, 0, 32, 58, 64])
        #expect(Array(packet[8..<40]) == left6.bytes + right6.bytes)
        #expect(packet[40] == 128 && packet.count == 72)
        #expect(checksum(Array(packet[40...]), of: packet, transport: 58) == 0)
    }

    @Test(
        "3. an echo comes back with its peer, sequence and purpose, whole or cut off",
        arguments: IPAddress.Family.allCases,
        [ProbePurpose.health, .pathMTU, .drill, .drillTarget, .target(0), .target(300)])
    func roundTrip(family: IPAddress.Family, purpose: ProbePurpose) throws {
        let (left, right) = pair(family)
        for length in [0, 1, 72, 73, 100, 1420, 1421, 65_507, 100_000] {
            for sequence: UInt32 in [0, 1, 0xffff, 0x1_0000, .max] {
                let request = try #require(
                    ProbePacket.echo(
                        from: left, to: right, secret: secret, peer: PeerID(1023), sequence: sequence,
                        purpose: purpose, length: length))
                let shortest = family == .v4 ? 52 : 72
                #expect(request.count == min(max(length, shortest), 65_507))
                let answer = reply(to: request)
                for seen in [answer.count, min(96, answer.count)] {
                    let reply = try #require(
                        ProbeReply(
                            Array(answer.prefix(seen)), length: answer.count, secret: secret, ports: ports))
                    #expect(reply.kind == .echo(PeerID(1023), purpose))
                    #expect(reply.sequence == sequence)
                    #expect(reply.source == right && reply.destination == left)
                    #expect(reply.length == request.count)
                }
                guard sequence == 0, length < 200 else { continue }
                #expect(ProbeReply(request, length: request.count, secret: secret, ports: ports) == nil)
                #expect(ProbeReply(answer, length: answer.count, secret: otherSecret, ports: ports) == nil)
                #expect(ProbeReply(answer, length: answer.count - 1, secret: secret, ports: ports) == nil)
            }
        }
    }

    @Test("4. one bit wrong anywhere in a whole reply is no reply", arguments: IPAddress.Family.allCases)
    func bitErrors(family: IPAddress.Family) throws {
        let (left, right) = pair(family)
        let request = try #require(
            ProbePacket.echo(from: left, to: right, secret: secret, peer: PeerID(3), sequence: 9, length: 80))
        let answer = reply(to: request)
        for bit in 0..<answer.count * 8 {
            var broken = answer
            broken[bit / 8] ^= 1 << UInt8(bit % 8)
            let reply = ProbeReply(broken, length: broken.count, secret: secret, ports: ports)
            // Traffic class, flow label and hop limit of IPv6 are under no checksum.
            let isUncovered = family == .v6 && (bit < 4 || (8..<32).contains(bit) || bit / 8 == 7)
            #expect((reply != nil) == isUncovered, "bit \(bit)")
        }
    }

    /// What a TCP answers with.
    private func tcpReply(
        to syn: [UInt8], flags: UInt8, sequence: UInt32 = 0x5555_0001, acknowledging delta: UInt32 = 1
    ) -> [UInt8] {
        let isV4 = syn[0] >> 4 == 4
        let body = isV4 ? 20 : 40
        var reply = syn
        let (source, destination) = isV4 ? (12..<16, 16..<20) : (8..<24, 24..<40)
        reply.replaceSubrange(source, with: syn[destination])
        reply.replaceSubrange(destination, with: syn[source])
        reply.replaceSubrange(body..<body + 2, with: syn[body + 2..<body + 4])
        reply.replaceSubrange(body + 2..<body + 4, with: syn[body..<body + 2])
        let acknowledged = syn.bigEndian32(at: body + 4) &+ delta
        for (offset, word) in [(4, sequence), (8, acknowledged)] {
            for byte in 0..<4 {
                reply[body + offset + byte] = UInt8(truncatingIfNeeded: word >> UInt32(24 - 8 * byte))
            }
        }
        reply[body + 13] = flags
        reply.replaceSubrange(body + 16..<body + 18, with: [0, 0])
        let sum = checksum(Array(reply[body...]), of: reply, transport: 6)
        reply.replaceSubrange(body + 16..<body + 18, with: [UInt8(sum >> 8), UInt8(sum & 255)])
        return reply
    }

    @Test(
        "5. a SYN is answered by a SYN-ACK, which is reset, or by a reset",
        arguments: IPAddress.Family.allCases)
    func tcp(family: IPAddress.Family) throws {
        let (left, right) = pair(family)
        let body = family == .v4 ? 20 : 40
        for sequence: UInt32 in [0, 1, 63, 64, 0xffff, 0x1_2345, .max] {
            let syn = try #require(
                ProbePacket.syn(
                    from: left, to: right, port: 443, secret: secret, sequence: sequence, ports: ports))
            #expect(checksum(Array(syn[body...]), of: syn, transport: 6) == 0)
            #expect(ports.contains(UInt16(syn.bigEndian16(at: body))))
            #expect(syn[body + 12] == 0x50 && syn[body + 13] == 0x02)

            let open = tcpReply(to: syn, flags: 0x12)
            let reply = try #require(ProbeReply(open, length: open.count, secret: secret, ports: ports))
            #expect(reply.kind == .synAck(port: 443))
            #expect(reply.sequence == sequence & 0xffff)
            #expect(reply.source == right)
            let reset = try #require(ProbePacket.reset(answering: open, length: open.count))
            #expect(Array(reset[body..<body + 4]) == Array(syn[body..<body + 4]), "the same ports")
            #expect(reset.bigEndian32(at: body + 4) == syn.bigEndian32(at: body + 4) &+ 1)
            #expect(reset[body + 13] == 0x04)
            #expect(checksum(Array(reset[body...]), of: reset, transport: 6) == 0)

            let closed = tcpReply(to: syn, flags: 0x14, sequence: 0)
            #expect(
                ProbeReply(closed, length: closed.count, secret: secret, ports: ports)?.kind
                    == .reset(port: 443))
            #expect(ProbePacket.reset(answering: closed, length: closed.count) == nil)
        }
    }

    @Test("6. TCP that is not ours is none of ours")
    func strangeTCP() throws {
        let syn = try #require(
            ProbePacket.syn(from: left4, to: right4, port: 443, secret: secret, sequence: 5, ports: ports))
        let open = tcpReply(to: syn, flags: 0x12)
        #expect(ProbeReply(open, length: open.count, secret: otherSecret, ports: ports) == nil)
        #expect(ProbeReply(open, length: open.count, secret: secret, ports: 1024...1024) == nil)
        for flags: UInt8 in [0x10, 0x02, 0x11, 0x04, 0x16] {
            let other = tcpReply(to: syn, flags: flags)
            #expect(ProbeReply(other, length: other.count, secret: secret, ports: ports) == nil)
        }
        let far = tcpReply(to: syn, flags: 0x12, acknowledging: 0x0001_0001)
        #expect(ProbeReply(far, length: far.count, secret: secret, ports: ports) == nil)
        var broken = open
        broken[broken.count - 1] ^= 1
        #expect(ProbeReply(broken, length: broken.count, secret: secret, ports: ports) == nil)
        #expect(ProbePacket.reset(answering: broken, length: broken.count) == nil)
    }

    @Test("7. a reply's target is the one that it came from")
    func targets() throws {
        var settings = HealthSettings()
        settings.targets = [.echo(right4), .tcp(right4, port: 443), .tcp(right6, port: 22), .echo(left6)]
        let echo = try #require(
            ProbePacket.echo(
                from: left4, to: right4, secret: secret, peer: PeerID(1), sequence: 5, purpose: .target(0)))
        let wrong = try #require(
            ProbePacket.echo(
                from: left4, to: right4, secret: secret, peer: PeerID(1), sequence: 5, purpose: .target(3)))
        let syn = try #require(
            ProbePacket.syn(from: left6, to: right6, port: 22, secret: secret, sequence: 5, ports: ports))
        func target(_ packet: [UInt8]) -> Int? {
            ProbeReply(packet, length: packet.count, secret: secret, ports: ports)
                .flatMap { settings.target(of: $0) }
        }
        #expect(target(reply(to: echo)) == 0)
        #expect(target(reply(to: wrong)) == nil)
        #expect(target(tcpReply(to: syn, flags: 0x14)) == 2)
        #expect(settings.targets[1].description == "tcp 169.254.101.1:443")
        #expect(settings.targets[2].description == "tcp [fd00::1]:22")
    }

    @Test("8. addresses of two families make no packet")
    func families() {
        #expect(
            ProbePacket.echo(from: left4, to: right6, secret: secret, peer: PeerID(0), sequence: 0) == nil)
        #expect(
            ProbePacket.syn(from: left6, to: right4, port: 1, secret: secret, sequence: 0, ports: ports)
                == nil)
    }

    @Test("9. whatever comes, nothing traps, and what is no reply is none", arguments: UInt64(0)..<8)
    func anything(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let templates = try [IPAddress.Family.v4, .v6].flatMap { family in
            let (left, right) = pair(family)
            let echo = try #require(
                ProbePacket.echo(from: left, to: right, secret: secret, peer: PeerID(1), sequence: 1))
            let syn = try #require(
                ProbePacket.syn(
                    from: left, to: right, port: 80, secret: secret, sequence: 1, ports: 0...65_535))
            return [reply(to: echo), tcpReply(to: syn, flags: 0x12)]
        }
        for _ in 0..<4000 {
            var packet: [UInt8]
            if Bool.random(using: &random) {
                packet = (0..<Int.random(in: 0...120, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
                if !packet.isEmpty, Bool.random(using: &random) {
                    packet[0] = [0x45, 0x60, 0x4f, 0x40].randomElement(using: &random)!
                }
            } else {
                packet = templates.randomElement(using: &random)!
                for _ in 0..<Int.random(in: 0...4, using: &random) {
                    packet[Int.random(in: packet.indices, using: &random)] =
                        UInt8.random(in: 0...255, using: &random)
                }
                packet.removeLast(Int.random(in: 0...packet.count, using: &random))
            }
            for length in [packet.count, 0, -1, 20, 65_535, .max, .min] {
                _ = ProbeReply(packet, length: length, secret: secret, ports: 0...65_535)
                _ = ProbePacket.reset(answering: packet, length: length)
            }
        }
    }

    // MARK: Attackers

    /// Turns a reply to one probe into one that claims to answer another.
    private func forged(
        _ reply: [UInt8], peer: UInt32? = nil, sequence: UInt32? = nil, purpose: UInt16? = nil
    )
        -> [UInt8]
    {
        var forged = reply
        let isV4 = reply[0] >> 4 == 4
        let body = isV4 ? 20 : 40
        func put(_ value: UInt64, _ count: Int, at offset: Int) {
            for byte in 0..<count {
                forged[body + offset + byte] = UInt8(
                    truncatingIfNeeded: value >> UInt64(8 * (count - 1 - byte)))
            }
        }
        if let peer { put(UInt64(peer), 4, at: 22) }
        if let sequence { put(UInt64(sequence), 4, at: 26) }
        if let purpose { put(UInt64(purpose), 2, at: 30) }
        put(0, 2, at: 2)
        put(UInt64(checksum(Array(forged[body...]), of: forged, transport: isV4 ? nil : 58)), 2, at: 2)
        return forged
    }

    @Test(
        "10. who answers one probe can answer no other: another peer's, another one's in time, or for another purpose",
        arguments: IPAddress.Family.allCases)
    func tokens(family: IPAddress.Family) throws {
        let (left, right) = pair(family)
        let request = try #require(
            ProbePacket.echo(
                from: left, to: right, secret: secret, peer: PeerID(1), sequence: 9, purpose: .health))
        let honest = reply(to: request)
        func isBelieved(_ packet: [UInt8]) -> Bool {
            ProbeReply(packet, length: packet.count, secret: secret, ports: ports) != nil
        }
        #expect(isBelieved(honest))
        #expect(isBelieved(forged(honest, peer: 1, sequence: 9, purpose: 0)))
        #expect(!isBelieved(forged(honest, peer: 2)))
        for sequence: UInt32 in [0, 8, 10, .max] { #expect(!isBelieved(forged(honest, sequence: sequence))) }
        for purpose: UInt16 in [1, 2, 0x100] { #expect(!isBelieved(forged(honest, purpose: purpose))) }
        // A SYN's mark holds for its target, its tunnel and its number alone.
        let sequences: [UInt32] = [1, 2, 3, 4, 5, 6, 7, 8]
        let marks = try sequences.flatMap { sequence in
            try ([80, 443] as [UInt16]).flatMap { port in
                try [left, right].map { source in
                    let syn = try #require(
                        ProbePacket.syn(
                            from: source, to: right, port: port, secret: secret, sequence: sequence,
                            ports: ports))
                    return syn.bigEndian32(at: (family == .v4 ? 20 : 40) + 4) >> 16
                }
            }
        }
        #expect(Set(marks).count > 28, "of 32, by chance fewer")
    }

    @Test("11. a reply is believed from whom the probe went to, and at the address that it came from")
    func sources() throws {
        let here = InsideLink(local: left4, remote: right4)
        var settings = HealthSettings()
        let target = IPAddress("10.20.0.10")!
        settings.targets = [.echo(target), .tcp(target, port: 443)]
        func answer(_ purpose: ProbePurpose, from source: IPAddress, to destination: IPAddress) throws
            -> ProbeReply
        {
            let request = try #require(
                ProbePacket.echo(
                    from: destination, to: source, secret: secret, peer: PeerID(1), sequence: 9,
                    purpose: purpose))
            let packet = reply(to: request)
            return try #require(ProbeReply(packet, length: packet.count, secret: secret, ports: ports))
        }
        let stranger = IPAddress("10.20.0.11")!
        for (purpose, believed) in [
            (ProbePurpose.health, [right4]), (.pathMTU, [right4]), (.drill, [right4]),
            (.drillTarget, [target]),
            (.target(0), [target]), (.target(1), []), (.target(2), []),
        ] as [(ProbePurpose, [IPAddress])] {
            for source in [right4, target, stranger, IPAddress("169.254.102.1")!] {
                let reply = try answer(purpose, from: source, to: left4)
                #expect(
                    reply.answers(inside: here, settings: settings) == believed.contains(source),
                    "\(purpose) from \(source)")
                #expect(reply.asked(among: [PeerID(2), PeerID(1)])?.tunnel == 1)
                #expect(reply.asked(among: [PeerID(2)]) == nil)
                let elsewhere = try answer(purpose, from: source, to: IPAddress("169.254.102.2")!)
                #expect(!elsewhere.answers(inside: here, settings: settings))
            }
        }
        for (source, port, isBelieved) in [(target, 443, true), (target, 80, false), (stranger, 443, false)]
            as [(IPAddress, UInt16, Bool)]
        {
            let syn = try #require(
                ProbePacket.syn(
                    from: left4, to: source, port: port, secret: secret, sequence: 3, ports: ports))
            let packet = tcpReply(to: syn, flags: 0x14)
            let reply = try #require(ProbeReply(packet, length: packet.count, secret: secret, ports: ports))
            #expect(reply.answers(inside: here, settings: settings) == isBelieved)
        }
        // Targets are asked from their source where there is one, far gateways are not.
        let lan = IPAddress("192.168.10.1")!
        settings.source = lan
        for (purpose, source, destination) in [
            (ProbePurpose.target(0), target, lan), (.drillTarget, target, lan), (.health, right4, left4),
            (.drill, right4, left4),
        ] {
            for place in [lan, left4] {
                let reply = try answer(purpose, from: source, to: place)
                #expect(
                    reply.answers(inside: here, settings: settings) == (place == destination),
                    "\(purpose) to \(place)")
            }
        }
    }
}

/// The same byte again and again.
struct FixedEntropy: Entropy {
    let byte: UInt8

    mutating func fill(_ bytes: UnsafeMutableRawBufferPointer) {
        for index in bytes.indices { unsafe bytes[index] = byte }
    }

    static func secret(_ byte: UInt8) -> ProbeSecret {
        var entropy = FixedEntropy(byte: byte)
        return ProbeSecret(using: &entropy)
    }
}
