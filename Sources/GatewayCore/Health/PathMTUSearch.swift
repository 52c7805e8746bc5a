package import WireGuard

/// The largest inner packet that passes through one tunnel, found by probes (RFC 8899): what ICMP says of the
/// path outside can be forged, or is swallowed.
///
/// A probe is an echo request of a size, padded, in an outer packet that no router may cut. Then:
/// 1. with a session, the largest is tried at once: most paths carry it. If it does not pass, the sizes between it
///    and the base are halved until the largest that passes is known;
/// 2. ``PathMTUTrial`` says whether a size passes: it takes more than lost packets, as a path that is loaded loses
///    them too;
/// 3. while data flows, the size in use is confirmed every two seconds. When it no longer passes, the largest
///    smaller one that does is used at once, and the search begins again: less than five seconds after the path has
///    shrunk, and less than ten while a tenth of the smaller packets is lost;
/// 4. what was in use and no longer passes, and what was decided under load or could not be decided, is tried again
///    with the first data after 45 s; any other size that is larger, with the first data after ten minutes.
///
/// Sizes are multiples of 16, as packets are padded to that: what is found holds for every packet up to it. The
/// largest is the exception, as no packet is padded past the MTU. Where not even the base passes, smaller ones
/// are searched down to what IPv4 needs; what is IPv6 then goes in outer fragments, where outside is IPv4.
///
/// Timers: the trial's, the next confirmation, the next search. Without data, or without a session, there is no
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
    /// References of a trial: what a packet of the largest size that senders use here meets at a policer, a larger
    /// one meets up to twice that size; so they are less than that apart.
    private static let ladder = [40_960, 25_600, 16_384, 9216, 5120, 3328, 2048, base, 1024, 768, floor]

    private static let step = 16
    private static let confirmationInterval: Duration = .seconds(2)
    /// Between two confirmations of a path that changes: each may send a full-size packet to where it leads now.
    private static let changeInterval: Duration = .seconds(1)
    private static let raiseInterval: Duration = .seconds(600)
    private static let secondLookInterval: Duration = .seconds(45)
    /// After a search that nothing at all answered: doubled each time up to `raiseInterval`.
    private static let firstPatience: Duration = .seconds(10)
    private static let shortestTimeout: Duration = .milliseconds(100)
    private static let longestTimeout: Duration = .milliseconds(900)
    private static let rememberedProbes = 200
    /// How long packets of the size before may still be on their way out after a fall.
    private static let fallTime: Duration = .seconds(1)
    private static let atOnce = Instant(nanoseconds: 0)

    private enum Purpose: Hashable, Sendable {
        case search
        case confirmation
    }

    private var maximum: Int
    private var hasSession = false
    /// Known to pass.
    private var low: Int?
    /// Not known not to pass.
    private var high: Int
    private var trial: PathMTUTrial?
    private var purpose = Purpose.search
    private var reported: Int?
    private var timeout: Duration = .milliseconds(500)
    private var lastConfirmed: Instant?
    private var confirmAt: Instant?
    private var lookedAt: Instant?
    /// When data that is sent begins another search; nil: nothing larger is left to find.
    private var raiseAt: Instant?
    /// What was found is to be looked at again soon.
    private var isDoubtful = false
    private var fellAt: Instant?
    private var patience = firstPatience
    private var sequence: UInt32 = 0
    private var sent: [(sequence: UInt32, size: Int, at: Instant)] = []
    private var outputs: [Output] = []

    /// `maximum` is the TUN's MTU.
    package init(maximum: Int) {
        self.maximum = max(maximum, Self.floor)
        high = self.maximum
    }

    // MARK: What is known

    /// What an inner packet may have now.
    package var innerMTU: Int { reported ?? maximum }

    /// The same, once it was found to pass; nil before.
    package var found: Int? { reported }

    /// Whether a search is under way.
    package var isSearching: Bool { trial != nil && purpose == .search }

    // MARK: What happened

    /// A handshake is complete; again for each rekey, which changes nothing.
    package mutating func sessionBegan(now: Instant) {
        guard !hasSession else { return }
        hasSession = true
        lookAgain(now)
    }

    package mutating func sessionEnded() {
        if isSearching { raiseAt = Self.atOnce }
        hasSession = false
        trial = nil
        confirmAt = nil
    }

    /// The outer packets go another way: another endpoint, source or interface. May be said as often as one likes.
    package mutating func pathChanged(now: Instant) {
        guard hasSession else { return }
        raiseAt = Self.atOnce
        let isConfirming = trial != nil && purpose == .confirmation
        if isConfirming || lookedAt.map({ now - $0 < Self.changeInterval }) ?? false {
            confirmAt = min(confirmAt ?? now + Self.changeInterval, now + Self.changeInterval)
        } else {
            lookAgain(now)
        }
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
        guard hasSession, let probe = sent.last(where: { $0.sequence == sequence }) else { return }
        patience = Self.firstPatience
        if let trial, trial.size == probe.size {
            return succeed(trial, sentAt: probe.at, now)
        }
        trial?.noteAnswer(size: probe.size, sentAt: probe.at)
        // A size that had been given up, after all.
        guard let low, probe.size > low, probe.size <= maximum else { return }
        if isSearching {
            self.low = probe.size
            high = max(high, probe.size)
        } else {
            raiseAt = Self.atOnce
        }
    }

    /// The kernel refused an outer packet (EMSGSIZE): of a probe of this inner size, or of data of it. Nil: of
    /// data or of a probe, whichever was larger.
    package mutating func sendTooBig(size: Int? = nil, now: Instant) {
        guard hasSession else { return }
        guard let size else {
            if let fellAt, now - fellAt < Self.fallTime { return }
            if let trial, trial.size > innerMTU || reported == nil {
                refuse(trial, now)
            } else {
                fall(below: innerMTU, now)
            }
            return
        }
        if let trial, trial.size == size, isSearching {
            refuse(trial, now)
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
        raiseAt = Self.atOnce
        if let low, low > maximum { self.low = maximum }
        if let reported, reported > maximum { report(maximum) }
        high = maximum
        if hasSession { search(from: low, now) }
    }

    package mutating func handleTimeout(now: Instant) {
        if let current = trial {
            guard current.deadline <= now, let step = trial?.next(now: now, timeout: timeout) else { return }
            switch step {
            case .send(let sizes): for size in sizes { emit(size, now) }
            case .decided(.tooLarge(let failing, let passing, let isLoaded)):
                if isLoaded { isDoubtful = true }
                tooLarge(failing, passing: passing, begin: current.begin, now)
            case .decided(.unclear): giveUp(current, isSilent: false, now)
            case .decided(.silent): giveUp(current, isSilent: true, now)
            }
        } else if let due = confirmAt, due <= now {
            lookAgain(now)
        }
    }

    package var nextTimeout: Instant? { hasSession ? trial?.deadline ?? confirmAt : nil }

    package mutating func poll() -> Output? { outputs.isEmpty ? nil : outputs.removeFirst() }

    // MARK: Steps

    /// Whether what is in use passes; or, while nothing is known, what does.
    private mutating func lookAgain(_ now: Instant) {
        confirmAt = nil
        lookedAt = now
        // What a search has found beyond what is in use may be of another path.
        low = reported
        guard reported != nil else { return search(from: nil, now) }
        begin(innerMTU, .confirmation, now)
    }

    private mutating func search(from low: Int?, _ now: Instant) {
        self.low = low
        high = maximum
        raiseAt = nil
        isDoubtful = false
        if low == maximum { return rest(now) }
        confirmAt = nil
        begin(maximum, .search, now)
    }

    private mutating func begin(_ size: Int, _ purpose: Purpose, _ now: Instant) {
        // A search knows one that passes.
        let known = purpose == .search ? low : nil
        let references = Self.ladder.filter { $0 < size && $0 > known ?? 0 } + (known.map { [$0] } ?? [])
        trial = PathMTUTrial(
            size, references: references, now: now, timeout: timeout, seed: sequence)
        self.purpose = purpose
        emit(size, now)
    }

    private mutating func emit(_ size: Int, _ now: Instant) {
        sequence &+= 1
        if sent.count == Self.rememberedProbes { sent.removeFirst() }
        sent.append((sequence, size, now))
        outputs.append(.probe(size: size, sequence: sequence))
    }

    private mutating func succeed(_ trial: PathMTUTrial, sentAt: Instant, _ now: Instant) {
        self.trial = nil
        // It passed when it was sent: what came after is not confirmed by it.
        if trial.size >= innerMTU { lastConfirmed = sentAt }
        low = max(low ?? 0, trial.size)
        if purpose == .search { next(now) }
    }

    /// `size` does not pass, while `passing` does since the trial's begin.
    private mutating func tooLarge(_ size: Int, passing: Int, begin: Instant, _ now: Instant) {
        high = Self.below(size)
        if passing >= innerMTU { lastConfirmed = begin }
        if purpose == .confirmation || low == nil {
            // A verdict over what was in use is given twice.
            if purpose == .confirmation { isDoubtful = true }
            if passing < innerMTU { fellAt = now }
            confirmAt = nil
            raiseAt = nil
            low = nil
            report(passing)
        }
        low = max(low ?? 0, passing)
        next(now)
    }

    /// An interface of this host does not take it.
    private mutating func refuse(_ trial: PathMTUTrial, _ now: Instant) {
        if purpose == .confirmation { return fall(below: trial.size, now) }
        high = Self.below(trial.size)
        if low == nil { settle(trial.size, now) } else { next(now) }
    }

    /// What is in use no longer leaves this host.
    private mutating func fall(below size: Int, _ now: Instant) {
        low = nil
        confirmAt = nil
        raiseAt = nil
        fellAt = now
        high = Self.below(size)
        settle(size, now)
    }

    /// `size` does not pass, and nothing is known to: the base is used, and asked for.
    private mutating func settle(_ size: Int, _ now: Instant) {
        trial = nil
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
        trial = nil
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
        let interval = isDoubtful ? Self.secondLookInterval : Self.raiseInterval
        raiseAt = low == maximum ? nil : now + interval
    }

    /// Nothing is known of the size. A search ends with what was in use; that is confirmed, as the path may have
    /// shrunk meanwhile.
    private mutating func giveUp(_ trial: PathMTUTrial, isSilent: Bool, _ now: Instant) {
        self.trial = nil
        guard purpose == .search else {
            lastConfirmed = now
            return
        }
        low = reported
        if isSilent || reported == nil {
            raiseAt = now + patience
            patience = min(patience * 2, Self.raiseInterval)
        } else {
            raiseAt = now + Self.secondLookInterval
        }
        if reported != nil { lookAgain(now) }
    }

    private mutating func report(_ size: Int) {
        guard size != reported else { return }
        reported = size
        outputs.append(.found(innerMTU: size))
    }

    /// The next smaller size that is tried.
    private static func below(_ size: Int) -> Int { max((size - 1) / step * step, floor) }
}
