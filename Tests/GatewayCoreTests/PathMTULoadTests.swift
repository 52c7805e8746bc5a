import Testing
import WireGuard

@testable import GatewayCore

/// What is lost for its size, and what only looks so.
@Suite("Path MTU under load")
struct PathMTULoadTests {
    struct Load: Sendable, CustomTestStringConvertible {
        /// Of inner packets.
        var size: Int
        /// Bytes a second outside.
        var rate: Double

        var testDescription: String { "\(size) bytes, \(Int(rate / 1000)) kB/s" }
        /// The case, and then small packets, and the largest that there are.
        static let all =
            [Load(size: 1228, rate: 750_000)]
            + [172, 600, 1280, 1420].flatMap { size -> [Load] in
                [550_000, 1_000_000, 2_500_000].map { Load(size: size, rate: $0) }
            }
    }

    @Test("a policer of 500 kB/s that a load is too much for makes no path small", arguments: Load.all)
    func policed(load: Load) {
        for seed in UInt64(0)..<4 {
            var path = SimulatedPath(limit: 1420, seed: seed)
            path.begin()
            path.pass(.seconds(5))
            path.policer = Policer(
                rate: 500_000, loadRate: load.rate, loadSize: load.size, at: path.now, seed: seed)
            path.pass(.seconds(60))
            #expect(path.found.map(\.size) == [1420], "seed \(seed)")
        }
    }

    @Test("what was decided under load is looked at again within a minute of its end")
    func afterTheLoad() {
        var path = SimulatedPath(limit: 1300)
        path.begin()
        path.pass(.seconds(5))
        #expect(path.mtu == 1296)
        path.search.pathChanged(now: path.now)
        path.limit = 1420
        // The search that the change begins finds nothing out.
        path.policer = Policer(rate: 500_000, loadRate: 2_500_000, loadSize: 1228, at: path.now, seed: 1)
        path.pass(.seconds(10))
        #expect(path.mtu < 1420)
        path.policer = nil
        path.pass(.seconds(60))
        #expect(path.mtu == 1420)
    }

    @Test(
        "a path that shrinks under load is found in ten seconds while a tenth of the smaller packets is lost",
        arguments: [5, 10], [20, 200, 700])
    func shrinksUnderLoad(percent: Int, milliseconds: Int) {
        for seed in UInt64(0)..<60 {
            var path = SimulatedPath(limit: 1420, seed: seed)
            path.roundTrip = .milliseconds(milliseconds)
            path.loss = percent
            path.begin()
            path.pass(.seconds(20) + .milliseconds(Int(seed) * 37))
            path.limit = 1350
            path.pass(.seconds(10))
            #expect(path.mtu <= 1350, "seed \(seed)")
            path.pass(.seconds(50))
            #expect((1280...1350).contains(path.mtu), "seed \(seed)")
        }
    }

    @Test("a verdict over what is in use is given again within a minute, and then each ten minutes")
    func secondLook() {
        var path = SimulatedPath(limit: 1420)
        path.begin()
        path.pass(.seconds(10))
        path.limit = 1400
        path.pass(.seconds(10))
        #expect(path.mtu == 1392)
        path.probes = []
        let found = path.now
        path.pass(.seconds(1300))
        let looks = path.probes.filter { $0.size == 1420 }.map { ($0.at - found) / Duration.seconds(1) }
        #expect(looks.contains { $0 < 60 })
        #expect(!looks.contains { (70..<600).contains($0) })
        #expect(looks.contains { (600..<700).contains($0) })
    }
}
