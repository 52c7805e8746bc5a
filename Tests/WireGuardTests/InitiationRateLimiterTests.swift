import Testing
import WireGuard

@Suite struct InitiationRateLimiterTests {
    let address = IPAddress(v4: 0xc000_0201)

    /// What the limiter says to one attempt at each of these times, in seconds.
    private func answers(
        of limiter: inout InitiationRateLimiter, to address: IPAddress, at times: [Double]
    ) -> [Bool] {
        times.map { limiter.allow(address, now: .at($0)) }
    }

    @Test("five at once, then one each 50 ms")
    func burst() {
        var limiter = InitiationRateLimiter()
        let first = answers(of: &limiter, to: address, at: [0, 0, 0, 0, 0, 0, 0.0499])
        #expect(first == [true, true, true, true, true, false, false])
        let then = answers(of: &limiter, to: address, at: [0.0501, 0.0502, 0.1002, 0.1502])
        #expect(then == [true, false, true, true])
    }

    @Test("over ten seconds of blasting, 20 a second and the burst", arguments: [1.0, 3.0, 7.0, 50.0])
    func rate(milliseconds: Double) {
        var limiter = InitiationRateLimiter()
        let times = (0..<Int(10_000 / milliseconds)).map { Double($0) * milliseconds / 1000 }
        let allowed = answers(of: &limiter, to: address, at: times).count { $0 }
        #expect((200...205).contains(allowed))
    }

    @Test("waiting saves up no more than the burst")
    func saturation() {
        var limiter = InitiationRateLimiter()
        _ = limiter.allow(address, now: .at(0))
        let allowed = answers(of: &limiter, to: address, at: Array(repeating: 3600, count: 20)).count { $0 }
        #expect(allowed == 5)
    }

    @Test("IPv4 addresses are counted each, IPv6 by their /64, and the families apart")
    func aggregation() throws {
        var limiter = InitiationRateLimiter()
        for text in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "::", "0.0.0.0"] {
            let source = try #require(IPAddress(text))
            let allowed = answers(of: &limiter, to: source, at: Array(repeating: 0, count: 9)).count { $0 }
            #expect(allowed == 5, "\(text)")
        }
        let sibling = try #require(IPAddress("2001:db8::ffff:ffff:ffff:ffff"))
        let allowed = limiter.allow(sibling, now: .at(0))
        #expect(!allowed)
    }

    @Test("memory is bounded: past the capacity new addresses wait, known ones and the next second do not")
    func bound() {
        var limiter = InitiationRateLimiter(capacity: 100)
        let allowed = (0..<10_000).count { limiter.allow(IPAddress(v4: $0), now: .at(0)) }
        #expect(allowed == 100)
        #expect(limiter.count == 100)
        let known = limiter.allow(IPAddress(v4: 0), now: .at(0.5))
        #expect(known)
        for second in UInt32(1)...20 {
            let fresh = (0..<1000).count {
                limiter.allow(IPAddress(v4: second * 1000 + $0), now: .at(Double(second)))
            }
            #expect(fresh == 100)
            #expect(limiter.count <= 200)
        }
    }

    @Test("the turn of a generation gives nobody a token more")
    func generations() {
        var limiter = InitiationRateLimiter(capacity: 4)
        // The first generation begins with the first attempt, and turns a second later.
        let answers = answers(
            of: &limiter, to: address, at: [0, 0.99, 0.99, 0.99, 0.99, 0.99, 1, 1.03, 1.05, 2.01, 2.01])
        #expect(answers == [true, true, true, true, true, true, false, false, true, true, true])
    }

    @Test("a clock that goes back neither traps nor gives tokens")
    func clockBack() {
        var limiter = InitiationRateLimiter()
        let answers = answers(of: &limiter, to: address, at: [100, 100, 100, 100, 100, 0, 99.9, 100.06])
        #expect(answers == [true, true, true, true, true, false, false, true])
    }
}
