import TestSupport
import Testing

@testable import WireGuard

@Suite("Replay window (RFC 6479)")
struct ReplayWindowTests {
    @Test("counters are taken once, in any order within the window")
    func order() {
        var window = ReplayWindow()
        let size = ReplayWindow.size
        // (counter, taken): the cases of a window's life, in one sequence.
        let steps: [(UInt64, Bool)] = [
            (0, true), (1, true), (1, false), (9, true), (8, true), (7, true), (7, false), (size, true),
            (size - 1, true), (size - 1, false), (2, true), (size + 1, true), (1, false), (size * 3, true),
            (size * 2 + 1, true), (size * 2, false), (size * 2 + 1, false), (size * 3 - 1, true),
            (.max, false), (Protocol.rejectAfterMessages, false), (Protocol.rejectAfterMessages - 1, true),
            (Protocol.rejectAfterMessages - 1, false), (size * 3 + 1, false),
        ]
        for (number, step) in steps.enumerated() {
            #expect(window.accept(step.0) == step.1, "step \(number): \(step.0)")
        }
    }

    @Test("agrees with a set of everything seen", arguments: 0..<20)
    func oracle(seed: Int) {
        var entropy = SplitMix(seed: UInt64(seed + 1))
        var window = ReplayWindow()
        var seen: Set<UInt64> = []
        var greatest: UInt64 = 0
        for _ in 0..<3000 {
            let jump = entropy.next(UInt64.self)
            let counter =
                jump % 5 == 0
                ? greatest &+ jump >> 8 % 20_000 : greatest - min(greatest, jump >> 8 % 10_000)
            let isFresh = !seen.contains(counter) && counter + ReplayWindow.size > greatest
            #expect(window.accept(counter) == isFresh)
            if isFresh { seen.insert(counter) }
            greatest = max(greatest, isFresh ? counter : 0)
        }
    }
}

@Suite("Longest-prefix match")
struct PrefixTableTests {
    /// The slow oracle: look at every prefix.
    func longest(_ entries: [(prefix: IPPrefix, value: Int32)], _ address: IPAddress) -> Int32 {
        var best: (length: Int, value: Int32) = (-1, PrefixTable.none)
        for entry in entries where entry.prefix.contains(address) && entry.prefix.length >= best.length {
            best = (entry.prefix.length, entry.value)
        }
        return best.value
    }

    @Test("agrees with looking at every prefix", arguments: 0..<40)
    func oracle(seed: Int) {
        var entropy = SplitMix(seed: UInt64(seed + 77))
        var entries: [(prefix: IPPrefix, value: Int32)] = []
        for value in 0..<(seed * 3) {
            // Few bits, so that prefixes nest, touch and repeat.
            let bits = entropy.next(UInt8.self)
            if bits & 1 == 0 {
                let length = Int(entropy.next(UInt8.self) % 10)
                let address = IPAddress(v4: UInt32(bits) << 24 | UInt32(entropy.next(UInt8.self) & 3) << 22)
                entries.append((IPPrefix(address: address, length: length)!, Int32(value)))
            } else {
                let length = [0, 1, 3, 7, 8, 9, 126, 127, 128][Int(entropy.next(UInt8.self) % 9)]
                let address = IPAddress(v6: UInt128(bits) << 120 | UInt128(entropy.next(UInt8.self) & 3))
                entries.append((IPPrefix(address: address, length: length)!, Int32(value)))
            }
        }
        let table = PrefixTable(entries)
        for high in UInt32(0)..<256 {
            for low in [0, 1, 0x3f_ffff, 0x40_0000, 0x80_0000, 0xff_ffff] as [UInt32] {
                let address = IPAddress(v4: high << 24 | low)
                #expect(table.lookup(address) == longest(entries, address))
            }
            for low in [0, 1, 2, 3, 4, .max >> 8] as [UInt128] {
                let address = IPAddress(v6: UInt128(high) << 120 | low)
                #expect(table.lookup(address) == longest(entries, address))
            }
        }
    }

    @Test("an empty table and a default route")
    func extremes() {
        let all = PrefixTable([(IPPrefix("0.0.0.0/0")!, 1), (IPPrefix("::/0")!, 2)])
        for text in ["0.0.0.0", "255.255.255.255"] { #expect(all.lookup(IPAddress(text)!) == 1) }
        for text in ["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            #expect(all.lookup(IPAddress(text)!) == 2)
        }
        #expect(PrefixTable([]).lookup(IPAddress("10.0.0.1")!) == PrefixTable.none)
        #expect(PrefixTable([]).lookup(IPAddress("::1")!) == PrefixTable.none)
    }
}

@Suite("Keypairs by index")
struct KeypairTableTests {
    func keypair(_ index: UInt32, path: TunnelPath = TunnelPath(peer: PeerID(0))) -> Keypair {
        let key = TransportKey(
            SecretBytes([UInt8](repeating: 3, count: 32)), cipher: .chacha20Poly1305)
        return Keypair(
            role: .initiator, localIndex: index, remoteIndex: 1, send: key, receive: key,
            path: path, createdAt: Instant(nanoseconds: 1))
    }

    @Test("indices are unique until the table is full, and come back when freed")
    func reservation() {
        let table = KeypairTable(capacity: 16)
        var entropy = SplitMix(seed: 1)
        let indices = (0..<16).compactMap { _ in table.reserveIndex(entropy: &entropy) }
        #expect(Set(indices).count == 16)
        #expect(table.reserveIndex(entropy: &entropy) == nil)
        table.release(indices[3])
        table.release(indices[3])
        #expect(table.reserveIndex(entropy: &entropy) != nil)
        #expect(table.reserveIndex(entropy: &entropy) == nil)
    }

    @Test("an index belongs to the worker that it was asked for", arguments: [2, 3, 7, 64])
    func workers(count: Int) throws {
        let table = KeypairTable(capacity: 4096, workers: count)
        var entropy = SplitMix(seed: 1)
        var indices: Set<UInt32> = []
        for number in 0..<1000 {
            let worker = table.worker(of: PeerID(number))
            let index = try #require(table.reserveIndex(for: worker, entropy: &entropy))
            #expect(KeypairTable.worker(ofIndex: index, among: count) == worker)
            indices.insert(index)
        }
        #expect(indices.count == 1000)
    }

    @Test(
        "a full gateway has an index for each rekey of each peer, however many workers",
        arguments: [1, 2, 3, 7, 48, 64])
    func indicesForAll(workers: Int) {
        let peers = 1024
        let table = KeypairTable(capacity: peers * KeypairTable.indicesPerPeer, workers: workers)
        var entropy = SplitMix(seed: 2)
        // Three keypairs and a handshake, and two that the data threads have yet to let go of.
        var missing = 0
        for peer in 0..<peers {
            for _ in 0..<6 where table.reserveIndex(for: peer % workers, entropy: &entropy) == nil {
                missing += 1
            }
        }
        #expect(missing == 0)
    }

    @Test("a released keypair lives on while a data thread is in its batch, and no longer")
    func reclamation() throws {
        let table = KeypairTable(capacity: 16)
        let epoch = DataThreadEpoch()
        table.register(epoch)
        var entropy = SplitMix(seed: 1)
        let index = try #require(table.reserveIndex(entropy: &entropy))
        weak var watched: Keypair?
        do {
            let keypair = keypair(index)
            watched = keypair
            table.install(keypair)
        }
        epoch.enter()
        #expect(unsafe table.lookup(index) != nil)
        table.release(index)
        #expect(unsafe table.lookup(index) == nil)
        table.reclaim()
        #expect(watched != nil)
        epoch.leave()
        table.reclaim()
        #expect(watched == nil)
        table.unregister(epoch)
    }

    @Test("a keypair that a batch publishes while it is released lives until nobody can seal under it")
    func publishedWhileReleased() throws {
        let table = KeypairTable(capacity: 16)
        let (inbound, outbound) = (DataThreadEpoch(), DataThreadEpoch())
        table.register(inbound)
        table.register(outbound)
        var entropy = SplitMix(seed: 1)
        let (first, second) = (
            try #require(table.reserveIndex(entropy: &entropy)),
            try #require(table.reserveIndex(entropy: &entropy))
        )
        let path = TunnelPath(peer: PeerID(0))
        weak var watched: Keypair?
        do {
            let current = keypair(first, path: path)
            table.install(current)
            path.publish(sending: current)
            let heard = keypair(second, path: path)
            watched = heard
            table.install(heard)
            inbound.enter()
            #expect(table.holds(second))
            table.release(second)
            path.supersede(with: heard, at: Instant(nanoseconds: 2))
        }
        // A batch that begins after the release finds what the other one published.
        outbound.enter()
        #expect(path.sendingIndex == second)
        inbound.leave()
        table.reclaim()
        #expect(watched != nil && path.sendingIndex == nil)
        table.reclaim()
        #expect(watched != nil)
        outbound.leave()
        table.reclaim()
        #expect(watched == nil)
    }

    @Test("what is released while it is published is withdrawn")
    func withdrawn() throws {
        let table = KeypairTable(capacity: 16)
        var entropy = SplitMix(seed: 1)
        let index = try #require(table.reserveIndex(entropy: &entropy))
        let path = TunnelPath(peer: PeerID(0))
        let keypair = keypair(index, path: path)
        table.install(keypair)
        path.publish(sending: keypair)
        table.release(index)
        #expect(path.sendingIndex == nil)
    }

    @Test("a message is led to the worker of its keypair, and to none without one")
    func workerForMessage() throws {
        let table = KeypairTable(capacity: 64, workers: 3)
        var entropy = SplitMix(seed: 1)
        let index = try #require(table.reserveIndex(for: 2, entropy: &entropy))
        let message =
            [4, 0, 0, 0] + (0..<4).map { UInt8(truncatingIfNeeded: index >> (8 * $0)) }
            + [UInt8](repeating: 0, count: 24)
        #expect(throws: DropReason.receiverIndexUnknown) { try table.worker(for: message) }
        table.install(keypair(index))
        #expect(try table.worker(for: message) == 2)
        #expect(throws: DropReason.messageLengthWrong) { try table.worker(for: Array(message.dropLast())) }
    }

    @Test("only the whole index finds a keypair")
    func wholeIndex() throws {
        let table = KeypairTable(capacity: 16)
        var entropy = SplitMix(seed: 1)
        let index = try #require(table.reserveIndex(entropy: &entropy))
        table.install(keypair(index))
        #expect(unsafe table.lookup(index) != nil)
        #expect(unsafe table.lookup(index ^ 0x1000_0000) == nil)
        #expect(unsafe table.lookup(index ^ 1) == nil)
    }
}

@Suite("Events from data thread to control")
struct EventRingTests {
    @Test("everything arrives once, in order, around the end of the memory")
    func wraps() {
        let ring = EventRing(capacity: 4096)
        var entropy = SplitMix(seed: 1)
        var expected: [[UInt8]] = []
        var received: [[UInt8]] = []
        for _ in 0..<2000 {
            let packet = entropy.bytes(Int(entropy.next(UInt16.self) % 600))
            let isTaken = unsafe packet.withUnsafeBytes { bytes in
                unsafe bytes.baseAddress.map { unsafe ring.stage($0, count: packet.count, peer: PeerID(4)) }
                    ?? false
            }
            if isTaken { expected.append(packet) }
            if !isTaken || entropy.next(UInt8.self) < 60 {
                _ = ring.drain { if case .stage(_, let bytes) = $0 { received.append(bytes) } }
            }
        }
        _ = ring.drain { if case .stage(_, let bytes) = $0 { received.append(bytes) } }
        #expect(received == expected)
        #expect(expected.count > 1500)
        #expect(!ring.drain { _ in Issue.record("more than was taken") })
    }

    @Test("the reader is woken once for what waits, and again for what comes after it looked")
    func signals() {
        let ring = EventRing(capacity: 4096)
        #expect(!ring.takeSignal())
        #expect(ring.roamed(PeerID(1)))
        #expect(ring.takeSignal())
        #expect(ring.roamed(PeerID(1)))
        #expect(!ring.takeSignal())
        #expect(ring.drain(limit: 1) { _ in })
        #expect(!ring.drain { _ in })
        #expect(ring.roamed(PeerID(1)))
        #expect(ring.takeSignal())
    }
}
