import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

@Suite("Endpoint selection")
struct EndpointSelectorTests {
    /// A selector on virtual time.
    private struct Bench {
        var selector: EndpointSelector
        var now = Instant(nanoseconds: 5_000_000_000_000)

        init(_ names: String...) {
            selector = EndpointSelector(names.map { Self.name($0) }, now: now)
        }

        /// An address with its port, or a name with its port.
        private static func name(_ text: String) -> EndpointName {
            if let endpoint = Endpoint(text) { return .address(endpoint) }
            let parts = text.split(separator: ":")
            return .name(String(parts[0]), port: UInt16(parts[1])!)
        }

        mutating func outputs() -> [EndpointSelector.Output] {
            var outputs: [EndpointSelector.Output] = []
            while let output = selector.poll() { outputs.append(output) }
            return outputs
        }

        /// Lets so much time pass, with what falls due on the way.
        mutating func pass(_ duration: Duration) -> [(Duration, EndpointSelector.Output)] {
            let start = now
            let end = now + duration
            var found: [(Duration, EndpointSelector.Output)] = []
            while let next = selector.nextTimeout, next <= end {
                now = max(now, next)
                selector.handleTimeout(now: now)
                for output in outputs() { found.append((now - start, output)) }
            }
            now = end
            return found
        }

        mutating func resolved(_ host: String, _ addresses: String..., ttl: Duration = .seconds(300)) {
            selector.resolved(
                host: host, port: 51820,
                addresses.map { ResolvedAddress(IPAddress($0)!, timeToLive: ttl) }, now: now)
        }

        mutating func failed() { selector.failed(now: now) }
        mutating func works() { selector.works(now: now) }
        mutating func roamed(to text: String) { selector.roamed(to: Endpoint(text)!, now: now) }
    }

    private static let a = Endpoint("192.0.2.1:51820")!
    private static let b = Endpoint("192.0.2.2:51820")!
    private static let c = Endpoint("[2001:db8::3]:51820")!

    private func resolve(_ host: String) -> EndpointSelector.Output { .resolve(host: host, port: 51820) }

    @Test func aLinkLocalAddressIsUsedByTheInterfaceThatIsNamed() {
        let name = EndpointName.name("fe80::1%eth0", port: 51820)
        var selector = EndpointSelector([name], now: Instant(nanoseconds: 0))
        #expect(selector.poll() == .resolve(host: "fe80::1%eth0", port: 51820))
        #expect("\(name)" == "[fe80::1%eth0]:51820")
        let address = IPAddress("fe80::1")!
        selector.resolved(
            host: "fe80::1%eth0", port: 51820,
            [ResolvedAddress(address, scope: 4, timeToLive: .seconds(30))], now: Instant(nanoseconds: 0))
        #expect(selector.poll() == .use(Endpoint(address: address, port: 51820, scope: 4)))
    }

    @Test("a name is awaited from the first question to its answer, whatever that is")
    func awaited() {
        var bench = Bench("a.example.com:51820", "192.0.2.2:51820", "b.example.com:51820")
        #expect(bench.selector.awaitedNames == "a.example.com and b.example.com")
        bench.resolved("a.example.com", "192.0.2.1")
        #expect(bench.selector.awaitedNames == "b.example.com")
        bench.selector.resolutionFailed(
            host: "b.example.com", port: 51820, problem: "b.example.com does not resolve", now: bench.now)
        #expect(bench.selector.awaitedNames == nil)
        // It is asked again, and what is known of it stands until then.
        _ = bench.pass(.seconds(30))
        #expect(bench.selector.awaitedNames == nil && bench.selector.problem != nil)
    }

    @Test("without endpoints nothing happens")
    func none() {
        var bench = Bench()
        #expect(bench.selector.nextTimeout == nil)
        bench.failed()
        bench.works()
        bench.roamed(to: "198.51.100.1:9")
        bench.failed()
        #expect(bench.outputs().isEmpty && bench.pass(.seconds(100_000)).isEmpty)
        #expect(bench.selector.current == Endpoint("198.51.100.1:9"))
    }

    @Test("the first address is used at once, and on failure each other one, round and round")
    func addresses() {
        var bench = Bench("192.0.2.1:51820", "192.0.2.2:51820", "[2001:db8::3]:51820")
        #expect(bench.outputs() == [.use(Self.a)])
        for expected in [Self.b, Self.c, Self.a, Self.b] {
            bench.failed()
            #expect(bench.outputs() == [.use(expected)])
            #expect(bench.selector.current == expected)
        }
        #expect(bench.pass(.seconds(100_000)).isEmpty)
    }

    @Test("a failure with one endpoint leaves it in use")
    func single() {
        var bench = Bench("192.0.2.1:51820")
        #expect(bench.outputs() == [.use(Self.a)])
        bench.failed()
        #expect(bench.outputs().isEmpty && bench.selector.current == Self.a)
    }

    @Test("a name's addresses alternate between the families, the resolver's first one first")
    func families() {
        var bench = Bench("vgw.example.com:51820", "192.0.2.9:51820")
        #expect(bench.outputs() == [.use(Endpoint("192.0.2.9:51820")!), resolve("vgw.example.com")])
        bench.resolved(
            "vgw.example.com", "2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.9")
        #expect(
            bench.selector.candidates.map(\.address.description)
                == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.9", "2001:db8::3"])
        // Better, and not tried yet.
        #expect(bench.outputs() == [.use(Endpoint("[2001:db8::1]:51820")!)])
    }

    @Test("addresses that are no host's are not used, and many are cut short")
    func unusable() {
        var bench = Bench("vgw.example.com:51820")
        #expect(bench.outputs() == [resolve("vgw.example.com")])
        bench.resolved("vgw.example.com", "0.0.0.0", "::", "224.0.0.1", "fe80::1", "255.255.255.255")
        #expect(bench.selector.candidates.isEmpty)
        #expect(bench.selector.problem?.contains("vgw.example.com") == true)
        #expect(bench.outputs().isEmpty)
        bench.selector.resolved(
            host: "vgw.example.com", port: 51820,
            (1...100).map { ResolvedAddress(IPAddress("10.0.0.\($0)")!, timeToLive: .seconds(60)) },
            now: bench.now)
        #expect(bench.selector.candidates.count == 16)
        #expect(bench.selector.problem == nil)
    }

    @Test(
        "a name is asked again when its time is up, not before five seconds and not after an hour",
        arguments: [(0, 5), (5, 5), (60, 60), (3600, 3600), (604_800, 3600)])
    func timeToLive(seconds: Int, expected: Int) {
        var bench = Bench("vgw.example.com:51820")
        #expect(bench.outputs() == [resolve("vgw.example.com")])
        // Asked once, until there is an answer.
        #expect(bench.pass(.seconds(10_000)).isEmpty)
        bench.resolved("vgw.example.com", "192.0.2.1", ttl: .seconds(seconds))
        #expect(bench.outputs() == [.use(Self.a)])
        bench.works()
        let found = bench.pass(.seconds(expected))
        #expect(found.map(\.0) == [.seconds(expected)])
        #expect(found.map(\.1) == [resolve("vgw.example.com")])
    }

    @Test("a name that does not resolve is asked again, says why, and keeps the addresses it had")
    func unresolved() {
        var bench = Bench("vgw.example.com:51820")
        _ = bench.outputs()
        bench.selector.resolutionFailed(
            host: "vgw.example.com", port: 51820, problem: "vgw.example.com does not resolve: no",
            now: bench.now)
        #expect(bench.selector.problem == "vgw.example.com does not resolve: no")
        #expect(bench.selector.current == nil)
        #expect(bench.pass(.seconds(30)).map(\.0) == [.seconds(10)])
        bench.resolved("vgw.example.com", "192.0.2.1", ttl: .seconds(60))
        #expect(bench.selector.problem == nil)
        #expect(bench.outputs() == [.use(Self.a)])
        #expect(bench.pass(.seconds(60)).map(\.1) == [resolve("vgw.example.com")])
        bench.selector.resolutionFailed(
            host: "vgw.example.com", port: 51820, problem: "no", retryAfter: .seconds(20), now: bench.now)
        #expect(bench.selector.problem == "no" && bench.selector.candidates == [Self.a])
        #expect(bench.pass(.seconds(25)).map(\.0) == [.seconds(20)])
    }

    @Test("a failure asks the name again, but not within five seconds of its last answer")
    func failureAsks() {
        var bench = Bench("vgw.example.com:51820")
        _ = bench.outputs()
        bench.resolved("vgw.example.com", "192.0.2.1", ttl: .seconds(3600))
        _ = bench.outputs()
        _ = bench.pass(.seconds(2))
        bench.failed()
        #expect(bench.outputs().isEmpty)
        #expect(bench.pass(.seconds(100)).map(\.0) == [.seconds(3)])
        bench.resolved("vgw.example.com", "192.0.2.1", ttl: .seconds(3600))
        _ = bench.pass(.seconds(60))
        bench.failed()
        #expect(bench.outputs() == [resolve("vgw.example.com")])
        // While it is being asked, not again.
        bench.failed()
        #expect(bench.outputs().isEmpty)
    }

    @Test("an address that its name lost is left at once when it does not work, and kept while it does")
    func lostAddress() {
        var bench = Bench("vgw.example.com:51820")
        _ = bench.outputs()
        bench.resolved("vgw.example.com", "192.0.2.1")
        _ = bench.outputs()
        bench.resolved("vgw.example.com", "192.0.2.2")
        #expect(bench.outputs() == [.use(Self.b)])
        bench.works()
        bench.resolved("vgw.example.com", "192.0.2.1", "2001:db8::3")
        #expect(bench.outputs().isEmpty && bench.selector.current == Self.b)
        // Not tested either: it works.
        #expect(bench.pass(.seconds(299)).isEmpty)
        bench.failed()
        #expect(bench.outputs().first == .use(Self.a))
    }

    @Test("the same addresses in another order are no reason to move or to test")
    func roundRobin() {
        var bench = Bench("vgw.example.com:51820")
        _ = bench.outputs()
        bench.resolved("vgw.example.com", "192.0.2.1", "192.0.2.2", ttl: .seconds(3600))
        #expect(bench.outputs() == [.use(Self.a)])
        bench.works()
        bench.resolved("vgw.example.com", "192.0.2.2", "192.0.2.1", ttl: .seconds(3600))
        #expect(bench.outputs().isEmpty)
        #expect(bench.pass(.seconds(3000)).isEmpty)
    }

    @Test("the preferred one is tested ever more rarely while a worse one works, and is kept once it answers")
    func preferred() {
        var bench = Bench("192.0.2.1:51820", "192.0.2.2:51820")
        _ = bench.outputs()
        bench.failed()
        #expect(bench.outputs() == [.use(Self.b)])
        bench.works()
        let tests = bench.pass(.seconds(1300))
        #expect(tests.allSatisfy { $0.1 == .tryPreferred(Self.a) })
        // 10, 20, 40, 80, 160, then each 300 seconds.
        #expect(tests.map(\.0) == [10, 30, 70, 150, 310, 610, 910, 1210].map { .seconds($0) })
        #expect(bench.selector.current == Self.b)
        bench.roamed(to: "192.0.2.1:51820")
        #expect(bench.selector.current == Self.a)
        #expect(bench.outputs().isEmpty && bench.pass(.seconds(100_000)).isEmpty)
        // Away and back: quickly again.
        bench.failed()
        bench.works()
        _ = bench.outputs()
        #expect(bench.pass(.seconds(15)).map(\.0) == [.seconds(10)])
    }

    @Test("each of several better ones is tested in turn")
    func severalBetter() {
        var bench = Bench("192.0.2.1:51820", "192.0.2.2:51820", "[2001:db8::3]:51820")
        bench.failed()
        bench.failed()
        bench.works()
        _ = bench.outputs()
        let tests = bench.pass(.seconds(100))
        #expect(
            tests.map(\.1) == [Self.a, Self.b, Self.a, Self.b, Self.a].map { .tryPreferred($0) })
        #expect(tests.map(\.0) == [10, 20, 40, 60, 100].map { .seconds($0) })
        // The second answers: the first is still better.
        bench.roamed(to: "192.0.2.2:51820")
        #expect(bench.pass(.seconds(10)).map(\.1) == [.tryPreferred(Self.a)])
    }

    @Test("nothing is tested while the tunnel does not work")
    func noTestsWhileDown() {
        var bench = Bench("192.0.2.1:51820", "192.0.2.2:51820")
        bench.failed()
        bench.works()
        bench.failed()
        bench.failed()
        _ = bench.outputs()
        #expect(bench.selector.current == Self.b)
        #expect(bench.pass(.seconds(1000)).isEmpty)
    }

    @Test("a far end that roamed elsewhere is followed, not tested away from, and looked for once it fails")
    func roaming() {
        var bench = Bench("192.0.2.1:51820", "192.0.2.2:51820")
        _ = bench.outputs()
        bench.roamed(to: "198.51.100.7:4242")
        #expect(bench.selector.current == Endpoint("198.51.100.7:4242"))
        #expect(bench.outputs().isEmpty && bench.pass(.seconds(1000)).isEmpty)
        bench.failed()
        #expect(bench.outputs() == [.use(Self.a)])
        bench.failed()
        #expect(bench.outputs() == [.use(Self.b)])
        // It may be there still, and nowhere else.
        bench.failed()
        #expect(bench.outputs() == [.use(Endpoint("198.51.100.7:4242")!)])
        // To a worse one of the list: the better one is tested.
        bench.roamed(to: "192.0.2.2:51820")
        #expect(bench.pass(.seconds(10)).map(\.1) == [.tryPreferred(Self.a)])
    }

    @Test("a better name that resolves late is used while nothing works, and tested while something does")
    func lateName() {
        for isWorking in [false, true] {
            var bench = Bench("vgw.example.com:51820", "192.0.2.2:51820")
            _ = bench.outputs()
            #expect(bench.selector.current == Self.b)
            if isWorking { bench.works() }
            bench.resolved("vgw.example.com", "192.0.2.1", ttl: .seconds(3600))
            #expect(bench.outputs() == (isWorking ? [] : [.use(Self.a)]))
            #expect(bench.pass(.seconds(10)).map(\.1) == (isWorking ? [.tryPreferred(Self.a)] : []))
        }
    }

    @Test("two names for one address are one candidate, and each name is asked in its own time")
    func twoNames() {
        var bench = Bench("a.example.com:51820", "b.example.com:51820")
        #expect(bench.outputs() == [resolve("a.example.com"), resolve("b.example.com")])
        bench.resolved("a.example.com", "192.0.2.1", ttl: .seconds(30))
        bench.resolved("b.example.com", "192.0.2.1", "192.0.2.2", ttl: .seconds(50))
        bench.works()
        _ = bench.outputs()
        #expect(bench.selector.candidates == [Self.a, Self.b])
        #expect(bench.pass(.seconds(60)).map(\.0) == [.seconds(30), .seconds(50)])
    }

    @Test("whatever happens in whatever order, it sends to a candidate and its timers move on")
    func anything() {
        for seed in UInt64(0)..<200 {
            var random = SplitMix(seed: seed)
            var bench = Bench("a.example.com:51820", "192.0.2.1:51820", "b.example.com:51820")
            var heard: Set<Endpoint> = []
            for _ in 0..<300 {
                switch Int.random(in: 0..<7, using: &random) {
                case 0: bench.failed()
                case 1: bench.works()
                case 2:
                    let place = "192.0.2.\(Int.random(in: 1...5, using: &random)):51820"
                    bench.roamed(to: place)
                    heard.insert(Endpoint(place)!)
                case 3:
                    bench.resolved(
                        ["a.example.com", "b.example.com"].randomElement(using: &random)!,
                        "192.0.2.\(Int.random(in: 1...5, using: &random))",
                        "2001:db8::\(Int.random(in: 1...5, using: &random))",
                        ttl: .seconds(Int.random(in: 0...100, using: &random)))
                case 4:
                    bench.selector.resolutionFailed(
                        host: "a.example.com", port: 51820, problem: "no", now: bench.now)
                default:
                    let found = bench.pass(.seconds(Int.random(in: 0...50, using: &random)))
                    #expect(found.count <= 25)
                }
                for case .use(let endpoint) in bench.outputs() {
                    #expect(
                        bench.selector.candidates.contains(endpoint) || heard.contains(endpoint)
                            || endpoint != bench.selector.current)
                }
                #expect(bench.selector.current != nil)
            }
        }
    }
}
