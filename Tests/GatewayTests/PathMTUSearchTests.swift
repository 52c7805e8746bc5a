import Testing
import WireGuard

@testable import Gateway

@Suite("Path MTU search")
struct PathMTUSearchTests {
    /// A search over a path that carries so much, on virtual time.
    private struct Path {
        var search: PathMTUSearch
        var now = Instant(nanoseconds: 9_000_000_000_000)
        /// The largest inner packet that passes.
        var limit: Int
        var roundTrip: Duration = .milliseconds(20)
        /// Of a packet and its answer together, in percent.
        var loss = 0
        var isCut = false
        /// What is in the way of both directions.
        var policer: Policer?
        /// EMSGSIZE from here on.
        var localLimit = Int.max
        var random: SeededRandom
        var answers: [(at: Instant, sequence: UInt32)] = []
        var found: [(at: Instant, size: Int)] = []
        var probes: [(at: Instant, size: Int)] = []

        init(limit: Int, maximum: Int = 1420, seed: UInt64 = 1) {
            search = PathMTUSearch(maximum: maximum)
            self.limit = limit
            random = SeededRandom(seed: seed)
        }

        var mtu: Int { search.innerMTU }

        mutating func take() {
            while let output = search.poll() {
                switch output {
                case .found(let size): found.append((now, size))
                case .probe(let size, let sequence):
                    probes.append((now, size))
                    if size > localLimit {
                        search.sendTooBig(size: size, now: now)
                    } else if size <= limit, !isCut, Int.random(in: 0..<100, using: &random) >= loss,
                        policer?.passes(size, at: now) ?? true
                    {
                        answers.append((now + roundTrip, sequence))
                    }
                }
            }
        }

        /// Lets time pass; with data, some is sent each half second.
        mutating func pass(_ duration: Duration, data: Bool = true) {
            take()
            let end = now + duration
            var nextData = data ? now : Instant(nanoseconds: .max)
            while true {
                let answer = answers.map(\.at).min() ?? Instant(nanoseconds: .max)
                let next = min(search.nextTimeout ?? Instant(nanoseconds: .max), min(answer, nextData))
                guard next <= end else { break }
                now = max(now, next)
                if answer <= now {
                    let index = answers.firstIndex { $0.at == answer }!
                    search.probeAnswered(sequence: answers.remove(at: index).sequence, now: now)
                }
                if nextData <= now {
                    search.dataSent(now: now)
                    nextData = now + .milliseconds(500)
                }
                search.handleTimeout(now: now)
                take()
            }
            now = end
        }

        mutating func begin() {
            search.setRoundTrip(roundTrip)
            search.sessionBegan(now: now)
            take()
        }
    }

    /// `limit rate over RATE drop` of nftables, and a load of packets of one size at random moments that it is too
    /// little for. Sizes are of inner packets.
    private struct Policer {
        /// Bytes a second.
        let rate: Double
        let loadRate: Double
        let loadSize: Int
        private var tokens: Double
        private var last: Instant
        private var nextLoad: Instant
        private var random: SeededRandom

        init(rate: Double, loadRate: Double, loadSize: Int, at now: Instant, seed: UInt64) {
            self.rate = rate
            self.loadRate = loadRate
            self.loadSize = loadSize
            tokens = rate
            last = now
            nextLoad = now
            random = SeededRandom(seed: seed)
        }

        mutating func passes(_ size: Int, at now: Instant) -> Bool {
            while nextLoad <= now {
                _ = take(loadSize, at: nextLoad)
                // Within half of the mean and one and a half: what senders and queues make of a steady load.
                let mean = Double(Self.outer(loadSize)) / loadRate
                let pause = mean * Double.random(in: 0.5...1.5, using: &random)
                nextLoad = nextLoad + .nanoseconds(Int64(pause * 1e9))
            }
            return take(size, at: now)
        }

        private mutating func take(_ size: Int, at now: Instant) -> Bool {
            let passed = Double((now - last).wholeNanoseconds) / 1e9
            tokens = min(tokens + passed * rate, rate)
            last = now
            guard tokens >= Double(Self.outer(size)) else { return false }
            tokens -= Double(Self.outer(size))
            return true
        }

        private static func outer(_ size: Int) -> Int { (size + 15) / 16 * 16 + 60 }
    }

    /// What is to be found of a limit: a multiple of 16, or all of the maximum.
    private func expected(_ limit: Int, maximum: Int = 1420) -> Int {
        limit >= maximum ? maximum : max(limit / 16 * 16, PathMTUSearch.floor)
    }

    @Test("a path that carries the largest is known after one probe")
    func largest() {
        var path = Path(limit: 1420)
        path.begin()
        #expect(path.mtu == 1420)
        path.pass(.seconds(1), data: false)
        #expect(path.probes.map(\.size) == [1420] && path.found.map(\.size) == [1420])
    }

    @Test("what passes is found, whatever it is", arguments: [1420, 1500, 1280, 8921, 65_000])
    func anyLimit(maximum: Int) {
        for limit in stride(from: 576, through: maximum + 40, by: maximum > 2000 ? 397 : 7) {
            var path = Path(limit: limit, maximum: maximum)
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
        var path = Path(limit: 1300)
        path.begin()
        path.pass(.milliseconds(1500))
        #expect(path.mtu <= 1300)
    }

    @Test("a size is given up after twelve rounds in which it is lost and a smaller one is not")
    func rounds() {
        var path = Path(limit: 1400)
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
        var path = Path(limit: 1388)
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
        var path = Path(limit: 1420)
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
            var path = Path(limit: 1420)
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
            var path = Path(limit: 1388)
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
        var path = Path(limit: 1340)
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
        var path = Path(limit: 1400)
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
        var path = Path(limit: 1420)
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
        var path = Path(limit: 1420)
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
            var path = Path(limit: 1372, seed: seed)
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
            var path = Path(limit: 1420, seed: seed)
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
            var path = Path(limit: 1420, seed: seed)
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
        var path = Path(limit: 1300)
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
            var path = Path(limit: 1420, seed: seed)
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
        var path = Path(limit: 1420)
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

    @Test(
        "a path that changes a thousand times a second is confirmed once a second", arguments: [true, false])
    func roaming(isDead: Bool) {
        var path = Path(limit: 1420)
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
        var path = Path(limit: 1420)
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
            var random = SeededRandom(seed: seed)
            var path = Path(limit: 1420, seed: seed)
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
        var path = Path(limit: 1420)
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
        var path = Path(limit: 1380)
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
        var path = Path(limit: 1380)
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
        var path = Path(limit: 1500)
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
        var path = Path(limit: 1420)
        path.search.setRoundTrip(.milliseconds(1))
        path.roundTrip = .milliseconds(250)
        path.search.sessionBegan(now: path.now)
        path.pass(.seconds(1), data: false)
        #expect(path.mtu == 1420)
    }
}
