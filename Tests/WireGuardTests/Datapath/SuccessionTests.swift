import TestSupport
import Testing

@testable import WireGuard

/// A reply that the host gives to a packet, the moment that the packet is written to the TUN, goes under the key and to
/// the endpoint that the packet came by. Control has heard of neither by then.
@Suite("What the inbound thread learns is used at once")
struct SuccessionTests {
    enum News: CaseIterable {
        case newSession, roam, both
    }

    private static let pings = 1000

    @Test("each of 1,000 pings is answered by the key and endpoint that it came by", arguments: News.allCases)
    func pingPong(_ news: News) throws {
        var pair = DatapathPair()
        var back = Outbound(events: pair.right.outboundEvents, drops: pair.right.drops)
        var session = Session(of: pair)
        var underlay = DatapathPair.leftUnderlay
        for number in 0..<Self.pings {
            if news != .roam { session = try Session.begin(pair) }
            if news != .newSession { underlay.endpoint.port = UInt16(1000 + number) }
            let ping = DatapathPair.Sent(datagram: try session.seal(), segmentSize: 0)
            let replies = pair.exchange([ping], from: underlay, by: &back)
            #expect(replies == [Reply(index: session.left.localIndex, endpoint: underlay.endpoint)])
            // Control comes by only now.
            for event in pair.right.events(pair.right.inboundEvents) {
                guard case .keyConfirmed(_, let index) = event else { continue }
                #expect(index == session.right.localIndex)
                pair.right.path.publish(sending: session.right)
            }
            _ = pair.right.events(pair.right.outboundEvents)
        }
        #expect(pair.right.drops.snapshot.isEmpty)
    }

    @Test("a train of good messages and junk is answered for its good half", arguments: [false, true])
    func train(isJunkFirst: Bool) throws {
        var pair = DatapathPair(offloads: false)
        var back = Outbound(events: pair.right.outboundEvents, drops: pair.right.drops)
        let session = try Session.begin(pair)
        var train: [UInt8] = []
        var size = 0
        for number in 0..<60 {
            var message = try session.seal()
            if number.isMultiple(of: 2) == isJunkFirst { message[40] ^= 1 }
            size = message.count
            train += message
        }
        let underlay = UnderlayPath(endpoint: Endpoint(address: IPAddress("198.51.100.7")!, port: 9))
        let replies = pair.exchange(
            [DatapathPair.Sent(datagram: train, segmentSize: size)], from: underlay, by: &back)
        let expected = Reply(index: session.left.localIndex, endpoint: underlay.endpoint)
        #expect(replies == [Reply](repeating: expected, count: 30))
        #expect(pair.right.drops.snapshot == [.authenticationFailed: 30])
    }

    @Test("500 messages in any order are all delivered, each once", arguments: 0..<5)
    func shuffled(seed: Int) throws {
        var pair = DatapathPair(offloads: false)
        var random = SplitMix(seed: UInt64(seed + 1))
        let session = try Session.begin(pair)
        var messages = try (0..<500).map { _ in
            DatapathPair.Sent(datagram: try session.seal(), segmentSize: 0)
        }
        for index in messages.indices.reversed() {
            messages.swapAt(index, Int(random.next(UInt32.self)) % (index + 1))
        }
        var delivered = 0
        while !messages.isEmpty {
            let count = min(messages.count, 1 + Int(random.next(UInt8.self)) % 32)
            delivered += pair.receive(Array(messages.prefix(count))).count
            messages.removeFirst(count)
        }
        #expect(delivered == 500)
        #expect(pair.right.drops.snapshot.isEmpty)
    }

    /// What is published when a keypair is heard for the first time, and what is afterwards.
    enum Published: CaseIterable {
        case nothing, older, newer, expired, olderOnCutPath

        var isReplaced: Bool { self == .older }
    }

    @Test(
        "only an older key in use is replaced: a session ended, a newer key and a cut path stay as they are",
        arguments: Published.allCases)
    func rules(_ published: Published) throws {
        var pair = DatapathPair()
        let path = pair.right.path
        if published == .expired { pair.now = pair.now + .seconds(100) }
        let session = try Session.begin(pair)
        switch published {
        case .nothing: path.publish(sending: nil)
        case .newer: path.publish(sending: try Session.begin(pair).right)
        case .expired: pair.now = pair.now + .seconds(80)
        case .olderOnCutPath: path.setCut(true)
        case .older: break
        }
        let before = path.sendingIndex
        #expect((before == nil) == (published == .nothing))
        _ = pair.receive(try session.seal())
        let expected = published.isReplaced ? session.right.localIndex : before
        #expect(path.sendingIndex == expected)
    }

    @Test(
        "a peer that is heard elsewhere under a session that was replaced is counted, and one that roams is not"
    )
    func heardUnderOldSession() throws {
        var pair = DatapathPair()
        let (here, there) = (Self.underlay("192.0.2.1"), Self.underlay("198.51.100.7"))
        func hear(_ session: borrowing Session, from underlay: UnderlayPath, in pair: inout DatapathPair)
            throws
        {
            let sent = DatapathPair.Sent(datagram: try session.seal(), segmentSize: 0)
            #expect(pair.receive([sent], from: underlay).count == 1)
            #expect(pair.right.path.underlay?.endpoint == underlay.endpoint)
        }
        let first = Session(of: pair)
        for underlay in [here, there, here, there] { try hear(first, from: underlay, in: &pair) }
        let second = try Session.begin(pair)
        try hear(second, from: here, in: &pair)
        try hear(second, from: there, in: &pair)
        #expect(pair.right.path.roamsUnderOldSession == 0)
        // Late, from where it was heard last.
        try hear(first, from: there, in: &pair)
        #expect(pair.right.path.roamsUnderOldSession == 0)
        for count in 1...3 {
            try hear(first, from: here, in: &pair)
            #expect(pair.right.path.roamsUnderOldSession == UInt64(count))
            try hear(second, from: there, in: &pair)
            #expect(pair.right.path.roamsUnderOldSession == UInt64(count))
        }
    }

    private static func underlay(_ address: String) -> UnderlayPath {
        UnderlayPath(endpoint: Endpoint(address: IPAddress(address)!, port: 51820))
    }

    @Test("what the socket refuses is noted with its time until something is sent, and congestion is not")
    func refusedRuns() {
        var pair = DatapathPair()
        func send(_ pair: inout DatapathPair, _ tell: (inout Outbound, SendRun) -> Void) {
            pair.outbound.begin(table: pair.left.table, now: pair.now)
            var buffer = InnerPackets.udp(payload: InnerPackets.payload(64))
            let count = buffer.count
            buffer += [UInt8](repeating: 0, count: 16)
            unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe pair.outbound.add(bytes.baseAddress!, count: count, offload: VirtioNetHeader())
            }
            tell(&pair.outbound, pair.outbound.run(0))
            pair.outbound.sent()
            pair.outbound.finish()
        }
        send(&pair) { $0.runFailed($1, 105, isCongestion: true) }
        #expect(pair.left.path.sendFailure == nil)
        send(&pair) { $0.runFailed($1, 1, isCongestion: false) }
        let failure = pair.left.path.sendFailure
        #expect(failure?.code == 1 && failure.map { pair.now - $0.at < .microseconds(1) } == true)
        send(&pair) { $0.runWasSent($1) }
        #expect(pair.left.path.sendFailure == nil)
    }
}

/// A session of a pair beside its first one.
private struct Session {
    let left: Keypair
    let right: Keypair

    /// The pair's own.
    init(of pair: borrowing DatapathPair) {
        left = pair.left.keypair!
        right = pair.right.keypair!
    }

    private init(left: Keypair, right: Keypair) {
        self.left = left
        self.right = right
    }

    /// Left has initiated; right has yet to hear the key used. What is older than the one before is let go.
    static func begin(_ pair: borrowing DatapathPair) throws -> Session {
        var entropy = SplitMix(seed: UInt64(pair.right.keypair!.serial))
        let index = try #require(pair.right.keypairs.reserveIndex(entropy: &entropy))
        let there = TransportKey(SecretBytes(entropy.bytes(32)), cipher: .chacha20Poly1305)
        let back = TransportKey(SecretBytes(entropy.bytes(32)), cipher: .chacha20Poly1305)
        let left = Keypair(
            role: .initiator, localIndex: index ^ 0x8000_0000, remoteIndex: index, send: there, receive: back,
            path: pair.left.path, createdAt: pair.now)
        let right = Keypair(
            role: .responder, localIndex: index, remoteIndex: index ^ 0x8000_0000, send: back, receive: there,
            path: pair.right.path, createdAt: pair.now)
        pair.right.keypairs.install(right)
        if let previous = pair.right.previous { pair.right.keypairs.release(previous.localIndex) }
        pair.right.previous = pair.right.keypair
        pair.right.keypair = right
        return Session(left: left, right: right)
    }

    /// A ping from left's site to right's.
    func seal() throws -> [UInt8] {
        let ping = InnerPackets.udp(payload: InnerPackets.payload(64))
        return try #require(left.seal(ping, mtu: 1420))
    }
}

private struct Reply: Equatable {
    /// The receiver index in the message.
    var index: UInt32
    var endpoint: Endpoint
}

extension DatapathPair {
    /// One batch from the network to right's TUN, whose host replies to each packet when it is written: how these replies
    /// leave.
    fileprivate mutating func exchange(
        _ datagrams: [Sent], from underlay: UnderlayPath, by back: inout Outbound
    ) -> [Reply] {
        let answer = InnerPackets.udp(
            from: InnerPackets.right4, to: InnerPackets.left4, payload: InnerPackets.payload(64))
        var replies: [Reply] = []
        let (table, now) = (right.table, now)
        _ = receive(datagrams, from: underlay) { _ in
            back.begin(table: table, now: now)
            var buffer = answer + [UInt8](repeating: 0xee, count: 16)
            unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe back.add(bytes.baseAddress!, count: answer.count, offload: VirtioNetHeader())
            }
            for number in 0..<back.runCount {
                let run = back.run(number)
                let header = unsafe TransportHeader(back.bytes(of: run).baseAddress!)
                replies.append(Reply(index: header.receiverIndex, endpoint: run.underlay.endpoint))
            }
            back.sent()
            back.finish()
        }
        return replies
    }
}
