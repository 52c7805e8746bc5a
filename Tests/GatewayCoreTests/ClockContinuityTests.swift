import Testing
import WireGuard

@testable import GatewayCore

@Suite struct ClockContinuityTests {
    @Test(
        "sessions are replaced when wall clock and boot time part by more than 5 s between two rounds",
        arguments: [
            (0, nil), (5_000_000_000, nil), (-5_000_000_000, nil), (5_000_000_001, 5_000_000_001),
            (-86_400_000_000_000, -86_400_000_000_000),
        ] as [(Int64, Int64?)])
    func clocks(step: Int64, parting: Int64?) {
        let start: Int64 = 1_700_000_000_000_000_000
        var clocks = ClockContinuity()
        #expect(clocks.parting(realtimeOffset: start) == nil, "the first look compares with nothing")
        #expect(clocks.parting(realtimeOffset: start) == nil)
        #expect(clocks.parting(realtimeOffset: start + step) == parting.map { .nanoseconds($0) })
        #expect(clocks.parting(realtimeOffset: start + step) == nil, "once")
    }

    @Test(
        "a moment is shown as the wall clock goes now, and never as 0, which is never",
        arguments: [
            (0, 1_000_000_000), (-5_000_000_000_000, 1_000_000_000),
            (1_700_000_000_000_000_000, 1_700_000_100_000_000_000),
        ] as [(Int64, Int64)])
    func wallClock(offset: Int64, shown: Int64) {
        let handshake = Instant(nanoseconds: offset == 0 ? 5 : 100_000_000_000)
        #expect(WallClock.unixNanoseconds(of: handshake, realtimeOffset: offset) == shown)
    }

    @Test("a time daemon that slews the clock for days parts nothing")
    func slewing() {
        var clocks = ClockContinuity()
        for round in 0..<100_000 {
            #expect(clocks.parting(realtimeOffset: Int64(round) * 500_000) == nil)
        }
    }
}
