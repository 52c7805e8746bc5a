import TestSupport
import WireGuard

@testable import GatewayCore

/// A search over a path that carries so much, on virtual time.
struct SimulatedPath {
    var search: PathMTUSearch
    var now = Instant(nanoseconds: 9_000_000_000_000)
    /// The largest inner packet that passes.
    var limit: Int
    var roundTrip: Duration = .milliseconds(20)
    /// Loss of a packet and its reply together, in percent.
    var loss = 0
    var isCut = false
    /// What is in the way of both directions.
    var policer: Policer?
    /// EMSGSIZE from here on.
    var localLimit = Int.max
    var random: SplitMix
    var answers: [(at: Instant, sequence: UInt32)] = []
    var found: [(at: Instant, size: Int)] = []
    var probes: [(at: Instant, size: Int)] = []

    init(limit: Int, maximum: Int = 1420, seed: UInt64 = 1) {
        search = PathMTUSearch(maximum: maximum)
        self.limit = limit
        random = SplitMix(seed: seed)
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
struct Policer {
    /// Bytes a second.
    let rate: Double
    let loadRate: Double
    let loadSize: Int
    private var tokens: Double
    private var last: Instant
    private var nextLoad: Instant
    private var random: SplitMix

    init(rate: Double, loadRate: Double, loadSize: Int, at now: Instant, seed: UInt64) {
        self.rate = rate
        self.loadRate = loadRate
        self.loadSize = loadSize
        tokens = rate
        last = now
        nextLoad = now
        random = SplitMix(seed: seed)
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
