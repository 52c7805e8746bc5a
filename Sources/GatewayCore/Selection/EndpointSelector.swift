package import WireGuard

/// Where a tunnel sends: of several endpoints, names among them, one that works, and the preferred one once
/// that works again.
///
/// The names and addresses of the configuration are flattened, in their order, into candidates; a name's
/// addresses alternate between the families (RFC 8305, section 4), beginning with the one that the resolver
/// put first. Then:
/// 1. without an answer (`failed`), the next candidate is used, round and round;
/// 2. while one works that is not the first, a better one is tested now and then, without leaving it: after
///    10 s, then after twice as long each round, up to 5 minutes. Its answer arrives as `roamed`;
/// 3. a name is resolved again when its time is up, after a failure, and while it does not resolve. An address
///    that is no longer the name's is left if it does not work, and kept for as long as it does.
///
/// Timers: a name's time, a name's retry, the next test.
///
/// Call order: any. After each call `poll` until it gives nothing, then wait until `nextTimeout`.
package struct EndpointSelector: Sendable {
    package enum Output: Hashable, Sendable {
        /// Answer with `resolved` or `resolutionFailed`, in any case.
        case resolve(host: String, port: UInt16)
        /// Send there from now on.
        case use(Endpoint)
        /// See whether it answers a handshake, while everything else goes on where it is. If it does, `roamed`.
        case tryPreferred(Endpoint)
    }

    private struct Name: Sendable {
        let name: EndpointName
        /// The last answer; kept while a newer one cannot be had.
        var endpoints: [Endpoint] = []
        var problem: String?
        var isAsked = false
        var answeredAt: Instant?
        /// When to ask, unless it is asked already; nil for what is no name.
        var askAt: Instant?
    }

    private enum State: Hashable, Sendable {
        /// Nothing is known of it, or that it does not work.
        case trying
        case working
    }

    private static let shortestTime: Duration = .seconds(5)
    private static let longestTime: Duration = .seconds(3600)
    private static let firstTest: Duration = .seconds(10)
    private static let longestTestInterval: Duration = .seconds(300)
    /// Addresses of a name that are tried: no more.
    private static let addressLimit = 16

    private var names: [Name]
    /// In order of preference: what is tried, and in this order.
    package private(set) var candidates: [Endpoint] = []
    /// Where the tunnel sends; nil while nothing is known, and nothing was heard from the far end.
    package private(set) var current: Endpoint?
    /// Where the far end was last heard, if that is none of the candidates: it has its turn among them, as it may
    /// be there still, and nowhere else.
    private var strayed: Endpoint?
    private var state = State.trying
    private var testAt: Instant?
    private var testInterval = firstTest
    /// The position of the next candidate to be tested.
    private var testNext = 0
    private var outputs: [Output] = []

    /// In order of preference. Without any, nothing ever happens: the far end speaks first.
    package init(_ names: [EndpointName], now: Instant) {
        self.names = names.map { name in
            switch name {
            case .address(let endpoint): Name(name: name, endpoints: [endpoint])
            case .name: Name(name: name, askAt: now)
            }
        }
        flatten(now)
        handleTimeout(now: now)
    }

    // MARK: What happened

    /// An empty answer is a failure.
    package mutating func resolved(
        host: String, port: UInt16, _ addresses: [ResolvedAddress], now: Instant
    ) {
        let usable = addresses.filter { Self.isUsable($0) }
        guard !usable.isEmpty else {
            resolutionFailed(
                host: host, port: port,
                problem: "\(host) does not resolve: none of its addresses is a host's",
                now: now)
            return
        }
        let endpoints = Self.interleaved(usable).prefix(Self.addressLimit).map {
            Endpoint(address: $0.address, port: port, scope: $0.scope)
        }
        // The name holds for as long as the shortest-lived of its addresses.
        let shortest = usable.map(\.timeToLive).min() ?? Self.shortestTime
        for index in names.indices where names[index].name == .name(host, port: port) {
            // The same addresses in another order are a name server that takes turns: no reason to move.
            if Set(names[index].endpoints) != Set(endpoints) { names[index].endpoints = endpoints }
            names[index].problem = nil
            names[index].isAsked = false
            names[index].answeredAt = now
            names[index].askAt = now + min(max(shortest, Self.shortestTime), Self.longestTime)
        }
        flatten(now)
    }

    /// The addresses of an earlier answer stay in use.
    package mutating func resolutionFailed(
        host: String, port: UInt16, problem: String, retryAfter: Duration = .seconds(10), now: Instant
    ) {
        for index in names.indices where names[index].name == .name(host, port: port) {
            names[index].problem = problem
            names[index].isAsked = false
            names[index].answeredAt = now
            names[index].askAt = now + max(retryAfter, Self.shortestTime)
        }
    }

    /// No answer to a handshake from where the tunnel sends, or the tunnel is down: on to the next.
    package mutating func failed(now: Instant) {
        state = .trying
        testAt = nil
        guard !candidates.isEmpty else { return }
        let round = candidates + [strayed].compactMap { $0 }
        let position = current.flatMap { round.firstIndex(of: $0) }
        use(round[position.map { ($0 + 1) % round.count } ?? 0])
        // The names may lead elsewhere by now.
        for index in names.indices {
            guard let answeredAt = names[index].answeredAt, let askAt = names[index].askAt else { continue }
            names[index].askAt = min(askAt, max(now, answeredAt + Self.shortestTime))
        }
        ask(now)
    }

    /// The far end answers where the tunnel sends. May be said as often as one likes.
    package mutating func works(now: Instant) {
        guard state != .working else { return }
        state = .working
        if current != strayed { strayed = nil }
        scheduleTests(now)
    }

    /// The far end was heard, authentically, from there; the tunnel sends there already.
    package mutating func roamed(to endpoint: Endpoint, now: Instant) {
        guard endpoint != current || state != .working else { return }
        current = endpoint
        strayed = candidates.contains(endpoint) ? nil : endpoint
        state = .working
        scheduleTests(now)
    }

    package mutating func handleTimeout(now: Instant) {
        ask(now)
        guard let due = testAt, due <= now else { return }
        guard let better = betterCount, better > 0 else {
            testAt = nil
            return
        }
        if testNext >= better { testNext = 0 }
        outputs.append(.tryPreferred(candidates[testNext]))
        testNext += 1
        // Each of the better ones is tested before the pace slows.
        if testNext >= better {
            testNext = 0
            testInterval = min(testInterval * 2, Self.longestTestInterval)
        }
        testAt = now + testInterval
    }

    package var nextTimeout: Instant? {
        let questions = names.lazy.filter { !$0.isAsked }.compactMap(\.askAt).min()
        return [questions, testAt].compactMap { $0 }.min()
    }

    package mutating func poll() -> Output? { outputs.isEmpty ? nil : outputs.removeFirst() }

    // MARK: What is known

    /// What keeps a name from being resolved, for the status; nil while all of them do. With `current` set the
    /// tunnel can be tried all the same.
    package var problem: String? {
        let problems = names.compactMap(\.problem)
        return problems.isEmpty ? nil : problems.joined(separator: "; ")
    }

    /// The names whose first answer is awaited; nil where there is none. With `current` set the tunnel can be tried all
    /// the same.
    package var awaitedNames: String? {
        let awaited = names.compactMap { name -> String? in
            guard case .name(let host, _) = name.name, name.endpoints.isEmpty, name.problem == nil else {
                return nil
            }
            return host
        }
        return awaited.isEmpty ? nil : awaited.joined(separator: " and ")
    }

    // MARK: Steps

    private mutating func use(_ endpoint: Endpoint) {
        guard endpoint != current else { return }
        current = endpoint
        outputs.append(.use(endpoint))
    }

    private mutating func ask(_ now: Instant) {
        for index in names.indices where !names[index].isAsked {
            guard let askAt = names[index].askAt, askAt <= now,
                case .name(let host, let port) = names[index].name
            else { continue }
            names[index].isAsked = true
            outputs.append(.resolve(host: host, port: port))
        }
    }

    /// After a name's answer. What works is left alone. What does not is left at once for a better candidate
    /// that was not there before, and for the first one when its own name no longer leads to it.
    private mutating func flatten(_ now: Instant) {
        let before = candidates
        candidates = []
        for endpoint in names.flatMap(\.endpoints) where !candidates.contains(endpoint) {
            candidates.append(endpoint)
        }
        switch state {
        case .working:
            let old = current.flatMap { before.firstIndex(of: $0) }.map { before[..<$0] }
            let new = betterCount.map { candidates[..<$0] }
            if old != new { scheduleTests(now) }
        case .trying:
            let position = current.flatMap { candidates.firstIndex(of: $0) } ?? candidates.count
            if let better = candidates[..<position].first(where: { !before.contains($0) }) {
                use(better)
            } else if position == candidates.count, let first = candidates.first {
                use(first)
            }
        }
    }

    /// How many candidates are better than the one in use; nil for one that is none: where the far end has
    /// roamed to, or where its name led to once. Neither is left while it works.
    private var betterCount: Int? { current.flatMap { candidates.firstIndex(of: $0) } }

    private mutating func scheduleTests(_ now: Instant) {
        testInterval = Self.firstTest
        testNext = 0
        testAt = (betterCount ?? 0) > 0 ? now + testInterval : nil
    }

    private static func isUsable(_ found: ResolvedAddress) -> Bool {
        let address = found.address
        // A link-local IPv6 address without its interface leads nowhere.
        return !address.isUnspecified && !address.isMulticast
            && (address.family == .v4 || !address.isLinkLocal || found.scope != 0)
            && address.bits != 0xffff_ffff
    }

    /// One family after the other, each in its order.
    private static func interleaved(_ addresses: [ResolvedAddress]) -> [ResolvedAddress] {
        guard let first = addresses.first?.address.family else { return [] }
        let preferred = addresses.filter { $0.address.family == first }
        let others = addresses.filter { $0.address.family != first }
        var result: [ResolvedAddress] = []
        for index in 0..<max(preferred.count, others.count) {
            if index < preferred.count { result.append(preferred[index]) }
            if index < others.count { result.append(others[index]) }
        }
        return result
    }
}

/// One of a host name's addresses.
package struct ResolvedAddress: Hashable, Sendable {
    package let address: IPAddress
    /// Index of the interface that a link-local address is reached by; 0 for every other one.
    package let scope: UInt32
    /// How long it holds; zero for one that no name server gave.
    package let timeToLive: Duration

    package init(_ address: IPAddress, scope: UInt32 = 0, timeToLive: Duration) {
        self.address = address
        self.scope = scope
        self.timeToLive = timeToLive
    }
}
