import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

@Suite("Path MTU search")
struct PathMTUSearchTests {
    /// What is to be found of a limit: a multiple of 16, or all of the maximum.
    private func expected(_ limit: Int, maximum: Int = 1420) -> Int {
        limit >= maximum ? maximum : max(limit / 16 * 16, PathMTUSearch.floor)
    }

    @Test("a path that carries the largest is known after one probe")
    func largest() {
        var path = SimulatedPath(limit: 1420)
        path.begin()
        #expect(path.mtu == 1420)
        path.pass(.seconds(1), data: false)
        #expect(path.probes.map(\.size) == [1420] && path.found.map(\.size) == [1420])
    }

    @Test("what passes is found, whatever it is", arguments: [1420, 1500, 1280, 8921, 65_000])
    func anyLimit(maximum: Int) {
        for limit in stride(from: 576, through: maximum + 40, by: maximum > 2000 ? 397 : 7) {
            var path = SimulatedPath(limit: limit, maximum: maximum)
            path.begin()
            path.pass(.seconds(60), data: false)
            #expect(path.mtu == expected(limit, maximum: maximum), "limit \(limit)")
            #expect(!path.search.isSearching)
            // Before it is known, what is used passes, but for the first moments.
            #expect(path.found.dropLast().allSatisfy { $0.size <= limit || $0.size == PathMTUSearch.base })
        }
    }

    @Test("what is used passes within a second and a half of the session's begin")
    func firstMoments() {
        var path = SimulatedPath(limit: 1300)
        path.begin()
        path.pass(.milliseconds(1500))
        #expect(path.mtu <= 1300)
    }

    @Test("a size is given up after twelve rounds in which it is lost and a smaller one is not")
    func rounds() {
        var path = SimulatedPath(limit: 1400)
        path.begin()
        path.pass(.milliseconds(1299), data: false)
        let round = [1420, 1280]
        let rounds = Array(repeating: round, count: 11).flatMap(\.self)
        #expect(path.probes.map(\.size) == [1420, 1420, 1280, 1024, 768, 576] + rounds)
        #expect(path.mtu == 1420)
        path.pass(.milliseconds(200), data: false)
        #expect(path.found.map(\.size) == [1280])
    }

    @Test("an idle tunnel sends no probe, and one without a session neither")
    func idle() {
        var path = SimulatedPath(limit: 1388)
        path.pass(.seconds(100))
        #expect(path.probes.isEmpty && path.search.nextTimeout == nil)
        path.begin()
        path.pass(.seconds(10), data: false)
        let count = path.probes.count
        path.pass(.seconds(100_000), data: false)
        #expect(path.probes.count == count && path.search.nextTimeout == nil)
        path.search.sessionEnded()
        path.pass(.seconds(1000))
        #expect(path.probes.count == count)
    }

    @Test("while data flows the size in use is confirmed every two seconds, with one packet")
    func confirmations() {
        var path = SimulatedPath(limit: 1420)
        path.begin()
        path.pass(.seconds(1))
        path.probes = []
        path.pass(.seconds(100))
        #expect(path.probes.allSatisfy { $0.size == 1420 })
        #expect((45...50).contains(path.probes.count))
    }

    @Test(
        "a path that shrinks works again in less than five seconds, and is then used for what it carries",
        arguments: [1408, 1406, 1350, 1281, 1280], [20, 200, 700])
    func shrinks(limit: Int, milliseconds: Int) {
        for offset in 0..<20 {
            var path = SimulatedPath(limit: 1420)
            path.roundTrip = .milliseconds(milliseconds)
            path.begin()
            path.pass(.seconds(10) + .milliseconds(offset * 100))
            #expect(path.mtu == 1420)
            path.limit = limit
            path.pass(.seconds(5))
            #expect(path.mtu <= limit)
            path.pass(.seconds(40))
            #expect(path.mtu == expected(limit))
        }
    }

    @Test("a path that shrinks while larger sizes are being tried works again as soon")
    func shrinksDuringSearch() {
        for offset in 0..<60 {
            var path = SimulatedPath(limit: 1388)
            path.roundTrip = .milliseconds(150)
            path.begin()
            path.pass(.seconds(630))
            path.search.pathChanged(now: path.now)
            path.pass(.milliseconds(offset * 100))
            path.limit = 1300
            path.pass(.seconds(5))
            #expect(path.mtu <= 1300, "offset \(offset)")
            path.pass(.seconds(700))
            #expect(path.mtu == 1296)
        }
    }

    @Test("a path that grows is used for it within ten minutes of data, and not without")
    func grows() {
        var path = SimulatedPath(limit: 1340)
        path.begin()
        path.pass(.seconds(30))
        #expect(path.mtu == 1328)
        path.limit = 1420
        path.pass(.seconds(5000), data: false)
        #expect(path.mtu == 1328)
        path.pass(.seconds(5))
        #expect(path.mtu == 1420)
        path.limit = 1402
        path.pass(.seconds(20))
        #expect(path.mtu == 1392)
        path.limit = 1412
        path.pass(.seconds(615))
        #expect(path.mtu == 1408)
    }

    @Test("a path that carries nothing at all is no small path: what was found stays")
    func cut() {
        var path = SimulatedPath(limit: 1400)
        path.begin()
        path.pass(.seconds(10))
        #expect(path.mtu == 1392)
        path.isCut = true
        path.pass(.seconds(300))
        #expect(path.mtu == 1392)
        path.isCut = false
        path.limit = 1300
        path.pass(.seconds(5))
        #expect(path.mtu <= 1300)
        path.pass(.seconds(20))
        #expect(path.mtu == 1296)
    }

    @Test("a far end that answers no probe leaves the largest in use, and is asked ever more rarely")
    func silentPeer() {
        var path = SimulatedPath(limit: 1420)
        path.isCut = true
        path.begin()
        path.pass(.seconds(3600))
        #expect(path.mtu == 1420 && path.found.isEmpty)
        #expect(path.probes.count < 80)
        path.isCut = false
        path.pass(.seconds(601))
        #expect(path.found.map(\.size) == [1420])
    }

    @Test("where not even the base passes, what does is found", arguments: [600, 900, 1200, 1279])
    func belowBase(limit: Int) {
        var path = SimulatedPath(limit: 1420)
        path.begin()
        path.pass(.seconds(5))
        path.limit = limit
        path.pass(.seconds(60))
        #expect(path.mtu == limit / 16 * 16)
    }

    @Test("loss slows a search down, and does not mislead it for long", arguments: [2, 5, 10])
    func loss(percent: Int) {
        var exact = 0
        for seed in UInt64(0)..<100 {
            var path = SimulatedPath(limit: 1372, seed: seed)
            path.loss = percent
            path.begin()
            path.pass(.seconds(120))
            #expect(path.mtu <= 1372)
            if path.mtu == 1360 { exact += 1 }
            path.limit = 1420
            path.pass(.seconds(1300))
            #expect(path.mtu >= 1280)
        }
        #expect(exact >= (percent > 5 ? 90 : 98))
    }

    @Test("loss without a smaller path costs nothing lasting")
    func lossAlone() {
        for seed in UInt64(0)..<20 {
            var path = SimulatedPath(limit: 1420, seed: seed)
            path.loss = 5
            path.begin()
            path.pass(.seconds(1800))
            let before = path.found.filter { $0.size < 1420 }.count
            #expect(before <= 2)
            path.loss = 0
            path.pass(.seconds(700))
            #expect(path.mtu == 1420)
        }
    }

    @Test(
        "a path that changes a thousand times a second is confirmed once a second", arguments: [true, false])
    func roaming(isDead: Bool) {
        var path = SimulatedPath(limit: 1420)
        path.begin()
        path.pass(.seconds(10))
        path.probes = []
        path.isCut = isDead
        for _ in 0..<10_000 {
            path.search.pathChanged(now: path.now)
            path.pass(.milliseconds(1), data: false)
        }
        let large = path.probes.count { $0.size == 1420 }
        // One a second, and where it is not answered a second try.
        #expect((9...(isDead ? 22 : 11)).contains(large))
        path.isCut = false
        path.limit = 1300
        path.pass(.seconds(7))
        #expect(path.mtu <= 1300)
    }

    @Test("before anything is known, too, a change of the path begins one search a second")
    func roamingAtFirst() {
        var path = SimulatedPath(limit: 1420)
        path.isCut = true
        path.begin()
        for _ in 0..<5000 {
            path.search.pathChanged(now: path.now)
            path.pass(.milliseconds(1), data: false)
        }
        #expect(path.probes.count { $0.size == 1420 } <= 12)
    }

    @Test("a path that changes at random is followed, and never overestimated for five seconds")
    func random() {
        for seed in UInt64(0)..<100 {
            var random = SplitMix(seed: seed)
            var path = SimulatedPath(limit: 1420, seed: seed)
            path.roundTrip = .milliseconds(Int.random(in: 1...300, using: &random))
            path.begin()
            path.pass(.seconds(5))
            for _ in 0..<20 {
                path.limit = Int.random(in: 1280...1450, using: &random)
                path.pass(.milliseconds(Int.random(in: 5500...90_000, using: &random)))
                #expect(path.mtu <= path.limit)
            }
            path.pass(.seconds(700))
            #expect(path.mtu == expected(path.limit))
        }
    }

    @Test("an interface that refuses a size is believed at once")
    func refused() {
        var path = SimulatedPath(limit: 1420)
        path.localLimit = 1350
        path.begin()
        path.pass(.milliseconds(500))
        #expect(path.mtu == 1344)
        path.search.sendTooBig(size: 1340, now: path.now)
        path.localLimit = 1330
        #expect(path.mtu == 1280)
        // What was sent before that is refused as well, and says nothing new.
        path.search.sendTooBig(size: 1344, now: path.now)
        path.search.sendTooBig(now: path.now)
        #expect(path.mtu == 1280)
        path.pass(.seconds(1))
        #expect(path.mtu == 1328)
    }

    @Test("another path is confirmed, and searched, at once", arguments: [1300, 1420])
    func pathChanged(limit: Int) {
        var path = SimulatedPath(limit: 1380)
        path.begin()
        path.pass(.seconds(10))
        #expect(path.mtu == 1376)
        path.limit = limit
        path.search.pathChanged(now: path.now)
        path.pass(.seconds(5))
        #expect(path.mtu == expected(limit))
    }

    @Test("a session that ends in the middle of a search takes it up again with the next one's data")
    func endInSearch() {
        var path = SimulatedPath(limit: 1380)
        path.begin()
        path.pass(.milliseconds(1500))
        #expect(path.search.isSearching && path.mtu == 1280)
        path.search.sessionEnded()
        path.answers = []
        path.pass(.seconds(100))
        path.begin()
        path.pass(.seconds(5))
        #expect(path.mtu == 1376)
        // A rekey changes nothing.
        let count = path.probes.count
        path.search.sessionBegan(now: path.now)
        path.pass(.seconds(1), data: false)
        #expect(path.probes.count <= count + 1)
    }

    @Test("another largest size is heeded, smaller at once and larger after a probe")
    func maximumChanged() {
        var path = SimulatedPath(limit: 1500)
        path.begin()
        path.pass(.seconds(3))
        path.search.maximumChanged(to: 1350, now: path.now)
        #expect(path.mtu == 1350)
        path.pass(.seconds(3))
        #expect(path.mtu == 1350 && !path.search.isSearching)
        path.search.maximumChanged(to: 1480, now: path.now)
        #expect(path.mtu == 1350)
        path.pass(.seconds(1))
        #expect(path.mtu == 1480)
    }

    @Test("an answer that comes late still tells")
    func late() {
        var path = SimulatedPath(limit: 1420)
        path.search.setRoundTrip(.milliseconds(1))
        path.roundTrip = .milliseconds(250)
        path.search.sessionBegan(now: path.now)
        path.pass(.seconds(1), data: false)
        #expect(path.mtu == 1420)
    }
}
