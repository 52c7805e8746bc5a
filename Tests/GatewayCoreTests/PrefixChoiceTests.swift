import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

@Suite struct PrefixChoiceTests {
    private typealias Candidate = PrefixChoice.Candidate

    private func connection(
        _ text: String, metric: UInt32 = 0, _ health: PrefixChoice.Health = .settled,
        onDown: ConnectionSpec.OnDown = .unreachable
    ) -> Candidate {
        Candidate([PrefixChoice.Claim(IPPrefix(text)!, metric: metric)], health: health, onDown: onDown)
    }

    private func prefix(_ text: String) -> IPPrefix { IPPrefix(text)! }

    private func state(_ text: String, _ choice: PrefixChoice) -> WantedPrefix.State? {
        choice.kernel.first { $0.prefix == prefix(text) }?.state
    }

    @Test("of equal prefixes the usable connection with the best metric carries it, and all may send from it")
    func equal() {
        let better = PrefixChoice([
            connection("10.0.0.0/8", metric: 20), connection("10.0.0.0/8", metric: 10),
        ])
        #expect(better.prefixes == [[], [prefix("10.0.0.0/8")]])
        #expect(better.sources == [[prefix("10.0.0.0/8")], [prefix("10.0.0.0/8")]])
        #expect(better.kernel == [WantedPrefix(prefix("10.0.0.0/8"), metric: 10)])
        let failedOver = PrefixChoice([
            connection("10.0.0.0/8", metric: 20), connection("10.0.0.0/8", metric: 10, .dead),
        ])
        #expect(failedOver.prefixes == [[prefix("10.0.0.0/8")], []])
        #expect(failedOver.sources == better.sources)
        #expect(failedOver.kernel == [WantedPrefix(prefix("10.0.0.0/8"), metric: 20)])
        let first = PrefixChoice([connection("10.0.0.0/8"), connection("10.0.0.0/8")])
        #expect(first.prefixes == [[prefix("10.0.0.0/8")], []])
    }

    @Test("a connection that has a prefix twice has it once, with the better metric")
    func twice() {
        var candidate = connection("10.0.0.0/8", metric: 20)
        candidate.claims.append(PrefixChoice.Claim(prefix("10.0.0.0/8"), metric: 5))
        candidate.claims.append(PrefixChoice.Claim(prefix("10.0.0.0/8"), metric: 30))
        let choice = PrefixChoice([candidate, connection("10.0.0.0/8", metric: 10)])
        #expect(choice.prefixes == [[prefix("10.0.0.0/8")], []])
        #expect(choice.sources[0] == [prefix("10.0.0.0/8")])
        #expect(choice.kernel == [WantedPrefix(prefix("10.0.0.0/8"), metric: 5)])
    }

    @Test(
        "a dead longer prefix falls through to a live shorter one, and comes back",
        arguments: [("10.0.0.0/8", "10.1.0.0/16"), ("2001:db8::/32", "2001:db8:1::/48")])
    func nested(_ wide: String, _ long: String) {
        func choice(_ health: PrefixChoice.Health, _ onDown: ConnectionSpec.OnDown = .unreachable)
            -> PrefixChoice
        {
            PrefixChoice([connection(wide), connection(long, health, onDown: onDown)])
        }
        #expect(choice(.settled).prefixes == [[prefix(wide)], [prefix(long)]])
        #expect(choice(.settled).sources == [[prefix(wide)], [prefix(long)]])
        #expect(choice(.dead).prefixes == [[prefix(wide)], []])
        #expect(choice(.dead).sources == [[prefix(wide), prefix(long)], [prefix(long)]])
        #expect(state(long, choice(.dead)) == .covered)
        #expect(state(long, choice(.dead, .withdraw)) == .withdrawn)
        #expect(state(wide, choice(.dead)) == .carried)
        // Back here, but the far end may hold back for longer.
        #expect(choice(.usable).prefixes == [[prefix(wide)], [prefix(long)]])
        #expect(choice(.usable).sources == [[prefix(wide), prefix(long)], [prefix(long)]])
    }

    @Test("a connection that is only heard keeps its routes where nobody else has them")
    func heard() {
        let wide = "10.0.0.0/8"
        let alone = PrefixChoice([connection(wide, .heard)])
        #expect(alone.prefixes == [[prefix(wide)]] && state(wide, alone) == .carried)
        let rivals = PrefixChoice([connection(wide, .heard), connection(wide, metric: 9)])
        #expect(rivals.prefixes == [[], [prefix(wide)]])
        let worse = PrefixChoice([connection(wide, .dead), connection(wide, metric: 9, .heard)])
        #expect(worse.prefixes == [[], [prefix(wide)]] && state(wide, worse) == .carried)
        let nested = PrefixChoice([connection(wide), connection("10.1.0.0/16", .heard)])
        #expect(state("10.1.0.0/16", nested) == .covered)
    }

    @Test("another connection does not speak for a longer prefix whose own is settled")
    func sources() {
        // Three nested ones: what the middle one holds, the widest does not get.
        let middle = PrefixChoice([
            connection("0.0.0.0/0"), connection("10.0.0.0/8"), connection("10.1.0.0/16", .dead),
        ])
        #expect(middle.sources[0] == [prefix("0.0.0.0/0")])
        #expect(middle.sources[1] == [prefix("10.0.0.0/8"), prefix("10.1.0.0/16")])
        let both = PrefixChoice([
            connection("0.0.0.0/0"), connection("10.0.0.0/8", .dead), connection("10.1.0.0/16", .dead),
        ])
        #expect(Set(both.sources[0]) == Set(["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16"].map(prefix)))
        let equal = PrefixChoice([
            connection("0.0.0.0/0"), connection("10.0.0.0/8", .dead), connection("10.0.0.0/8", metric: 9),
        ])
        #expect(equal.sources[0] == [prefix("0.0.0.0/0")])
    }

    @Test("with all dead the best one keeps its prefix and says what becomes of it in the kernel")
    func allDead() {
        let choice = PrefixChoice([
            connection("10.0.0.0/8", metric: 20, .dead, onDown: .withdraw),
            connection("10.0.0.0/8", metric: 10, .dead),
            connection("10.1.0.0/16", .dead, onDown: .withdraw),
        ])
        #expect(choice.prefixes == [[], [prefix("10.0.0.0/8")], [prefix("10.1.0.0/16")]])
        #expect(state("10.0.0.0/8", choice) == .unreachable)
        #expect(state("10.1.0.0/16", choice) == .withdrawn)
    }

    private func learned(
        _ text: String, metric: UInt32 = 32, _ health: PrefixChoice.Health = .settled,
        onDown: ConnectionSpec.OnDown = .unreachable
    ) -> Candidate {
        Candidate(
            [PrefixChoice.Claim(prefix(text), metric: metric, isLearned: true)], health: health,
            onDown: onDown)
    }

    @Test("a source is right for each connection whose neighbour announces it, and for no other")
    func learnedSources() {
        let silent = learned("10.30.0.0/16")
        // The best way is by the second, and the third announces something else.
        let choice = PrefixChoice(
            [learned("10.20.0.0/16", metric: 64), learned("10.20.0.0/16"), silent],
            guarded: [prefix("10.20.0.0/16"), prefix("10.30.0.0/16")])
        #expect(choice.prefixes == [[], [prefix("10.20.0.0/16")], [prefix("10.30.0.0/16")]])
        #expect(
            choice.sources == [
                [prefix("10.20.0.0/16")], [prefix("10.20.0.0/16")], [prefix("10.30.0.0/16")],
            ])
    }

    @Test("a guarded prefix is unreachable when nobody has it, and goes where a usable shorter one leads")
    func guarded() {
        let long = "10.20.0.0/16"
        func choice(_ candidates: Candidate..., guarded: Set<IPPrefix> = [IPPrefix("10.20.0.0/16")!])
            -> PrefixChoice
        {
            PrefixChoice(candidates, guarded: guarded)
        }
        func plan(_ state: WantedPrefix.State, metric: UInt32? = 32) -> WantedPrefix {
            WantedPrefix(prefix(long), metric: metric, state: state, isLearned: true)
        }
        // The tunnel is cut, and the routing daemon's route is withdrawn after its hold time.
        #expect(choice(learned(long)).kernel == [plan(.carried)])
        #expect(choice(learned(long, .dead)).kernel == [plan(.unreachable)])
        let none = Candidate([], health: .dead)
        #expect(choice(none).kernel == [plan(.unreachable, metric: nil)])
        #expect(choice(none).prefixes == [[]] && choice(none).sources == [[]])
        // The far site announces the aggregate instead, or it is configured.
        for wide in [learned("10.0.0.0/8"), connection("10.0.0.0/8")] {
            #expect(choice(wide).kernel.contains(plan(.covered, metric: nil)))
            #expect(choice(wide).prefixes == [[prefix("10.0.0.0/8")]])
        }
        #expect(choice(learned("10.0.0.0/8", .dead)).kernel.contains(plan(.unreachable, metric: nil)))
        // What is not guarded is the routing daemon's own affair, also while it is there.
        #expect(choice(learned(long, onDown: .withdraw), guarded: []).kernel == [plan(.withdrawn)])
        #expect(choice(learned(long, .dead, onDown: .withdraw)).kernel == [plan(.unreachable)])
        // Who has it configured carries it with a route of his own, and withdraws no guarded one.
        #expect(state(long, choice(connection(long, .dead, onDown: .withdraw))) == .unreachable)
        #expect(
            choice(connection(long), learned(long)).kernel == [
                WantedPrefix(prefix(long), metric: 0, state: .carried)
            ])
    }

    @Test("each prefix leads to exactly one usable connection, or through, and all stay sources, at random")
    func random() {
        var random = SplitMix(seed: 3)
        let healths: [PrefixChoice.Health] = [.settled, .usable, .heard, .dead]
        for _ in 0..<500 {
            let candidates = (0..<4).map { _ in
                Candidate(
                    (0..<4).map { _ in
                        PrefixChoice.Claim(
                            IPPrefix(
                                address: IPAddress(v4: UInt32.random(in: 0..<8, using: &random) << 29),
                                length: Int.random(in: 0...3, using: &random))!,
                            metric: UInt32.random(in: 0..<3, using: &random))
                    }, health: healths.randomElement(using: &random)!,
                    onDown: Bool.random(using: &random) ? .withdraw : .unreachable)
            }
            let choice = PrefixChoice(candidates)
            for (candidate, sources) in zip(candidates, choice.sources) {
                #expect(Set(candidate.claims.map(\.prefix)).isSubset(of: sources))
                #expect(Set(sources).count == sources.count)
            }
            let table = PrefixTable(
                choice.prefixes.enumerated().flatMap { number, prefixes in
                    prefixes.map { (prefix: $0, value: Int32(number)) }
                })
            let all = choice.prefixes.flatMap { $0 }
            #expect(Set(all).count == all.count)
            for top in UInt32(0)..<8 {
                let address = IPAddress(v4: top << 29 | 1)
                let number = Int(table.lookup(address))
                // Longest prefix, then metric, then the order, over the usable ones.
                let claims = candidates.enumerated().flatMap { number, candidate in
                    candidate.claims.filter { $0.prefix.contains(address) }.map { (number, $0) }
                }.sorted { a, b in
                    (-a.1.prefix.length, a.1.metric, a.0) < (-b.1.prefix.length, b.1.metric, b.0)
                }
                let usable = claims.first { candidates[$0.0].health.isUsable }
                guard let right = usable else {
                    #expect((number < 0) == claims.isEmpty)
                    continue
                }
                #expect(number == right.0)
                // What comes back from there is let in.
                let longest = choice.sources.flatMap { $0 }.filter { $0.contains(address) }.map(\.length)
                    .max()
                #expect(choice.sources[number].contains { $0.contains(address) && $0.length == longest })
                // The explanation says the same.
                let explanation = RouteTrace(
                    of: RouteTrace.Packet(to: address),
                    connections: candidates.enumerated().map { number, candidate in
                        RouteTrace.Connection(
                            name: "\(number)", candidate: candidate,
                            tunnels: [
                                RouteTrace.Tunnel(
                                    name: "t", state: "up", isActive: true,
                                    endpoint: Endpoint(address: IPAddress("192.0.2.1")!, port: 1))
                            ])
                    }, interface: "vgw0", kernel: .tun, way: { _, _ in nil })
                guard case .tunnel(let name, _, _, _, _) = explanation.verdict else {
                    Issue.record("no tunnel in \(explanation)")
                    continue
                }
                #expect(name == "\(number)")
                #expect(explanation.prefix == right.1.prefix)
            }
        }
    }
}
