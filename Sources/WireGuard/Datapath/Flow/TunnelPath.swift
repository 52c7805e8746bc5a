internal import Synchronization

/// What the control thread and the data threads share of one tunnel: where the peer is, under which key to
/// send, and what has passed.
///
/// Concurrency: every field is constant or an atomic. Control and the inbound thread publish the sending keypair, and the
/// underlay (a sequence lock: writers exclude each other, readers retry). Stamps and counters have
/// relaxed writers, once a batch, and are read by control when a timer falls due.
package final class TunnelPath: Sendable {
    package let peer: PeerID
    /// The UDP socket group that it leaves by, and in which alone its peer may roam.
    package let socket: UInt8
    package let inside: InsideLink?

    package init(peer: PeerID, socket: UInt8 = 0, inside: InsideLink? = nil) {
        self.peer = peer
        self.socket = socket
        self.inside = inside
    }

    // MARK: Orders of control, read by the data threads once a batch

    private let cut = Atomic<Bool>(false)
    private let innerLimit = Atomic<Int>(0)

    /// A drill: nothing passes, as by a cable that was cut, and nobody is told. Control looks at it itself for
    /// what it sends.
    package var isCut: Bool { cut.load(ordering: .relaxed) }
    package func setCut(_ isCut: Bool) { cut.store(isCut, ordering: .relaxed) }

    /// The longest inner packet that the underlay carries, in bytes; 0 while nothing is known.
    package var innerMTU: Int { innerLimit.load(ordering: .relaxed) }
    package func setInnerMTU(_ bytes: Int) { innerLimit.store(bytes, ordering: .relaxed) }

    private let innerLimitIsPassing = Atomic<Bool>(false)

    /// A search goes on, and `innerMTU` is its safe side: senders are not told, as they would keep to it for ten
    /// minutes (RFC 1191, section 6.3).
    package var isInnerMTUPassing: Bool { innerLimitIsPassing.load(ordering: .relaxed) }
    package func setInnerMTUPassing(_ isPassing: Bool) {
        innerLimitIsPassing.store(isPassing, ordering: .relaxed)
    }

    // MARK: Underlay

    /// Even: stable. Odd: being written.
    private let sequence = Atomic<UInt64>(0)
    private let addressHigh = Atomic<UInt64>(0)
    private let addressLow = Atomic<UInt64>(0)
    /// Endpoint's scope << 32 | port << 16 | address family; 0 while there is no endpoint.
    private let endpointRest = Atomic<UInt64>(0)
    private let sourceHigh = Atomic<UInt64>(0)
    private let sourceLow = Atomic<UInt64>(0)
    /// Source's interface << 32 | address family; 0 while there is no source.
    private let sourceRest = Atomic<UInt64>(0)

    /// Where the peer was last heard, or is configured to be; always by the path's own socket group.
    package var underlay: UnderlayPath? {
        while true {
            let before = sequence.load(ordering: .acquiring)
            guard before & 1 == 0 else { continue }
            let address = (addressHigh.load(ordering: .relaxed), addressLow.load(ordering: .relaxed))
            let rest = endpointRest.load(ordering: .relaxed)
            let source = (sourceHigh.load(ordering: .relaxed), sourceLow.load(ordering: .relaxed))
            let sourceRest = self.sourceRest.load(ordering: .relaxed)
            atomicMemoryFence(ordering: .acquiring)
            guard sequence.load(ordering: .relaxed) == before else { continue }
            guard let family = IPAddress.Family(rawValue: UInt8(truncatingIfNeeded: rest)) else { return nil }
            let endpoint = Endpoint(
                address: IPAddress(family: family, bits: UInt128(address.0) << 64 | UInt128(address.1)),
                port: UInt16(truncatingIfNeeded: rest >> 16), scope: UInt32(truncatingIfNeeded: rest >> 32))
            guard let sourceFamily = IPAddress.Family(rawValue: UInt8(truncatingIfNeeded: sourceRest)) else {
                return UnderlayPath(endpoint: endpoint, socket: socket)
            }
            return UnderlayPath(
                endpoint: endpoint,
                source: LocalSource(
                    address: IPAddress(
                        family: sourceFamily, bits: UInt128(source.0) << 64 | UInt128(source.1)),
                    interface: UInt32(truncatingIfNeeded: sourceRest >> 32)), socket: socket)
        }
    }

    /// A source that was learned by another socket group is none that this one may send from.
    package func setUnderlay(_ path: UnderlayPath?) {
        write {
            leftUntil.store(0, ordering: .relaxed)
            storeUnderlay(path)
        }
    }

    /// The peer was heard there. What is learned of it is decided under the lock, whatever `learnable` said before.
    func setUnderlay(heard path: UnderlayPath, at now: Instant) {
        write { storeUnderlay(learnable(path, at: now)) }
    }

    /// The routing table chooses again: on a handshake retry, and when the address is no longer ours.
    package func forgetSource() { write { storeSource(nil) } }

    /// The interface that the way to the peer has left, and until when no packet that arrives by it tells a source.
    private let leftInterface = Atomic<UInt32>(0)
    private let leftUntil = Atomic<UInt64>(0)

    /// The way to the peer has left an interface, and the routing table chooses a source again. Packets that are under way
    /// to an address of that interface must not bring the old source back: until `time` they tell none.
    package func leaveSource(of interface: UInt32, until time: Instant) {
        write {
            leftInterface.store(interface, ordering: .relaxed)
            leftUntil.store(time.nanoseconds, ordering: .relaxed)
            storeSource(nil)
        }
    }

    /// What is learned of where the peer was heard: all, but for a source that was left just now.
    func learnable(_ heard: UnderlayPath, at now: Instant) -> UnderlayPath {
        guard now.nanoseconds < leftUntil.load(ordering: .relaxed),
            heard.source?.interface == leftInterface.load(ordering: .relaxed)
        else { return heard }
        var heard = heard
        heard.source = nil
        return heard
    }

    private func storeUnderlay(_ path: UnderlayPath?) {
        let bits = path?.endpoint.address.bits ?? 0
        addressHigh.store(UInt64(truncatingIfNeeded: bits >> 64), ordering: .relaxed)
        addressLow.store(UInt64(truncatingIfNeeded: bits), ordering: .relaxed)
        endpointRest.store(
            path.map {
                UInt64($0.endpoint.scope) << 32 | UInt64($0.endpoint.port) << 16
                    | UInt64($0.endpoint.address.family.rawValue)
            } ?? 0, ordering: .relaxed)
        storeSource(path?.socket == socket ? path?.source : nil)
    }

    private func storeSource(_ source: LocalSource?) {
        let bits = source?.address.bits ?? 0
        sourceHigh.store(UInt64(truncatingIfNeeded: bits >> 64), ordering: .relaxed)
        sourceLow.store(UInt64(truncatingIfNeeded: bits), ordering: .relaxed)
        sourceRest.store(
            source.map { UInt64($0.interface) << 32 | UInt64($0.address.family.rawValue) } ?? 0,
            ordering: .relaxed)
    }

    private func write(_ body: () -> Void) {
        while true {
            let current = sequence.load(ordering: .relaxed)
            guard current & 1 == 0,
                sequence.compareExchange(
                    expected: current, desired: current &+ 1, successOrdering: .acquiring,
                    failureOrdering: .relaxed
                ).exchanged
            else { continue }
            atomicMemoryFence(ordering: .releasing)
            body()
            sequence.store(current &+ 2, ordering: .releasing)
            return
        }
    }

    // MARK: Sending keypair

    private let sending = Atomic<UInt>(0)

    /// What outbound seals under from its next batch on. Control publishes what is installed in the ``KeypairTable``,
    /// which keeps it alive; the table withdraws here what it lets go.
    package func publish(sending keypair: Keypair?) {
        sending.store(keypair.map { Self.word($0) } ?? 0, ordering: .sequentiallyConsistent)
    }

    /// Publishes a keypair that was just heard in place of an older one that is in use. The inbound thread calls it within
    /// a batch, before it writes what it heard to the TUN: a reply is then sealed under the new key, however long control
    /// takes to hear of it.
    ///
    /// Nothing else is replaced. A newer keypair stays: it is the one that both ends go over to where both began at
    /// once. Where there is none, control has ended the session, or has packets staged that go first. And what control
    /// publishes meanwhile stays too, as `current` cannot come back within the batch.
    func supersede(with keypair: Keypair, at now: Instant) {
        guard let current = unsafe sendingKeypair else { return }
        let isOlder = unsafe current._withUnsafeGuaranteedRef {
            $0.serial < keypair.serial && !$0.isExpired(at: now)
        }
        guard isOlder else { return }
        _ = unsafe sending.compareExchange(
            expected: UInt(bitPattern: current.toOpaque()), desired: Self.word(keypair),
            ordering: .sequentiallyConsistent)
    }

    /// Nothing is sealed under the keypair from the next batch on.
    func withdraw(_ keypair: Keypair) {
        _ = sending.compareExchange(
            expected: Self.word(keypair), desired: 0, ordering: .sequentiallyConsistent)
    }

    /// Call within a batch only: see ``DataThreadEpoch``.
    var sendingKeypair: Unmanaged<Keypair>? {
        guard
            let opaque = unsafe UnsafeRawPointer(bitPattern: sending.load(ordering: .sequentiallyConsistent))
        else {
            return nil
        }
        return unsafe Unmanaged.fromOpaque(opaque)
    }

    private static func word(_ keypair: Keypair) -> UInt {
        unsafe UInt(bitPattern: Unmanaged.passUnretained(keypair).toOpaque())
    }

    // MARK: Stamps, zero for never

    private let sentAt = Atomic<UInt64>(0)
    private let trafficSentAt = Atomic<UInt64>(0)
    private let receivedAt = Atomic<UInt64>(0)
    /// The first data since the last packet the other way: the next data after that packet takes its place.
    private let firstDataSentAt = Atomic<UInt64>(0)
    private let firstDataReceivedAt = Atomic<UInt64>(0)

    /// Any authenticated packet, keepalives included.
    package var lastSent: Instant? { Self.instant(sentAt) }
    /// Any packet that came from the TUN: neither probes nor replies to them.
    package var lastTrafficSent: Instant? { Self.instant(trafficSentAt) }
    /// Any authenticated packet, keepalives included.
    package var lastReceived: Instant? { Self.instant(receivedAt) }

    /// The first data sent that no packet received since has answered; nil when none waits for an answer.
    package var unansweredDataSent: Instant? { Self.unanswered(firstDataSentAt, since: receivedAt) }
    /// The first data received that no packet sent since has answered.
    package var unansweredDataReceived: Instant? { Self.unanswered(firstDataReceivedAt, since: sentAt) }

    /// Handshake messages answer data as well, and have no stamp here.
    func handshakeAnswersDataSent() { firstDataSentAt.store(0, ordering: .sequentiallyConsistent) }
    func handshakeAnswersDataReceived() { firstDataReceivedAt.store(0, ordering: .sequentiallyConsistent) }

    private static func unanswered(
        _ first: borrowing Atomic<UInt64>, since other: borrowing Atomic<UInt64>
    ) -> Instant? {
        let at = first.load(ordering: .sequentiallyConsistent)
        guard at != 0, other.load(ordering: .sequentiallyConsistent) < at else { return nil }
        return Instant(nanoseconds: at)
    }

    // MARK: What the far end says of us

    private let heardByFarEndAt = Atomic<UInt64>(0)
    private let wordAt = Atomic<UInt64>(0)

    /// What the far end said in the newest of its probes: when it had last heard us, on this end's clock.
    package var farEndsWord: (heardAt: Instant, saidAt: Instant)? {
        guard let saidAt = Self.instant(wordAt) else { return nil }
        return (Instant(nanoseconds: heardByFarEndAt.load(ordering: .relaxed)), saidAt)
    }

    /// The far end says now that it last heard us `silence` ago.
    func noteWord(silence: Duration, at now: Instant) {
        heardByFarEndAt.store((now - silence).nanoseconds, ordering: .relaxed)
        // Last, so that no older hearing is taken for a newer word's.
        wordAt.store(now.nanoseconds, ordering: .sequentiallyConsistent)
    }

    private static func instant(_ stamp: borrowing Atomic<UInt64>) -> Instant? {
        let value = stamp.load(ordering: .sequentiallyConsistent)
        return value == 0 ? nil : Instant(nanoseconds: value)
    }

    func noteTraffic(at now: Instant) { trafficSentAt.store(now.nanoseconds, ordering: .relaxed) }

    private let dataSentArmed = Atomic<Bool>(false)
    private let dataReceivedArmed = Atomic<Bool>(false)

    /// The next data packet sent raises `DatapathEvent.dataSent` again.
    package func disarmDataSent() { dataSentArmed.store(false, ordering: .sequentiallyConsistent) }
    /// The next data packet received raises `DatapathEvent.dataReceived` again.
    package func disarmDataReceived() { dataReceivedArmed.store(false, ordering: .sequentiallyConsistent) }

    // MARK: Counters

    private let txBytes = Atomic<UInt64>(0)
    private let txPackets = Atomic<UInt64>(0)
    private let rxBytes = Atomic<UInt64>(0)
    private let rxPackets = Atomic<UInt64>(0)

    /// Bytes of UDP payload, handshakes and keepalives included, as `wg` counts them.
    package var transmittedBytes: UInt64 { txBytes.load(ordering: .relaxed) }
    package var transmittedPackets: UInt64 { txPackets.load(ordering: .relaxed) }
    package var receivedBytes: UInt64 { rxBytes.load(ordering: .relaxed) }
    package var receivedPackets: UInt64 { rxPackets.load(ordering: .relaxed) }

    package func noteHandshakeSent(bytes: Int) { count(tx: bytes) }
    package func noteHandshakeReceived(bytes: Int) { count(rx: bytes) }

    private func count(tx bytes: Int) {
        txBytes.wrappingAdd(UInt64(bytes), ordering: .relaxed)
        txPackets.wrappingAdd(1, ordering: .relaxed)
    }

    private func count(rx bytes: Int) {
        rxBytes.wrappingAdd(UInt64(bytes), ordering: .relaxed)
        rxPackets.wrappingAdd(1, ordering: .relaxed)
    }

    /// Counts the data messages that a data thread has sealed under `keypair`, and tells control what follows from them.
    func noteSent(bytes: Int, packets: Int, under keypair: Keypair, at now: Instant, events: EventRing) {
        let isFirst = noteSent(bytes: bytes, packets: packets, at: now, hasData: true)
        if isFirst, !events.dataSent(peer, at: now) { disarmDataSent() }
        if keypair.isRekeyDue(at: now), mayAskForRekey(at: now) { _ = events.rekeyDue(peer) }
    }

    /// Counts any messages that were sent. True when this is the first data since the timer was disarmed: the caller
    /// sees to the timer, or disarms again if it cannot.
    func noteSent(bytes: Int, packets: Int, at now: Instant, hasData: Bool) -> Bool {
        txBytes.wrappingAdd(UInt64(bytes), ordering: .relaxed)
        txPackets.wrappingAdd(UInt64(packets), ordering: .relaxed)
        sentAt.store(now.nanoseconds, ordering: .sequentiallyConsistent)
        guard hasData else { return false }
        if Self.unanswered(firstDataSentAt, since: receivedAt) == nil {
            firstDataSentAt.store(now.nanoseconds, ordering: .sequentiallyConsistent)
        }
        // A store a batch to a line that others read would cost them: look first.
        if dataSentArmed.load(ordering: .sequentiallyConsistent) { return false }
        return !dataSentArmed.exchange(true, ordering: .sequentiallyConsistent)
    }

    func noteReceived(bytes: Int, packets: Int, at now: Instant, hasData: Bool) -> Bool {
        rxBytes.wrappingAdd(UInt64(bytes), ordering: .relaxed)
        rxPackets.wrappingAdd(UInt64(packets), ordering: .relaxed)
        receivedAt.store(now.nanoseconds, ordering: .sequentiallyConsistent)
        guard hasData else { return false }
        if Self.unanswered(firstDataReceivedAt, since: sentAt) == nil {
            firstDataReceivedAt.store(now.nanoseconds, ordering: .sequentiallyConsistent)
        }
        if dataReceivedArmed.load(ordering: .sequentiallyConsistent) { return false }
        return !dataReceivedArmed.exchange(true, ordering: .sequentiallyConsistent)
    }

    private let rekeyAskedAt = Atomic<UInt64>(0)
    private let tooBigToldAt = Atomic<UInt64>(0)
    private let sourceToldAt = Atomic<UInt64>(0)

    /// At most twice a second, so that a session past its time does not fill the ring.
    func mayAskForRekey(at now: Instant) -> Bool { Self.isDue(rekeyAskedAt, at: now) }

    /// Likewise of messages that the socket refused.
    func mayTellOfTooBig(at now: Instant) -> Bool { Self.isDue(tooBigToldAt, at: now) }

    /// Likewise of inner packets from where none may come.
    func mayTellOfSource(at now: Instant) -> Bool { Self.isDue(sourceToldAt, at: now) }

    // MARK: What the data threads could not send

    /// Time in nanoseconds, with errno in place of its lowest eight bits; 0 while sending works.
    private let failureWord = Atomic<UInt64>(0)

    /// Why the latest message that was to go by this path was not sent, and when: errno of Linux, which is below 256.
    package var sendFailure: (code: Int32, at: Instant)? {
        let word = failureWord.load(ordering: .relaxed)
        return word == 0 ? nil : (Int32(word & 0xff), Instant(nanoseconds: word & ~0xff))
    }

    func sendFailed(_ code: Int32, at now: Instant) {
        failureWord.store(
            now.nanoseconds & ~0xff | UInt64(UInt8(truncatingIfNeeded: code)), ordering: .relaxed)
    }

    /// What goes by this path is sent.
    package func sendWorks() {
        if failureWord.load(ordering: .relaxed) != 0 { failureWord.store(0, ordering: .relaxed) }
    }

    private let isRoamingUntold = Atomic<Bool>(false)
    private let roamingToldAt = Atomic<UInt64>(0)

    private let staleRoams = Atomic<UInt64>(0)

    /// How often the peer was heard elsewhere under a session that a newer one has replaced: who roams takes the newest
    /// session along, so this is another host that has the same key.
    package var roamsUnderOldSession: UInt64 { staleRoams.load(ordering: .relaxed) }

    /// The peer was heard from elsewhere, and is sent to there from now on. `serial` is that of the keypair that it was
    /// heard under. Of the inbound thread, within a batch.
    func roam(to path: UnderlayPath, under serial: UInt64, at now: Instant) {
        setUnderlay(heard: path, at: now)
        isRoamingUntold.store(true, ordering: .relaxed)
        let newest = unsafe sendingKeypair?._withUnsafeGuaranteedRef { $0.serial } ?? 0
        if serial < newest { staleRoams.wrappingAdd(1, ordering: .relaxed) }
    }

    /// Whether control is to be told that the peer is elsewhere than it knows: at most ten times a second, as a peer may
    /// come from two places in turn, and again until it was told.
    func mayTellOfRoaming(at now: Instant) -> Bool {
        isRoamingUntold.load(ordering: .relaxed)
            && Self.isDue(roamingToldAt, at: now, interval: 100_000_000)
    }

    func roamingWasTold() { isRoamingUntold.store(false, ordering: .relaxed) }

    private let stagingSince = Atomic<UInt64>(0)
    private let stagedSince = Atomic<Int>(0)
    /// Twice what control keeps: the newest of a burst, too.
    static let stagingCredit = 2 * Protocol.stagedPacketLimit
    private static let stagingInterval = Duration.milliseconds(100).wholeNanoseconds

    /// At most so many times in each tenth of a second, over all threads.
    func mayStage(at now: Instant) -> Bool {
        let since = stagingSince.load(ordering: .relaxed)
        // Two threads may ask, and one of them may have begun its batch a moment earlier.
        if since != 0, Int64(bitPattern: now.nanoseconds &- since) < Self.stagingInterval {
            return stagedSince.wrappingAdd(1, ordering: .relaxed).oldValue < Self.stagingCredit
        }
        stagingSince.store(now.nanoseconds, ordering: .relaxed)
        stagedSince.store(1, ordering: .relaxed)
        return true
    }

    private static func isDue(
        _ stamp: borrowing Atomic<UInt64>, at now: Instant, interval: UInt64 = 500_000_000
    ) -> Bool {
        let last = stamp.load(ordering: .relaxed)
        guard last == 0 || now.nanoseconds &- last >= interval else { return false }
        stamp.store(now.nanoseconds, ordering: .relaxed)
        return true
    }
}
