import Testing
import WireGuard

@testable import GatewayCore

@Suite struct ToldNewsTests {
    @Test("a kind is told of once a minute, with the number since, and a flood of kinds ten times a minute")
    func rate() throws {
        var told = ToldNews<Int>()
        var now = Instant(nanoseconds: 1_000_000_000)
        #expect(told.news(of: 1, count: 3, now: now) == 3)
        #expect(told.news(of: 1, count: 8, now: now + .seconds(30)) == nil)
        now = now + .seconds(61)
        #expect(told.news(of: 1, count: 8, now: now) == 5)
        #expect(told.news(of: 1, count: 8, now: now + .seconds(61)) == nil)
        let count = (2..<200).count { told.news(of: $0, count: 1, now: now) != nil }
        #expect(count == 9, "with the one before")
    }
}
