package import WireGuard

/// The largest inner packet that passes through one tunnel, found by probes (RFC 8899): what ICMP says of the
/// path outside can be forged, or is swallowed.
///
/// A probe is an echo request of a size, padded, in an outer packet that no router may cut. Then:
/// 1. with a session, the largest is tried at once: most paths carry it. If it does not pass, the base is what
///    counts from then on, and the sizes between are halved until the largest that passes is known;
/// 2. each size is tried three times, so that a lost packet is not taken for one that is too large. With the
///    second and third try goes a small probe: only when that is answered, the size is to blame, and not a path
///    that carries nothing;
/// 3. while data flows, the size in use is confirmed every two seconds. When it no longer passes, the base
///    counts at once, and the search begins again: less than five seconds after the path has shrunk;
/// 4. every ten minutes in which data flows, larger sizes are tried again.
///
/// Sizes are multiples of 16, as packets are padded to that: what is found holds for every packet up to it. The
/// largest is the exception, as no packet is padded past the MTU. Where not even the base passes, smaller ones
/// are searched down to what IPv4 needs; what is IPv6 then goes in outer fragments, where outside is IPv4.
///
/// Timers: a try's end, the next confirmation, the next search. Without data, or without a session, there is no
/// probe, but for the first search.
package struct PathMTUSearch: Sendable {
    package enum Output: Hashable, Sendable {
        /// Send an echo request of so many inner bytes, IP header included, with this sequence number.
        case probe(size: Int, sequence: UInt32)
        /// What passes; until the first, nothing is known and the largest is used.
        case found(innerMTU: Int)
    }

    /// IPv6 promises it to every packet (RFC 8200, section 5).
    package static let base = 1280
    /// IPv4 promises 576 to every host (RFC 1122, section 3.3.3): less is not looked for.
    package static let floor = 576
    /// With room for an IPv6 header, the echo's and its token.
    package static let smallSize = 96

    private static let step = 16
    private static let tries = 3
    private static let confirmationInterval: Duration = .seconds(2)
    private static let raiseInterval: Duration = .seconds(600)
    /// After a search that nothing at all answered: doubled each time up to `raiseInterval`.
    private static let firstPatience: Duration = .seconds(10)
    private static let shortestTimeout: Duration = .milliseconds(100)
    /// Three of them and the wait before are less than five seconds. An answer may come during any later try.
    private static let longestTimeout: Duration = .milliseconds(900)
    private static let rememberedProbes = 16
    /// How long packets of the size before may still be on their way out after a fall.
    private static let fallTime: Duration = .seconds(1)
    private static let atOnce = Instant(nanoseconds: 0)

    private enum Purpose: Hashable, Sendable {
        case search
        case confirmation
    }

    /// A size while its fate is not known.
    private struct Trial: Sendable {
        let size: Int
        let purpose: Purpose
        let begin: Instant
        var tries = 0
        var deadline: Instant
        /// Something small was answered since its first try went unanswered.
        var isPathAlive = false
    }

    private var maximum: Int
    private var hasSession = false
    /// Known to pass.
    private var low: Int?
    /// Not known not to pass.
    private var high: Int
    private var trial: Trial?
    /// The search goes on once what is in use is confirmed.
    private var isPaused = false
    private var reported: Int?
    private var timeout: Duration = .milliseconds(500)
    private var lastConfirmed: Instant?
    private var confirmAt: Instant?
    /// When data that is sent begins another search; nil: nothing larger is left to find.
    private var raiseAt: Instant?
    private var fellAt: Instant?
    private var patience = firstPatience
    private var sequence: UInt32 = 0
    /// Sizes of the last probes, by sequence number; 0 is a small one.
    private var sent: [(sequence: UInt32, size: Int)] = []
    private var outputs: [Output] = []

    /// `maximum` is the TUN's MTU.
    package init(maximum: Int) {
        self.maximum = max(maximum, Self.floor)
        high = self.maximum
    }

    // MARK: What is known

    /// What an inner packet may have now.
    package var innerMTU: Int { reported ?? maximum }

    /// Whether a search is under way.
    package var isSearching: Bool { trial?.purpose == .search || isPaused }

    // MARK: What happened

    /// A handshake is complete; again for each rekey, which changes nothing.
    package mutating func sessionBegan(now: Instant) {
        guard !hasSession else { return }
        hasSession = true
        if reported == nil {
            search(from: nil, now)
        } else {
            confirm(now)
        }
    }

    package mutating func sessionEnded() {
        if isSearching { raiseAt = Self.atOnce }
        hasSession = false
        trial = nil
        isPaused = false
        confirmAt = nil
    }

    /// The outer packets go another way: another endpoint, source or interface.
    package mutating func pathChanged(now: Instant) {
        guard hasSession else { return }
        raiseAt = Self.atOnce
        isPaused = false
        if reported == nil { search(from: nil, now) } else { confirm(now) }
    }

    /// From the caller's probes; a try waits for twice of it, between 100 and 900 milliseconds.
    package mutating func setRoundTrip(_ duration: Duration) {
        timeout = min(max(duration * 2 + .milliseconds(50), Self.shortestTimeout), Self.longestTimeout)
    }

    /// Data went out. May be said as often as one likes; a second apart is enough.
    package mutating func dataSent(now: Instant) {
        guard hasSession, trial == nil else { return }
        if let raiseAt, raiseAt <= now {
            search(from: low, now)
        } else if confirmAt == nil, innerMTU > Self.floor, reported != nil {
            confirmAt = lastConfirmed.map { max(now, $0 + Self.confirmationInterval) } ?? now
        }
    }

    /// An echo reply to one of the probes, however late.
    package mutating func probeAnswered(sequence: UInt32, now: Instant) {
        guard hasSession, let size = sent.first(where: { $0.sequence == sequence })?.size else { return }
        guard size > 0 else { return smallAnswered() }
        if let trial, trial.size == size {
            return succeed(trial, now)
        }
        // A size that had been given up, after all.
        if let low, size > low, size <= maximum, trial?.purpose == .search {
            self.low = size
            high = max(high, size)
            smallAnswered()
        }
    }

    /// Something small came back through the tunnel: a health probe's answer.
    package mutating func smallAnswered() {
        guard let current = trial, current.tries > 1 else { return }
        trial?.isPathAlive = true
    }

    /// The kernel refused an outer packet (EMSGSIZE): of a probe of this inner size, or of data of it. Nil: of
    /// data or of a probe, whichever was larger.
    package mutating func sendTooBig(size: Int? = nil, now: Instant) {
        guard hasSession else { return }
        guard let size else {
            if let fellAt, now - fellAt < Self.fallTime { return }
            if let trial, trial.size > innerMTU || reported == nil {
                fail(trial, now)
            } else {
                fall(below: innerMTU, now)
            }
            return
        }
        if let trial, trial.size == size, trial.purpose == .search {
            fail(trial, now)
        } else if size <= innerMTU {
            fall(below: size, now)
        }
        // What is larger was sent before the size in use was found.
    }

    /// The TUN's MTU is another.
    package mutating func maximumChanged(to maximum: Int, now: Instant) {
        guard maximum != self.maximum else { return }
        let maximum = max(maximum, Self.floor)
        self.maximum = maximum
        trial = nil
        isPaused = false
        raiseAt = Self.atOnce
        if let low, low > maximum { self.low = maximum }
        if let reported, reported > maximum { report(maximum) }
        high = maximum
        if hasSession { search(from: low, now) }
    }

    package mutating func handleTimeout(now: Instant) {
        if let current = trial {
            guard current.deadline <= now else { return }
            if current.tries < Self.tries {
                send(current, now)
            } else if current.isPathAlive {
                fail(current, now)
            } else {
                giveUp(current, now)
            }
        } else if let due = confirmAt, due <= now {
            confirm(now)
        }
    }

    package var nextTimeout: Instant? { hasSession ? trial?.deadline ?? confirmAt : nil }

    package mutating func poll() -> Output? { outputs.isEmpty ? nil : outputs.removeFirst() }

    // MARK: Steps

    private mutating func search(from low: Int?, _ now: Instant) {
        self.low = low
        high = maximum
        confirmAt = nil
        raiseAt = nil
        if low == maximum { return rest(now) }
        begin(maximum, .search, now)
    }

    private mutating func confirm(_ now: Instant) {
        confirmAt = nil
        begin(innerMTU, .confirmation, now)
    }

    private mutating func begin(_ size: Int, _ purpose: Purpose, _ now: Instant) {
        let trial = Trial(size: size, purpose: purpose, begin: now, deadline: now)
        send(trial, now)
    }

    private mutating func send(_ trial: Trial, _ now: Instant) {
        var trial = trial
        trial.tries += 1
        trial.deadline = now + timeout
        self.trial = trial
        emit(trial.size)
        if trial.tries > 1 { emit(0) }
    }

    private mutating func emit(_ size: Int) {
        sequence &+= 1
        if sent.count == Self.rememberedProbes { sent.removeFirst() }
        sent.append((sequence, size))
        outputs.append(.probe(size: size == 0 ? Self.smallSize : size, sequence: sequence))
    }

    private mutating func succeed(_ trial: Trial, _ now: Instant) {
        self.trial = nil
        patience = Self.firstPatience
        // It passed when it was sent: what came after is not confirmed by it.
        if trial.size >= innerMTU { lastConfirmed = trial.begin }
        low = max(low ?? 0, trial.size)
        if trial.purpose == .search || isPaused {
            isPaused = false
            next(now)
        }
    }

    /// It does not pass, while smaller ones do.
    private mutating func fail(_ trial: Trial, _ now: Instant) {
        self.trial = nil
        switch trial.purpose {
        case .confirmation: fall(below: trial.size, now)
        case .search:
            high = Self.below(trial.size)
            if low != nil {
                // A search takes its time; meanwhile the path may have shrunk further.
                guard reported != nil, innerMTU > Self.floor,
                    lastConfirmed.map({ now - $0 >= Self.confirmationInterval }) ?? true
                else { return next(now) }
                isPaused = true
                return begin(innerMTU, .confirmation, now)
            }
            // Of what is between nothing is known yet; what is smaller than this passes most likely.
            settle(trial.size, now)
        }
    }

    /// What was in use no longer passes.
    private mutating func fall(below size: Int, _ now: Instant) {
        low = nil
        trial = nil
        isPaused = false
        confirmAt = nil
        raiseAt = nil
        fellAt = now
        high = Self.below(size)
        settle(size, now)
    }

    /// `size` does not pass, and nothing is known to: the base is used, and asked for.
    private mutating func settle(_ size: Int, _ now: Instant) {
        if size > Self.base {
            report(min(Self.base, maximum))
            begin(min(Self.base, high), .search, now)
        } else {
            report(Self.floor)
            low = Self.floor
            next(now)
        }
    }

    /// The next size to try; or all is known.
    private mutating func next(_ now: Instant) {
        guard let low else { return }
        guard low < high else {
            report(low)
            return rest(now)
        }
        // In the middle, rounded up, so that it comes to an end.
        let middle = (low + high + Self.step) / 2 / Self.step * Self.step
        begin(middle > low ? min(middle, high) : high, .search, now)
    }

    private mutating func rest(_ now: Instant) {
        raiseAt = low == maximum ? nil : now + Self.raiseInterval
    }

    /// Nothing at all was answered: it says nothing of any size.
    private mutating func giveUp(_ trial: Trial, _ now: Instant) {
        self.trial = nil
        lastConfirmed = now
        guard trial.purpose == .search || isPaused else { return }
        isPaused = false
        // What was found so far counts; the search begins again from there.
        if trial.purpose == .search, let low { report(max(low, reported ?? low)) }
        raiseAt = now + patience
        patience = min(patience * 2, Self.raiseInterval)
    }

    private mutating func report(_ size: Int) {
        guard size != reported else { return }
        reported = size
        outputs.append(.found(innerMTU: size))
    }

    /// The next smaller size that is tried.
    private static func below(_ size: Int) -> Int { max((size - 1) / step * step, floor) }
}
