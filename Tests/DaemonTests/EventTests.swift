import ControlAPI
import Testing

@testable import Daemon

/// What tests of events are made of.
enum EventExamples {
    static func event(
        _ kind: GatewayEvent.Kind = .tunnelDown, _ sequence: UInt64 = 0, connection: String? = "aws",
        tunnel: String? = "zone-a"
    ) -> GatewayEvent {
        GatewayEvent(
            time: "2026-11-25T12:33:48.123456789Z", sequence: sequence, kind: kind, connection: connection,
            tunnel: tunnel, from: "up", to: "down", reason: "probe-timeout",
            message: "3 probes are unanswered", details: ["probes": "3"])
    }
}

@Suite struct EventTests {
    @Test(
        "moments are text of one length, in UTC",
        arguments: [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_795_610_028_123_456_789, "2026-11-25T12:33:48.123456789Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (4_107_542_399_999_999_999, "2100-02-28T23:59:59.999999999Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ] as [(Int64, String)])
    func time(_ nanoseconds: Int64, _ text: String) {
        #expect(TimeText.utc(unixNanoseconds: nanoseconds) == text)
    }

    @Test func noMomentTraps() {
        for nanoseconds in [Int64.min, .max] { _ = TimeText.utc(unixNanoseconds: nanoseconds) }
    }

    @Test func anEventIsOneLineOfJSONAndSurvivesIt() throws {
        let event = EventExamples.event(.tunnelDown, 7)
        let bytes = try JSON.encode(EventLine.event(event))
        #expect(
            String(decoding: bytes, as: UTF8.self) == """
                {"connection":"aws","details":{"probes":"3"},"from":"up","kind":"tunnel-down",\
                "message":"3 probes are unanswered","reason":"probe-timeout","sequence":7,\
                "time":"2026-11-25T12:33:48.123456789Z","to":"down","tunnel":"zone-a"}
                """)
        #expect(try JSON.decode(EventLine.self, from: bytes) == .event(event))
        var drilled = event
        drilled.drill = true
        let marked = String(decoding: try JSON.encode(EventLine.event(drilled)), as: UTF8.self)
        #expect(marked.contains("\"drill\":true,") && marked.utf8.count == bytes.count + 13)
    }

    @Test func lostEventsHaveALineOfTheirOwn() throws {
        let bytes = try JSON.encode(EventLine.lost(count: 12))
        #expect(String(decoding: bytes, as: UTF8.self) == #"{"count":12,"kind":"events-lost"}"#)
        #expect(try JSON.decode(EventLine.self, from: bytes) == .lost(count: 12))
    }

    @Test func kindsOfANewerDaemonAreRead() throws {
        let text = #"{"details":{},"kind":"moon-rise","message":"x","sequence":1,"time":"t"}"#
        let line = try JSON.decode(EventLine.self, from: Array(text.utf8))
        guard case .event(let event) = line else { throw APIError(code: .failed, message: "no event") }
        #expect(event.kind.rawValue == "moon-rise")
        #expect(event.connection == nil)
    }

    @Test func kindsAreKebabCaseAndEachIsThereOnce() {
        let names = GatewayEvent.Kind.all.map(\.rawValue)
        #expect(Set(names).count == names.count)
        for name in names { #expect(name.utf8.allSatisfy { (0x61...0x7a).contains($0) || $0 == 0x2d }) }
    }

    // MARK: The log

    private func log(of count: Int, capacity: Int = 4) -> EventLog {
        var log = EventLog(capacity: capacity)
        for _ in 0..<count { _ = log.append(EventExamples.event()) }
        return log
    }

    private func numbers(_ lines: [EventLine]) -> [UInt64] {
        lines.map { line in
            switch line {
            case .event(let event): event.sequence
            case .lost(let count): 1000 + count
            }
        }
    }

    @Test(
        "the log gives what came after a number, and says what is missing of it",
        arguments: [
            (0, nil, []), (0, 0, []), (0, 9, []), (3, nil, [1, 2, 3]), (3, 1, [2, 3]), (3, 3, []),
            (10, nil, [7, 8, 9, 10]), (10, 6, [7, 8, 9, 10]), (10, 8, [9, 10]), (10, 10, []),
            // 3, 4, 5 and 6 are gone.
            (10, 2, [1004, 7, 8, 9, 10]),
            // A number of an earlier run: nothing of this one was seen.
            (3, 500, [1, 2, 3]), (10, 11, [1006, 7, 8, 9, 10]), (10, UInt64.max, [1006, 7, 8, 9, 10]),
        ] as [(Int, UInt64?, [UInt64])])
    func since(_ count: Int, _ since: UInt64?, _ wanted: [UInt64]) {
        #expect(numbers(log(of: count).lines(after: since)) == wanted)
    }

    @Test func theLogKeepsAThousand() {
        #expect(log(of: 1500, capacity: EventLog.capacity).lines(after: nil).count == 1000)
    }

    // MARK: Followers

    @Test func aFollowerGetsEachEventInOrder() async throws {
        let hub = EventHub()
        let follower = try hub.follow()
        for number in UInt64(1)...3 { hub.publish(EventExamples.event(.tunnelUp, number)) }
        let first = await follower.next()
        #expect(numbers(first ?? []) == [1, 2, 3])
        async let later = follower.next()
        hub.publish(EventExamples.event(.tunnelUp, 4))
        #expect(numbers(await later ?? []) == [4])
    }

    @Test func aSlowFollowerLosesTheOldestAndIsTold() async throws {
        let hub = EventHub()
        let slow = try hub.follow(capacity: 3)
        let fast = try hub.follow()
        for number in UInt64(1)...10 { hub.publish(EventExamples.event(.tunnelUp, number)) }
        #expect(numbers(await slow.next() ?? []) == [1007, 8, 9, 10])
        #expect(numbers(await fast.next() ?? []) == Array(1...10))
        hub.publish(EventExamples.event(.tunnelUp, 11))
        #expect(numbers(await slow.next() ?? []) == [11])
    }

    @Test func theEndComesAfterWhatWasNotReadYet() async throws {
        let hub = EventHub()
        let (reading, waiting) = (try hub.follow(), try hub.follow())
        async let end = waiting.next()
        hub.publish(EventExamples.event(.stopping, 1))
        hub.end()
        hub.publish(EventExamples.event(.started, 2))
        #expect(numbers(await reading.next() ?? []) == [1])
        #expect(await reading.next() == nil)
        #expect(await reading.next() == nil)
        // It had the event, or none: and then the end.
        if await end != nil { #expect(await waiting.next() == nil) }
        #expect(throws: APIError.self) { try hub.follow() }
    }

    @Test func aCancelledReaderIsLetGo() async throws {
        let hub = EventHub()
        let follower = try hub.follow()
        let task = Task { await follower.next() }
        task.cancel()
        #expect(await task.value == nil)
    }

    @Test func followersAreLimitedAndAPlaceIsFreeOnceOneIsGone() throws {
        let hub = EventHub(limit: 2)
        let first = try hub.follow()
        do {
            let second = try hub.follow()
            let error = #expect(throws: APIError.self) { try hub.follow() }
            #expect(error?.code == .unavailable)
            second.end()
        }
        let third = try hub.follow()
        #expect(throws: APIError.self) { try hub.follow() }
        withExtendedLifetime((first, third)) {}
    }
}
