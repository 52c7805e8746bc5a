import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

@Suite struct ProbeStatisticsTests {
    @Test("1. mean, shortest and longest round trip, loss and jitter of what a window has seen")
    func window() throws {
        var statistics = ProbeStatistics()
        for (index, milliseconds) in [10, 20, 10, 40].enumerated() {
            statistics.noteAnswered(
                sentAt: .at(.milliseconds(200 * index)), roundTrip: .milliseconds(milliseconds),
                wasLost: false)
        }
        statistics.noteLost(sentAt: .at(.milliseconds(800)))
        for span in ProbeStatistics.Span.allCases {
            let window = statistics.window(span, at: .at(.milliseconds(850)))
            #expect(window.answered == 4 && window.lost == 1)
            #expect(window.roundTrip == .milliseconds(20))
            #expect(window.shortest == .milliseconds(10) && window.longest == .milliseconds(40))
            // 10, 10 and 30 apart.
            #expect(window.jitter == .microseconds(16_666))
            #expect(window.loss == 0.2)
        }
    }

    @Test("2. nothing sent is no loss and no round trip")
    func empty() {
        var statistics = ProbeStatistics()
        #expect(statistics.window(.minute, at: .at(.zero)) == ProbeStatistics.Window())
        #expect(statistics.window(.minute, at: .at(.zero)).loss == nil)
        statistics.noteLost(sentAt: .at(.zero))
        #expect(statistics.window(.second, at: .at(.zero)).roundTrip == nil)
        #expect(statistics.window(.second, at: .at(.zero)).loss == 1)
        #expect(statistics.window(.minute, at: .at(.seconds(61))).count == 0)
    }

    @Test("3. windows slide, also over long silences", arguments: [1, 10, 60])
    func sliding(seconds: Int) throws {
        let span = try #require(ProbeStatistics.Span(rawValue: seconds))
        var statistics = ProbeStatistics()
        var random = SplitMix(seed: UInt64(seconds))
        var sent: [(at: Instant, roundTrip: Duration?)] = []
        var now = Instant.at(.zero)
        let width: Duration = seconds == 1 ? .milliseconds(100) : .seconds(1)
        for step in 0..<3000 {
            let pause = step % 500 == 499 ? 20 * seconds : 0
            now = now + .milliseconds(Int.random(in: 10...400, using: &random)) + .seconds(pause)
            let roundTrip: Duration? =
                Bool.random(using: &random) ? .milliseconds(Int.random(in: 0...900, using: &random)) : nil
            sent.append((now, roundTrip))
            if let roundTrip {
                statistics.noteAnswered(sentAt: now, roundTrip: roundTrip, wasLost: false)
            } else {
                statistics.noteLost(sentAt: now)
            }
            let window = statistics.window(span, at: now)
            let buckets = Int64(now.nanoseconds) / width.wholeNanoseconds
            let start = (buckets - Int64(seconds == 1 ? 9 : seconds - 1)) * width.wholeNanoseconds
            let inside = sent.reversed().prefix { Int64($0.at.nanoseconds) >= start }
            #expect(window.count == inside.count)
            #expect(window.lost == inside.count { $0.roundTrip == nil })
            let answered = inside.compactMap(\.roundTrip)
            if answered.isEmpty {
                #expect(window.roundTrip == nil)
            } else {
                let mean = answered.reduce(Duration.zero, +) / answered.count
                #expect(abs((window.roundTrip! - mean).wholeNanoseconds) < 2000)
                #expect(window.longest == answered.max() && window.shortest == answered.min())
            }
        }
    }

    @Test("4. a late answer is taken off the losses of the time when its probe was sent")
    func late() {
        var statistics = ProbeStatistics()
        statistics.noteLost(sentAt: .at(.zero))
        statistics.noteLost(sentAt: .at(.seconds(5)))
        statistics.noteAnswered(sentAt: .at(.zero), roundTrip: .seconds(6), wasLost: true)
        let window = statistics.window(.tenSeconds, at: .at(.seconds(6)))
        #expect(window.lost == 1 && window.answered == 1 && window.longest == .seconds(6))
    }

    @Test("5. what is too old, too new or too long is no reason to stop")
    func extremes() {
        var statistics = ProbeStatistics()
        statistics.noteLost(sentAt: .at(.seconds(1000)))
        statistics.noteLost(sentAt: .at(.zero))
        statistics.noteAnswered(sentAt: .at(.seconds(1000)), roundTrip: .seconds(1 << 40), wasLost: true)
        for _ in 0..<70_000 { statistics.noteLost(sentAt: .at(.seconds(1000))) }
        statistics.noteLost(sentAt: Instant(nanoseconds: .max))
        statistics.noteLost(sentAt: Instant(nanoseconds: 0))
        for instant in [Instant(nanoseconds: 0), .at(.zero), Instant(nanoseconds: .max)] {
            for span in ProbeStatistics.Span.allCases {
                _ = statistics.window(span, at: instant)
                _ = statistics.window(span, at: instant, since: Instant(nanoseconds: .max))
            }
        }
    }

    @Test("6. the smoothed round trip and its timeout are those of RFC 6298")
    func estimator() {
        var estimator = RoundTripEstimator()
        let bounds: ClosedRange<Duration> = .milliseconds(50)...(.seconds(1))
        #expect(estimator.timeout(within: bounds) == .seconds(1))
        estimator.add(.milliseconds(100))
        #expect(estimator.smoothed == .milliseconds(100) && estimator.variation == .milliseconds(50))
        #expect(estimator.timeout(within: bounds) == .milliseconds(300))
        estimator.add(.milliseconds(180))
        // 7/8 of 100 and 1/8 of 180; 3/4 of 50 and 1/4 of 80.
        #expect(estimator.smoothed == .milliseconds(110))
        #expect(estimator.variation == .microseconds(57_500))
        #expect(estimator.timeout(within: bounds) == .milliseconds(340))
        for _ in 0..<100 { estimator.add(.microseconds(300)) }
        #expect(estimator.timeout(within: bounds) == .milliseconds(50))
        for sample in [Duration.seconds(1 << 50), .seconds(-(1 << 50)), .zero] { estimator.add(sample) }
        #expect(estimator.timeout(within: bounds) == .seconds(1))
    }
}
