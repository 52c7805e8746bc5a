import Testing

@testable import Gateway
@testable import WireGuard

@Suite struct ToldRefusalsTests {
    private func refusals(_ senders: Range<UInt32>, times: Int = 1, at now: Instant) -> RefusedHandshakes {
        var refused = RefusedHandshakes()
        for sender in senders {
            for _ in 0..<times {
                refused.note(
                    .mac1Invalid, of: nil, from: Endpoint(address: IPAddress(v4: sender), port: 1), now: now)
            }
        }
        return refused
    }

    @Test(
        "a sender is told of once a minute, with the number since, and a flood of senders ten times a minute")
    func rate() throws {
        var told = ToldRefusals()
        var now = Instant(nanoseconds: 1_000_000_000)
        let one = try #require(refusals(1..<2, times: 3, at: now).all.first)
        #expect(told.news(of: one, now: now) == 3)
        let later = try #require(refusals(1..<2, times: 8, at: now).all.first)
        #expect(told.news(of: later, now: now + .seconds(30)) == nil)
        now = now + .seconds(61)
        #expect(told.news(of: later, now: now) == 5)
        #expect(told.news(of: later, now: now + .seconds(61)) == nil)

        var count = 0
        for sender in 2..<UInt32(200) {
            for refusal in refusals(sender..<sender + 1, at: now).all
            where told.news(of: refusal, now: now) != nil {
                count += 1
            }
        }
        #expect(count == 9, "with the one before")
    }
}
