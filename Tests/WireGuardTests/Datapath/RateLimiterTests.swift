import TestSupport
import Testing

@testable import WireGuard

@Suite("Limited rates")
struct RateLimiterTests {
    private static let start = Instant(nanoseconds: 77_000_000_123)

    @Test(
        "what passes in the long run is the rate to the byte, whatever the rate",
        arguments: [
            1_000, 12_345, 125_000, 62_500_000, 1_250_000_001, 12_500_000_000,
        ] as [UInt64])
    func exact(rate: UInt64) {
        let limiter = RateLimiter(rate: rate, largest: 1500, now: Self.start)
        let steps: UInt64 = 10_000
        // A step in which no more than the burst gains, and no whole number of bytes.
        let step = min(1_000_003, (limiter.burst - limiter.reserve) / 2 * 1_000_000_000 / rate)
        var passed: UInt64 = 0
        for number in 0...steps {
            let position = limiter.position(at: Self.start + .nanoseconds(Int64(number * step)))
            while limiter.take(1, of: .bulk, at: position) {
                passed += 1
                // All the rest in one go: single bytes would take for ever.
                var size = 1 << 20
                while size > 0 {
                    if limiter.take(size, of: .bulk, at: position) {
                        passed += UInt64(size)
                    } else {
                        size >>= 1
                    }
                }
            }
        }
        let earned = UInt64((Double(steps * step) * Double(rate) / 1e9).rounded(.down))
        let expected = limiter.burst - limiter.reserve + earned
        #expect(passed >= expected - 1 && passed <= expected + 1)
    }

    @Test("the burst holds a superpacket and ten milliseconds of the rate")
    func burst() {
        let slow = RateLimiter(rate: 10_000, largest: 1500, now: Self.start)
        #expect(slow.take(65_536, of: .bulk, at: 0))
        let fast = RateLimiter(rate: 1_250_000_000, largest: 1500, now: Self.start)
        #expect(fast.take(12_500_000, of: .bulk, at: 0))
        #expect(!fast.take(1, of: .bulk, at: 0))
    }

    @Test("idle time earns one burst, not more")
    func idle() {
        let limiter = RateLimiter(rate: 1_000_000, largest: 1500, now: Self.start)
        let position = limiter.position(at: Self.start + .seconds(86_400))
        #expect(limiter.take(Int(limiter.burst), of: .small, at: position))
        #expect(!limiter.take(1, of: .small, at: position))
    }

    @Test("small finds its reserve however much bulk there is")
    func reserve() {
        let limiter = RateLimiter(rate: 1_000_000, largest: 1500, now: Self.start)
        while limiter.take(1, of: .bulk, at: 0) {}
        #expect(limiter.take(Int(limiter.reserve), of: .small, at: 0))
        #expect(!limiter.take(1, of: .small, at: 0))
    }

    @Test("bulk gets what small leaves, and small all that it asks for below the rate")
    func sharing() {
        let limiter = RateLimiter(rate: 1_000_000, largest: 1500, now: Self.start)
        var small = 0
        var smallRefused = 0
        var bulk = 0
        for millisecond in 0..<10_000 {
            let position = limiter.position(at: Self.start + .milliseconds(millisecond))
            while limiter.take(1500, of: .bulk, at: position) { bulk += 1500 }
            // 600 KB a second of small packets.
            for _ in 0..<3 {
                if limiter.take(200, of: .small, at: position) { small += 200 } else { smallRefused += 1 }
            }
        }
        #expect(smallRefused == 0)
        #expect(small == 6_000_000)
        #expect((4_000_000 - 1500...4_000_000 + Int(limiter.burst)).contains(bulk))
    }

    @Test(
        "a packet goes at the instant that it is told, and not a nanosecond before",
        arguments: [
            1_000, 999_983, 125_000_000, 12_500_000_000,
        ] as [UInt64])
    func opening(rate: UInt64) {
        let limiter = RateLimiter(rate: rate, largest: 1500, now: Self.start)
        for traffic in [QueueClass.bulk, .small] {
            while limiter.take(1500, of: traffic, at: 0) {}
            let opening = limiter.opening(for: 1500, of: traffic)
            #expect(opening > Self.start)
            let before = limiter.position(at: Instant(nanoseconds: opening.nanoseconds - 1))
            #expect(!limiter.take(1500, of: traffic, at: before))
            #expect(limiter.take(1500, of: traffic, at: limiter.position(at: opening)))
        }
    }

    @Test("threads that take at once take no more than there is")
    func threads() async {
        let limiter = RateLimiter(rate: 1_000_000_000, largest: 1500, now: Self.start)
        let taken = await withTaskGroup(of: Int.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    var taken = 0
                    while limiter.take(100, of: .small, at: 0) { taken += 100 }
                    return taken
                }
            }
            return await group.reduce(0, +)
        }
        #expect(taken == Int(limiter.burst) / 100 * 100)
    }

    @Test("a clock that stands before the start, or at the end of time, stops nobody and traps nothing")
    func clocks() {
        let limiter = RateLimiter(rate: .max, largest: 1500, now: Self.start)
        #expect(limiter.rate == RateLimiter.maximumRate)
        #expect(limiter.position(at: Instant(nanoseconds: 5)) == 0)
        _ = limiter.take(1500, of: .bulk, at: limiter.position(at: Instant(nanoseconds: .max)))
    }

    // MARK: Classes

    private func traffic(_ packet: [UInt8]) throws -> QueueClass {
        var packet = packet
        return try InnerPackets.edit(&packet) { QueueClass($0) }
    }

    @Test("the DSCP tells small from bulk", arguments: [0, 1])
    func codepoints(family: Int) throws {
        let (source, destination) = DatapathTests.families[family]
        for codepoint in UInt8(0)..<64 {
            let packet = InnerPackets.tcp(
                from: source, to: destination, payload: [1], tos: codepoint << 2 | 1)
            let isSmall = [34, 36, 38, 40, 44, 46, 48, 56].contains(codepoint)
            #expect(try traffic(packet) == (isSmall ? .small : .bulk))
        }
    }

    @Test(
        "an acknowledgement without data is small; what carries or ends a stream is bulk", arguments: [0, 1])
    func acknowledgements(family: Int) throws {
        let (source, destination) = DatapathTests.families[family]
        func packet(_ flags: UInt8, _ payload: [UInt8], _ options: [UInt8] = []) -> [UInt8] {
            InnerPackets.tcp(from: source, to: destination, flags: flags, payload: payload, options: options)
        }
        #expect(try traffic(packet(0x10, [])) == .small)
        #expect(try traffic(packet(0x10, [], [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0])) == .small)
        #expect(try traffic(packet(0x10, [1])) == .bulk)
        for flags: UInt8 in [0x02, 0x11, 0x14] { #expect(try traffic(packet(flags, [])) == .bulk) }
        #expect(try traffic(InnerPackets.udp(from: source, to: destination, payload: [])) == .bulk)
    }

    // MARK: Queues

    @Test("a queue gives back what it took, in order, round and round its ring")
    func queue() {
        var entropy = SplitMix(seed: 4)
        var queue = PacketQueue(capacity: 10_000)
        var expected: [[UInt8]] = []
        var appended = 0
        for _ in 0..<20_000 {
            if entropy.number(0...2) > 0 {
                let packet = entropy.bytes(entropy.number(0...1500))
                if unsafe packet.withUnsafeBytes({
                    unsafe queue.append($0.baseAddress ?? UnsafeRawPointer(bitPattern: 1)!, count: $0.count)
                }) {
                    expected.append(packet)
                    appended += 1
                } else {
                    // Never refused while half of it is free.
                    #expect(queue.bytes + queue.packets * 31 > 3000)
                }
            } else {
                let first = unsafe queue.first.map { packet -> [UInt8] in
                    // Whoever seals it writes 16 bytes behind it.
                    unsafe memsetBehind(packet)
                    return unsafe Array(packet)
                }
                #expect(first == expected.first)
                if !expected.isEmpty { expected.removeFirst() }
                queue.removeFirst()
            }
            #expect(queue.packets == expected.count)
            #expect(queue.bytes == expected.reduce(0) { $0 + $1.count })
        }
        #expect(appended > 5000)
    }

    private func memsetBehind(_ packet: UnsafeMutableRawBufferPointer) {
        unsafe (packet.baseAddress! + packet.count).storeBytes(of: .max, as: UInt128.self)
    }

    // MARK: Shaping

    private func offer(_ shaper: Shaper, _ packet: [UInt8], _ traffic: QueueClass) -> Shaper.Verdict {
        unsafe packet.withUnsafeBytes { unsafe shaper.offer($0.baseAddress!, count: $0.count, traffic) }
    }

    private func release(_ shaper: Shaper) -> [[UInt8]] {
        var packets: [[UInt8]] = []
        while let packet = unsafe shaper.first, shaper.takeFirst() {
            unsafe packets.append(Array(packet))
            shaper.removeFirst()
        }
        return packets
    }

    @Test("what comes too early waits, goes in order at the rate, and small goes first")
    func shaping() throws {
        let limiter = RateLimiter(rate: 1_000_000, largest: 1500, now: Self.start)
        let shaper = Shaper(limiter: limiter, overhead: 60)
        shaper.begin(now: Self.start)
        #expect(shaper.nextOpening == nil)
        var number: UInt8 = 0
        while offer(shaper, [UInt8](repeating: 1, count: 1000), .bulk) == .send {}
        for index in UInt8(2)...20 {
            number = index
            #expect(offer(shaper, [UInt8](repeating: index, count: 1000), .bulk) == .held)
        }
        // Small still has its reserve; then it waits as well.
        var small = 0
        while offer(shaper, [200], .small) == .send { small += 1 }
        #expect(small > 100)
        #expect(offer(shaper, [201], .small) == .held)
        var order: [UInt8] = []
        var now = Self.start
        while let opening = shaper.nextOpening {
            #expect(opening > now)
            now = opening
            shaper.begin(now: now)
            let packets = release(shaper)
            #expect(!packets.isEmpty)
            order += packets.map { $0[0] }
        }
        #expect(order == [200, 201] + (1...number).map { $0 })
        // 20 of 1008 + 60 bytes at a megabyte a second, and the reserve that small had taken before.
        let took = (now - Self.start).wholeNanoseconds
        #expect((21_000_000...21_400_000 + Int64(limiter.reserve) * 1000 + 2_000_000).contains(took))
    }

    @Test("a queue that is full drops, and a transfer keeps the rate")
    func overload() {
        let limiter = RateLimiter(rate: 10_000_000, largest: 1500, now: Self.start)
        let shaper = Shaper(limiter: limiter, overhead: 60)
        let packet = [UInt8](repeating: 7, count: 1388)
        var sent = 0
        var dropped = 0
        // Twice the rate, for ten seconds.
        for millisecond in 0..<10_000 {
            shaper.begin(now: Self.start + .milliseconds(millisecond))
            sent += release(shaper).count
            for _ in 0..<14 {
                switch offer(shaper, packet, .bulk) {
                case .send: sent += 1
                case .held: break
                case .dropped: dropped += 1
                }
            }
        }
        let wire = sent * (1392 + 60)
        #expect((99_900_000...100_000_000 + Int(limiter.burst)).contains(wire))
        #expect(dropped > 60_000)
    }

    @Test(
        "of two threads at one rate the one that looks later gets its share as well",
        arguments: [true, false])
    func fairness(isOverloaded: Bool) {
        let limiter = RateLimiter(rate: 10_000_000, largest: 1500, now: Self.start)
        let packet = [UInt8](repeating: 7, count: 1388)
        let shapers = [Shaper(limiter: limiter, overhead: 60), Shaper(limiter: limiter, overhead: 60)]
        var sent = [0, 0]
        // A packet takes 145 us: both ask for more than there is, and the first is always there before.
        for step in 0..<100_000 {
            for (index, shaper) in shapers.enumerated() {
                shaper.begin(now: Self.start + .microseconds(100 * step))
                sent[index] += release(shaper).count
                let wanted = index == 1 || isOverloaded ? 3 : step % 3 == 0 ? 2 : 0
                for _ in 0..<wanted where offer(shaper, packet, .bulk) == .send { sent[index] += 1 }
            }
        }
        let all = 10_000_000 * 10 / 1452
        #expect((all - 10...all + Int(limiter.burst) / 1452).contains(sent[0] + sent[1]))
        #expect(sent[1] > all * 2 / 5, "\(sent)")
        #expect(sent[0] > all * 2 / 5, "\(sent)")
    }
}
