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
                    } else if size <= limit, !isCut, Int.random(in: 0..<100, using: &random) >= loss {
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

    @Test("each size is tried three times, with a small probe beside all but the first")
    func tries() {
        var path = Path(limit: 1400)
        path.begin()
        path.pass(.milliseconds(299), data: false)
        #expect(path.probes.map(\.size) == [1420, 1420, 96, 1420, 96])
        path.pass(.milliseconds(20), data: false)
        #expect(path.probes.last?.size == 1280)
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

    @Test("a health probe's answer counts as a sign of life")
    func healthProbe() {
        var path = Path(limit: 1420)
        path.begin()
        path.pass(.seconds(3))
        // From here on large and small echoes of the search vanish alike; health has answers.
        path.limit = 90
        for _ in 0..<50 {
            path.search.smallAnswered()
            path.pass(.milliseconds(100))
        }
        #expect(path.mtu <= 1280)
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
        path.pass(.milliseconds(400))
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
