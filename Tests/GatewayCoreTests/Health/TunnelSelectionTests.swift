import ControlAPI
import TestSupport
import Testing

@testable import GatewayCore

@Suite struct TunnelSelectionTests {
    private typealias Candidate = TunnelSelection.Candidate

    private func candidate(
        _ name: String, _ state: TunnelState, priority: Int = 10, weight: Int = 1, hasSession: Bool = true,
        isPreferred: Bool = false, hasFailed: Bool? = nil, liveness: Liveness = .silent
    ) -> Candidate {
        Candidate(
            name: name, priority: priority, weight: weight, state: state, hasSession: hasSession,
            isPreferred: isPreferred, hasFailed: hasFailed ?? (state == .down), liveness: liveness)
    }

    private func active(_ candidates: [Candidate]) -> String? {
        var selection = TunnelSelection(isBalanced: false)
        selection.update(candidates)
        return selection.active.map { candidates[$0].name }
    }

    private func isUsable(_ candidates: Candidate...) -> Bool {
        var selection = TunnelSelection(isBalanced: false)
        selection.update(candidates)
        return selection.isUsable
    }

    @Test("1. what carries comes first, then what may, then what does not; priority counts among equals")
    func order() {
        let ranked = [
            candidate("up", .up, priority: 90),
            candidate("degraded", .degraded, priority: 80),
            candidate("held down", .down, priority: 70, liveness: .answering),
            candidate("connecting with a session", .connecting, priority: 60),
            candidate("connecting", .connecting, priority: 50, hasSession: false),
            candidate("down with a session", .down, priority: 40),
            candidate("down", .down, priority: 30, hasSession: false),
        ]
        for count in 1...ranked.count {
            let candidates = Array(ranked.suffix(count))
            #expect(active(candidates) == candidates[0].name)
            #expect(active(candidates.reversed()) == candidates[0].name)
        }
        for state in TunnelState.allCases where state != .disabled {
            let twins = [candidate("b", state, priority: 20), candidate("a", state, priority: 10)]
            #expect(active(twins) == "a")
        }
        #expect(active([candidate("a", .disabled), candidate("b", .disabled)]) == nil)
        #expect(
            active([candidate("a", .disabled, priority: 1), candidate("b", .down, hasSession: false)]) == "b")
        #expect(active([]) == nil)
    }

    @Test("2. without probes: what is idle is tried before what was found dead, and not left while it tries")
    func idleFirst() {
        let dead = candidate("a", .down, priority: 1)
        #expect(active([dead, candidate("b", .idle, priority: 2, hasSession: false)]) == "b")
        #expect(active([dead, candidate("b", .connecting, priority: 2, hasSession: false)]) == "b")
        #expect(active([dead, candidate("b", .down, priority: 2, hasSession: false)]) == "a")
    }

    @Test("3. among equal priorities the active one stays")
    func stability() {
        var selection = TunnelSelection(isBalanced: false)
        func choose(_ states: TunnelState...) -> Int? {
            selection.update(zip(["a", "b", "c"], states).map { candidate($0, $1) })
            return selection.active
        }
        #expect(choose(.up, .up, .up) == 0)
        #expect(choose(.down, .up, .up) == 1)
        #expect(choose(.up, .up, .up) == 1)
        #expect(choose(.up, .degraded, .up) == 0)
        #expect(choose(.up, .up, .up) == 0)
        selection.update([candidate("z", .up), candidate("a", .up)])
        #expect(selection.active == 1, "by name, wherever it stands now")
        selection.update([candidate("z", .up, priority: 1), candidate("a", .up)])
        #expect(selection.active == 0)
    }

    @Test("3b. at the beginning the better tunnel is not left for one that has shown itself first")
    func beginning() {
        var selection = TunnelSelection(isBalanced: false)
        func choose(_ a: Candidate, _ b: Candidate) -> Int? {
            selection.update([a, b])
            return selection.active
        }
        func first(_ state: TunnelState, hasSession: Bool = true, hasFailed: Bool = false) -> Candidate {
            candidate("a", state, priority: 1, hasSession: hasSession, hasFailed: hasFailed)
        }
        let connecting = candidate("b", .connecting, priority: 2)
        let up = candidate("b", .up, priority: 2)
        #expect(choose(first(.connecting, hasSession: false), connecting) == 1, "packets pass there")
        #expect(choose(first(.connecting), connecting) == 0)
        #expect(choose(first(.connecting), up) == 0)
        var failing = selection
        failing.update([first(.down, hasFailed: true), up])
        #expect(failing.active == 1)
        failing.update([first(.connecting, hasFailed: true), up])
        #expect(failing.active == 1, "from here on it must show itself")
        #expect(choose(first(.up), up) == 0)
        #expect(choose(first(.connecting), up) == 1, "it had its beginning")
    }

    @Test("4. a lower priority takes over when it is up, and an operator's word stands above it")
    func preferred() {
        #expect(active([candidate("a", .up, priority: 1), candidate("b", .up, isPreferred: true)]) == "b")
        #expect(
            active([candidate("a", .up, priority: 1), candidate("b", .degraded, isPreferred: true)]) == "b")
        for state in TunnelState.allCases where !state.isCarrying {
            #expect(
                active([candidate("a", .up, priority: 1), candidate("b", state, isPreferred: true)]) == "a")
        }
    }

    @Test("5. usable: some tunnel carries, answers, or has not failed yet")
    func usable() {
        #expect(isUsable(candidate("a", .down), candidate("b", .up)))
        #expect(isUsable(candidate("a", .down), candidate("b", .degraded)))
        #expect(isUsable(candidate("a", .down, liveness: .answering)))
        #expect(isUsable(candidate("a", .idle, hasSession: false)))
        #expect(isUsable(candidate("a", .connecting, hasSession: false)))
        #expect(!isUsable(candidate("a", .connecting, hasFailed: true)))
        #expect(!isUsable(candidate("a", .down), candidate("b", .disabled)))
        #expect(!isUsable())
    }

    @Test("5b. among those that only answer, the active one stays: priority counts once they are up")
    func answering() {
        var selection = TunnelSelection(isBalanced: false)
        func choose(_ a: Candidate, _ b: Candidate) -> Int? {
            selection.update([a, b])
            return selection.active
        }
        let dead = candidate("a", .down, priority: 1)
        let answering = candidate("a", .down, priority: 1, liveness: .answering)
        let other = candidate("b", .down, priority: 2, liveness: .answering)
        #expect(choose(dead, other) == 1)
        #expect(choose(answering, other) == 1)
        #expect(choose(candidate("a", .up, priority: 1), other) == 0)
        #expect(choose(answering, other) == 0)
        #expect(choose(dead, other) == 1)
        #expect(choose(answering, candidate("b", .down, priority: 2)) == 0)
    }

    @Test("5c. what is only heard comes last of what may work, and is better than nothing")
    func heard() {
        let heard = candidate("heard", .down, priority: 1, liveness: .heard)
        func usability(_ candidates: Candidate..., keepsHeard: Bool = true) -> TunnelSelection.Usability {
            var selection = TunnelSelection(isBalanced: false, keepsHeard: keepsHeard)
            selection.update(candidates)
            return selection.usability
        }
        #expect(usability(heard) == .heard)
        #expect(usability(heard, keepsHeard: false) == .dead, "routes are withdrawn for somebody else's")
        #expect(usability(heard, candidate("b", .down, liveness: .answering)) == .usable)
        #expect(active([heard, candidate("b", .connecting, priority: 2)]) == "b")
        #expect(active([heard, candidate("b", .down, priority: 0)]) == "heard")
        var selection = TunnelSelection(isBalanced: false)
        selection.update([candidate("a", .up), candidate("b", .down), candidate("c", .connecting)])
        #expect((0..<3).map { selection.hasAlternative(to: $0) } == [false, true, true])
        selection.update([candidate("a", .up), candidate("b", .down, liveness: .answering)])
        #expect((0..<2).map { selection.hasAlternative(to: $0) } == [true, true])
    }

    // MARK: Balance

    private func tunnels(_ states: TunnelState..., weights: [Int] = []) -> [Candidate] {
        states.enumerated().map { index, state in
            candidate("zone-\(index)", state, weight: index < weights.count ? weights[index] : 1)
        }
    }

    private func shares(_ buckets: [Int], of count: Int) -> [Double] {
        (0..<count).map { place in Double(buckets.count { $0 == place }) / Double(buckets.count) }
    }

    @Test(
        "6. weights are respected within 10 % of each share",
        arguments: [
            [1, 1], [3, 1], [2, 1], [1, 1, 1], [5, 3, 2], [1, 1, 1, 1], [4, 3, 2, 1], [10, 10, 1],
        ])
    func weights(weights: [Int]) {
        for seed in 0..<20 {
            var selection = TunnelSelection(isBalanced: true)
            selection.update(
                weights.enumerated().map { candidate("t\(seed)-\($0)", .up, weight: $1) })
            #expect(selection.buckets.count == 256)
            let total = Double(weights.reduce(0, +))
            for (share, weight) in zip(shares(selection.buckets, of: weights.count), weights) {
                let wanted = Double(weight) / total
                // A bucket more or less is 8 % of the smallest share here.
                #expect(abs(share - wanted) <= max(0.1 * wanted, 2.5 / 256), "\(weights) seed \(seed)")
            }
        }
    }

    @Test("7. only the flows of a failed tunnel move, and they come back with it", arguments: 2...6)
    func movesLittle(count: Int) {
        var selection = TunnelSelection(isBalanced: true)
        func buckets(without failed: Set<Int>) -> [Int] {
            selection.update(
                (0..<count).map { candidate("t\($0)", failed.contains($0) ? .down : .up, weight: 1 + $0 % 3) }
            )
            return selection.buckets
        }
        let all = buckets(without: [])
        for first in 0..<count {
            let less = buckets(without: [first])
            for bucket in 0..<256 {
                #expect(all[bucket] == first ? less[bucket] != first : less[bucket] == all[bucket])
            }
            for second in 0..<count where second != first && count > 2 {
                let least = buckets(without: [first, second])
                for bucket in 0..<256 where less[bucket] != second { #expect(least[bucket] == less[bucket]) }
            }
            #expect(buckets(without: []) == all)
        }
    }

    @Test("8. degraded tunnels share only when none is up, and a dead connection stages at one place")
    func whoShares() {
        var selection = TunnelSelection(isBalanced: true)
        func members(_ candidates: [Candidate]) -> Set<Int> {
            selection.update(candidates)
            return Set(selection.buckets)
        }
        #expect(members(tunnels(.up, .up, .degraded)) == [0, 1])
        #expect(members(tunnels(.down, .degraded, .degraded)) == [1, 2])
        #expect(members(tunnels(.down, .down, .down)) == [selection.active!])
        #expect(members(tunnels(.disabled, .disabled)) == [])
        #expect(selection.active == nil)
        var preferred = tunnels(.up, .up, .up)
        preferred[2].isPreferred = true
        #expect(members(preferred) == [2])
    }

    @Test("9. buckets follow names, not places, and are the same in every run")
    func names() {
        var selection = TunnelSelection(isBalanced: true)
        let forward = [candidate("a", .up), candidate("b", .up, weight: 2), candidate("c", .up)]
        selection.update(forward)
        let before = selection.buckets.map { forward[$0].name }
        var other = TunnelSelection(isBalanced: true)
        other.update(forward.reversed())
        #expect(other.buckets.map { Array(forward.reversed())[$0].name } == before)
        #expect(before.prefix(16).joined() == golden)
    }

    private let golden = "bbccbbbcbccbaacc"

    @Test("10. the integer logarithm is the logarithm")
    func logarithm() {
        #expect(TunnelHashing.rarity(1 << 63) == 1 << 16)
        #expect(TunnelHashing.rarity(1 << 62) == 2 << 16)
        #expect(TunnelHashing.rarity(1) == 64 << 16)
        #expect(TunnelHashing.rarity(0) == 64 << 16)
        #expect(TunnelHashing.rarity(.max) == 1)
        // 2^63.5, and a third.
        #expect(abs(Int(TunnelHashing.rarity(13_043_817_825_332_782_212)) - 1 << 15) <= 1)
        #expect(abs(Int(TunnelHashing.rarity(.max / 3)) - Int(1.584962500721156 * 65536)) <= 1)
        var random = SplitMix(seed: 1)
        var pairs: [(UInt64, UInt64)] = []
        for _ in 0..<1000 {
            let u = random.next()
            pairs.append((u, TunnelHashing.rarity(u)))
        }
        pairs.sort { $0.0 < $1.0 }
        for (less, more) in zip(pairs, pairs.dropFirst()) { #expect(less.1 >= more.1) }
    }
}
