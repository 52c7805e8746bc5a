import Testing

@testable import WireGuard

@Suite("Probes in the data path")
struct ProbeTests {
    private static let links = [
        InsideLink(local: IPAddress("169.254.1.2")!, remote: IPAddress("169.254.1.1")!),
        InsideLink(local: IPAddress("fd00:ff::2")!, remote: IPAddress("fd00:ff::1")!),
    ]
    private static let target4 = IPAddress("10.2.0.9")!
    private static let target6 = IPAddress("fd00:2::9")!

    /// One connection of two tunnels, one inside link of each family, with a target of each.
    private func bundle(
        sockets: [UInt8] = [], role: Role = .initiator, source: IPAddress? = nil,
        translation: PrefixTranslation? = nil
    ) -> TunnelBundle {
        var bundle = TunnelBundle(Self.links, sockets: sockets, role: role)
        bundle.table = ForwardingTable(
            connections: [
                ForwardingTable.Connection(
                    prefixes: [IPPrefix("10.2.0.0/16")!, IPPrefix("fd00:2::/64")!], paths: bundle.paths,
                    watched: [Self.target4, Self.target6], probeSource: source,
                    translation: translation)
            ], mtu: 1420)
        return bundle
    }

    private func request(_ tunnel: Int, payload: [UInt8] = InnerPackets.payload(56)) -> [UInt8] {
        InnerPackets.echo(
            from: Self.links[tunnel].remote, to: Self.links[tunnel].local, payload: payload)
    }

    private func ours(_ count: Int = 16, silence: Duration? = nil) -> [UInt8] {
        InnerPackets.bigEndian(ProbePayload.magic)
            + InnerPackets.bigEndian(ProbePayload.code(silence: silence))
            + InnerPackets.payload(count - 6)
    }

    private func replies(_ bundle: borrowing TunnelBundle) -> [(peer: PeerID, packet: [UInt8], length: Int)] {
        bundle.events(bundle.inboundEvents).compactMap { event in
            guard case .probeReply(let peer, let packet, let length, let at) = event else { return nil }
            #expect(at == bundle.now)
            return (peer, packet, length)
        }
    }

    // MARK: Answering

    @Test(
        "a probe is answered with its whole payload by the tunnel that it came by, and the TUN sees nothing",
        arguments: [0, 1, 7, 8, 9, 56, 100, 1372, 1392, 1472])
    func answered(size: Int) throws {
        var bundle = bundle(sockets: [0, 4])
        for (tunnel, link) in Self.links.enumerated() {
            let payload = InnerPackets.payload(size)
            #expect(bundle.receive([request(tunnel, payload: payload)], by: tunnel).isEmpty)
            let answer = try #require(bundle.answers.first)
            #expect(bundle.answers.count == 1)
            #expect(answer.tunnel == tunnel)
            #expect(answer.underlay == bundle.tunnels[tunnel].underlay)
            #expect(answer.underlay.socket == (tunnel == 0 ? 0 : 4))
            let wanted = InnerPackets.echo(from: link.local, to: link.remote, isReply: true, payload: payload)
            #expect(answer.packet == wanted)
            // Padded as any packet, with zeros.
            #expect(answer.plaintext.count == paddedLength(wanted.count, mtu: 1420))
            #expect(answer.plaintext.dropFirst(wanted.count).allSatisfy { $0 == 0 })
        }
        #expect(bundle.drops.snapshot.isEmpty)
    }

    @Test("what stood behind a probe does not come back as padding")
    func padding() throws {
        var bundle = bundle()
        for tail in 1...16 {
            let probe = request(0, payload: InnerPackets.payload(57))
            #expect(bundle.receive([probe + [UInt8](repeating: 0xee, count: tail)], by: 0).isEmpty)
            let answer = try #require(bundle.answers.first)
            #expect(answer.packet.count == probe.count)
            #expect(answer.plaintext.dropFirst(probe.count).allSatisfy { $0 == 0 })
        }
    }

    @Test("checksums of answers are right at both ends of the ones' complement")
    func checksums() throws {
        var bundle = bundle()
        for tunnel in 0..<2 {
            for high in 0..<256 {
                let payload = [UInt8(high), 0xff, 0xff, UInt8(255 - high), 0, UInt8(high)]
                _ = bundle.receive([request(tunnel, payload: payload)], by: tunnel)
                let answer = try #require(bundle.answers.first?.packet)
                let link = Self.links[tunnel]
                let body = Array(answer[(tunnel == 0 ? 20 : 40)...])
                let sum =
                    tunnel == 0
                    ? InnerPackets.internetChecksum(body)
                    : InnerPackets.transportChecksum(body, from: link.local, to: link.remote, transport: 58)
                #expect(sum == 0)
            }
        }
    }

    @Test("a batch of probes is answered in order, beside packets for the TUN")
    func batch() {
        var bundle = bundle()
        let probes = (0..<20).map { request(0, payload: InnerPackets.payload(40 + $0)) }
        let data = InnerPackets.udp(from: InnerPackets.right4, to: InnerPackets.left4, payload: [1])
        #expect(bundle.receive(probes + [data], by: 0) == [data])
        #expect(bundle.answers.map { $0.packet.dropFirst(28) } == probes.map { $0.dropFirst(28) })
    }

    @Test(
        "the answer goes to where the probe came from; out of a foreign socket group, to where the peer lives"
    )
    func destination() {
        var bundle = bundle(sockets: [2, 0])
        var elsewhere = UnderlayPath(
            endpoint: Endpoint(address: IPAddress("198.51.100.7")!, port: 9), socket: 1)
        let known = bundle.tunnels[0].underlay
        _ = bundle.receive([request(0)], by: 0, from: elsewhere)
        #expect(bundle.answers.map(\.underlay) == [known])
        elsewhere.socket = 2
        _ = bundle.receive([request(0)], by: 0, from: elsewhere)
        #expect(bundle.answers.map(\.underlay) == [elsewhere])
        #expect(bundle.paths[0].underlay == elsewhere)
    }

    @Test("what is no whole echo request from end to end of the link goes to the kernel as it came")
    func others() {
        var bundle = bundle()
        let (local, remote) = (Self.links[0].local, Self.links[0].remote)
        var wrongSum = request(0)
        wrongSum[30] ^= 1
        var wrongHeader = request(0)
        wrongHeader[10] ^= 1
        var code = request(0)
        code[21] = 1
        var fragment = request(0)
        fragment[6] = 0x20
        var options = Array(request(0)[..<20] + [1, 1, 1, 1] + request(0)[20...])
        options[0] = 0x46
        options[3] += 4
        options.replaceSubrange(10..<12, with: [0, 0])
        let sum = InnerPackets.bigEndian(InnerPackets.internetChecksum(Array(options[..<24])))
        options.replaceSubrange(10..<12, with: sum)
        let packets: [[UInt8]] = [
            wrongSum, wrongHeader, code, fragment, options,
            InnerPackets.echo(from: remote, to: IPAddress("10.1.0.1")!, payload: [1]),
            InnerPackets.echo(from: InnerPackets.right4, to: local, payload: [1]),
            InnerPackets.echo(from: remote, to: local, isReply: true, payload: InnerPackets.payload(16)),
            InnerPackets.udp(from: remote, to: local, payload: [1, 2, 3]),
            InnerPackets.tcp(from: remote, to: local, payload: [1, 2, 3]),
            InnerPackets.ip(from: remote, to: local, transport: 1, body: [8, 0, 0xf7]),
            InnerPackets.ip(from: remote, to: local, transport: 1, body: []),
        ]
        for packet in packets {
            #expect(bundle.receive([packet], by: 0) == [packet])
            #expect(bundle.answers.isEmpty)
        }
        // By the other tunnel of the connection it is believed, but it is not that one's probe.
        #expect(bundle.receive([request(0)], by: 1) == [request(0)])
        #expect(bundle.answers.isEmpty)
        #expect(bundle.drops.snapshot.isEmpty)
    }

    @Test("without a session of its own to answer in, a probe is counted and dropped")
    func unanswerable() {
        var bundle = bundle()
        bundle.paths[0].publish(sending: nil)
        #expect(bundle.receive([request(0)], by: 0).isEmpty)
        #expect(bundle.answers.isEmpty)
        #expect(bundle.drops.snapshot == [.probeUnanswerable: 1])
        // The peer has been heard all the same.
        #expect(bundle.paths[0].lastReceived == bundle.now)
        #expect(bundle.paths[0].lastSent == nil)
    }

    @Test("a responder answers under no key that it has not heard used")
    func unconfirmed() {
        var bundle = bundle(role: .responder)
        let tunnel = bundle.tunnels[0]
        let next = Keypair(
            role: .responder, localIndex: 1 << 20, remoteIndex: 5, send: tunnel.ours.sendKey,
            receive: tunnel.ours.receiveKey, path: tunnel.path, createdAt: bundle.now)
        tunnel.path.publish(sending: next)
        #expect(bundle.receive([request(0)], by: 0).isEmpty)
        #expect(bundle.drops.snapshot == [.probeUnanswerable: 1])
        #expect(next.sendCounter == 0)
        tunnel.path.publish(sending: tunnel.ours)
        #expect(bundle.receive([request(0)], by: 0).isEmpty)
        #expect(bundle.answers.count == 1)
    }

    @Test("answers that no longer fit in a batch are counted")
    func tooMany() {
        var bundle = bundle()
        let probes = [[UInt8]](repeating: request(0, payload: InnerPackets.payload(1392)), count: 300)
        #expect(bundle.receive(probes, by: 0).isEmpty)
        #expect(bundle.answers.count == (256 << 10) / 1452)
        #expect(bundle.drops[.probeUnanswerable] == UInt64(300 - bundle.answers.count))
    }

    @Test("an answer counts as sent data: it asks for a new key when its time has come")
    func accounting() {
        var bundle = bundle()
        _ = bundle.receive([request(0)], by: 0)
        let path = bundle.paths[0]
        #expect(path.transmittedPackets == 1)
        #expect(path.transmittedBytes == UInt64(bundle.answers[0].plaintext.count + 32))
        #expect(path.lastSent == bundle.now)
        func count(_ isWanted: (DatapathEvent) -> Bool) -> Int {
            bundle.events(bundle.inboundEvents).count { isWanted($0) }
        }
        #expect(count { if case .dataSent(PeerID(0), at: bundle.now) = $0 { true } else { false } } == 1)
        bundle.now = bundle.now + .seconds(120)
        _ = bundle.receive([request(0)], by: 0)
        #expect(count { if case .rekeyDue(PeerID(0)) = $0 { true } else { false } } == 1)
        bundle.now = bundle.now + .seconds(60)
        _ = bundle.receive([request(0)], by: 0)
        #expect(bundle.answers.isEmpty)
        #expect(bundle.drops.snapshot == [.keypairExpired: 1])
    }

    // MARK: Answers to ours

    @Test(
        "an answer to a probe of ours goes to control, with the tunnel that it came by",
        arguments: [16, 56, 1300])
    func reply(size: Int) {
        var bundle = bundle()
        let answers = Self.links.map {
            InnerPackets.echo(from: $0.remote, to: $0.local, isReply: true, payload: ours(size))
        }
        // From our end's point of view it may come back by the other tunnel.
        for tunnel in 0..<2 {
            for answer in answers {
                #expect(bundle.receive([answer], by: tunnel).isEmpty)
                let replies = replies(bundle)
                #expect(replies.map(\.peer) == [PeerID(tunnel)])
                #expect(replies.first?.packet == Array(answer.prefix(96)))
                #expect(replies.first?.length == answer.count)
            }
        }
        #expect(bundle.answers.isEmpty)
        #expect(bundle.drops.snapshot.isEmpty)
    }

    @Test("targets answer from behind the far gateway")
    func targets() {
        var bundle = bundle()
        for (source, tunnel) in [(Self.target4, 0), (Self.target6, 1)] {
            let local = Self.links[tunnel].local
            let echo = InnerPackets.echo(from: source, to: local, isReply: true, payload: ours())
            #expect(bundle.receive([echo], by: tunnel).isEmpty)
            #expect(replies(bundle).map(\.packet) == [echo])
            // SYN-ACK, RST-ACK: of an open port and of a closed one.
            for flags in [0x12, 0x14] as [UInt8] {
                let answer = tcp(from: source, to: local, flags: flags, port: 61_999)
                #expect(bundle.receive([answer], by: tunnel).isEmpty)
                #expect(replies(bundle).map(\.packet) == [answer])
            }
            // A connection of the host itself.
            for other in [
                tcp(from: source, to: local, flags: 0x12, port: 60_999),
                tcp(from: source, to: local, flags: 0x10, port: 61_000),
                tcp(from: source, to: InnerPackets.left4, flags: 0x12, port: 61_000),
            ] where source.family == .v4 || other[0] >> 4 == 6 {
                #expect(bundle.receive([other], by: tunnel) == [other])
            }
        }
        #expect(replies(bundle).isEmpty)
    }

    @Test("targets answer to the source that they were asked from, and to no other address of this host")
    func targetsOfSource() {
        var bundle = bundle(source: InnerPackets.left4)
        for tunnel in 0...1 {
            let answers = [
                InnerPackets.echo(
                    from: Self.target4, to: InnerPackets.left4, isReply: true, payload: ours()),
                tcp(from: Self.target4, to: InnerPackets.left4, flags: 0x12, port: 61_000),
            ]
            for answer in answers {
                #expect(bundle.receive([answer], by: tunnel).isEmpty)
                #expect(replies(bundle).map(\.packet) == [answer])
            }
            let other = InnerPackets.echo(
                from: Self.target4, to: IPAddress("10.1.0.77")!, isReply: true, payload: ours())
            #expect(bundle.receive([other], by: tunnel) == [other])
        }
    }

    @Test("with nat, targets answer to the source as the far site sees it, which is not translated")
    func targetsOfTranslatedSource() throws {
        let seen = IPAddress("10.99.0.2")!
        let pair = try #require(
            PrefixTranslation.Pair(inside: IPPrefix("10.1.0.0/16")!, outside: IPPrefix("10.99.0.0/16")!))
        var bundle = bundle(source: seen, translation: PrefixTranslation([pair]))
        let answer = InnerPackets.echo(from: Self.target4, to: seen, isReply: true, payload: ours())
        #expect(bundle.receive([answer], by: 0).isEmpty)
        #expect(replies(bundle).map(\.packet) == [answer])
    }

    private func tcp(
        from source: IPAddress, to destination: IPAddress, flags: UInt8, port: UInt16
    ) -> [UInt8] {
        let destination = source.family == destination.family ? destination : InnerPackets.left6
        var packet = InnerPackets.tcp(from: source, to: destination, flags: flags, payload: [])
        let field = source.family == .v4 ? 22 : 42
        packet.replaceSubrange(field..<field + 2, with: [UInt8(port >> 8), UInt8(port & 0xff)])
        return packet
    }

    @Test("echo replies that are not ours go to the TUN")
    func foreignReplies() {
        let (local, remote) = (Self.links[0].local, Self.links[0].remote)
        func reply(_ payload: [UInt8], from source: IPAddress, to destination: IPAddress) -> [UInt8] {
            InnerPackets.echo(from: source, to: destination, isReply: true, payload: payload)
        }
        var bundle = bundle()
        var wrongSum = reply(ours(), from: remote, to: local)
        wrongSum[40] ^= 1
        for packet in [
            reply(Array(ours().reversed()), from: remote, to: local),
            reply(Array(ours().prefix(5)), from: remote, to: local),
            reply(ours(), from: remote, to: InnerPackets.left4),
            reply(ours(), from: InnerPackets.right4, to: local), wrongSum,
        ] { #expect(bundle.receive([packet], by: 0) == [packet]) }
        #expect(replies(bundle).isEmpty)
    }

    // MARK: The far end's word

    @Test("what the far end hears of us is believed from its inside address, of the tunnel that it came by")
    func word() throws {
        var bundle = bundle()
        #expect(bundle.paths[0].farEndsWord == nil)
        _ = bundle.receive([request(0, payload: ours(silence: .milliseconds(450)))], by: 0)
        let word = try #require(bundle.paths[0].farEndsWord)
        #expect(word.saidAt == bundle.now && word.heardAt == bundle.now - .milliseconds(450))
        #expect(bundle.answers.count == 1, "and it is answered")
        for (payload, tunnel) in [(ours(), 1), (InnerPackets.payload(56), 1), (Array(ours().prefix(5)), 1)] {
            _ = bundle.receive([request(tunnel, payload: payload)], by: tunnel)
            #expect(bundle.paths[1].farEndsWord == nil)
        }
        // A machine of the far site, and the far end of another tunnel of it.
        let told = ours(silence: .zero)
        let (here, there) = (Self.links[1].local, Self.links[1].remote)
        for source in [Self.target6, there] {
            let packet = InnerPackets.echo(from: source, to: here, payload: told)
            _ = bundle.receive([packet], by: 0)
        }
        _ = bundle.receive([InnerPackets.echo(from: Self.target6, to: here, payload: told)], by: 1)
        #expect(bundle.paths[1].farEndsWord == nil)
        #expect(bundle.paths[0].farEndsWord?.heardAt == word.heardAt)
    }

    @Test("a silence is told in milliseconds, up to a minute")
    func silence() {
        for (told, heard) in [(0, 0), (0.4, 0), (450, 450), (65_533, 65_533), (1e9, 65_534), (-5, 0)] {
            let code = ProbePayload.code(silence: .milliseconds(told))
            #expect(ProbePayload.silence(code: code) == .milliseconds(heard))
        }
        #expect(ProbePayload.silence(code: ProbePayload.code(silence: nil)) == nil)
    }

    @Test("a flood of answers leaves room for the events that timers hang on")
    func flood() {
        var bundle = bundle()
        let answer = InnerPackets.echo(
            from: Self.links[0].remote, to: Self.links[0].local, isReply: true, payload: ours())
        for _ in 0..<1000 { #expect(bundle.receive([answer], by: 0).isEmpty) }
        #expect(bundle.inboundEvents.handshakeFill == 0, "it is no load of handshakes")
        let dropped = bundle.drops[.probeQueueFull]
        #expect(dropped > 0)
        #expect(bundle.drops.snapshot == [.probeQueueFull: dropped])
        bundle.paths[0].disarmDataReceived()
        _ = bundle.receive([answer], by: 0)
        let events = bundle.events(bundle.inboundEvents)
        #expect(events.count { if case .dataReceived = $0 { true } else { false } } == 2)
        #expect(events.count { if case .probeReply = $0 { true } else { false } } == 1000 - Int(dropped))
    }
}

@Suite("A drill")
struct DrillTests {
    private static let link = InsideLink(local: IPAddress("169.254.1.2")!, remote: IPAddress("169.254.1.1")!)

    private func bundle(role: Role = .initiator) -> TunnelBundle {
        var bundle = TunnelBundle([Self.link, nil], role: role)
        bundle.table = ForwardingTable(
            connections: [
                ForwardingTable.Connection(prefixes: [IPPrefix("10.2.0.0/16")!], paths: bundle.paths)
            ], mtu: 1420)
        return bundle
    }

    @Test("of what would go by a cut path nothing leaves, and nobody is told")
    func outbound() {
        var bundle = bundle()
        let packet = InnerPackets.udp(payload: [1])
        let superpacket = InnerPackets.tcp(payload: InnerPackets.payload(5000))
        bundle.paths[0].setCut(true)
        #expect(bundle.paths[0].isCut)
        #expect(bundle.send([packet]).isEmpty)
        #expect(bundle.send([superpacket], offload: .tcp(.v4, segment: 1000)).isEmpty)
        // Nor is anything staged for a session that there is not.
        bundle.paths[0].publish(sending: nil)
        #expect(bundle.send([packet]).isEmpty)
        bundle.paths[0].setUnderlay(nil)
        #expect(bundle.send([packet]).isEmpty)
        #expect(bundle.replies.isEmpty)
        #expect(bundle.drops.snapshot == [.drilled: 1 + 5 + 1 + 1])
        #expect(bundle.events(bundle.outboundEvents).isEmpty)
        #expect(bundle.paths[0].transmittedPackets == 0)
        bundle.table.activate(1, of: 0)
        #expect(bundle.tunnel(of: packet) == 1)
        bundle.table.activate(0, of: 0)
        bundle.paths[0].setUnderlay(bundle.tunnels[0].underlay)
        bundle.paths[0].publish(sending: bundle.tunnels[0].ours)
        bundle.paths[0].setCut(false)
        #expect(bundle.tunnel(of: packet) == 0)
    }

    @Test("what comes by a cut path has not come: no stamp, no answer, no roaming, no key confirmed")
    func inbound() {
        var bundle = bundle(role: .responder)
        let path = bundle.paths[0]
        let known = path.underlay
        let elsewhere = UnderlayPath(endpoint: Endpoint(address: IPAddress("198.51.100.7")!, port: 9))
        let packets = [
            InnerPackets.udp(from: InnerPackets.right4, to: InnerPackets.left4, payload: [1]),
            InnerPackets.echo(from: Self.link.remote, to: Self.link.local, payload: [1]),
            InnerPackets.echo(
                from: Self.link.remote, to: Self.link.local, isReply: true,
                payload: InnerPackets.bigEndian(ProbePayload.magic) + [0, 0, 1, 2, 3]),
        ]
        path.setCut(true)
        #expect(bundle.receive(packets, by: 0, from: elsewhere).isEmpty)
        #expect(bundle.answers.isEmpty)
        #expect(bundle.drops.snapshot == [.drilled: 3])
        #expect(bundle.events(bundle.inboundEvents).isEmpty)
        #expect(path.underlay == known)
        #expect(path.lastReceived == nil)
        #expect(path.receivedPackets == 0)
        // The other tunnel of the connection is whole.
        #expect(bundle.receive([packets[0]], by: 1) == [packets[0]])
        path.setCut(false)
        #expect(bundle.receive(packets, by: 0, from: elsewhere) == [packets[0]])
        #expect(path.underlay == elsewhere)
        #expect(path.receivedPackets == 3)
    }

    @Test("a path keeps what its underlay was found to carry")
    func innerMTU() {
        let path = TunnelPath(peer: PeerID(0))
        #expect(path.innerMTU == 0)
        path.setInnerMTU(1392)
        #expect(path.innerMTU == 1392)
    }
}
