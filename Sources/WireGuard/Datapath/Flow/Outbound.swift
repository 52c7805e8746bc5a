/// The way of a packet from the TUN to the peer:
///
/// 1. `begin` takes the table and the time for the batch.
/// 2. `add` parses a packet, finds where it goes and its path, finishes its checksums, segments it if it is a
///    superpacket, and seals each piece into the send buffer. Without a usable keypair the pieces go to
///    control, to be staged; on a path that a drill has cut they are lost. What else a path asks for is in
///    `Outbound+PathPolicy`.
/// 3. `releaseHeld` does the same for what waited for its rate.
/// 4. The caller sends the runs, and calls `sent`.
/// 5. `finish` writes counters and stamps, and raises what control must know.
///
/// Concurrency: a local of the outbound thread, used inside its epoch.
@safe package struct Outbound: ~Copyable {
    /// Packets in a batch at most; each may be for another peer.
    package static let batchLimit = 64
    /// The longest packet that a TUN gives, and the slack behind it that padding is written to.
    package static let packetCapacity = 65_536 + 16
    /// What a superpacket split into the smallest segments that TCP allows takes in the send buffer.
    private static let worstCase = 256 << 10
    /// And how many runs it makes at most, where each segment is one.
    private static let worstRuns = 2048

    @unsafe struct PathUse {
        var path: Unmanaged<TunnelPath>
        var keypair: Unmanaged<Keypair>?
        /// Nil too while the path is cut.
        var underlay: UnderlayPath?
        var isCut: Bool
        /// There is more to do with its packets than to seal them.
        var hasPolicy: Bool
        /// The longest inner packet that passes; `Int.max` while nothing is known.
        var limit: Int
        /// The most that padding may fill.
        var paddingLimit: Int
        /// Bits of the inner packet's TOS that the outer packet shows.
        var tosMask: UInt8
        /// Each of its packets, on its own, is to be limited or translated.
        var isIntercepted = false
        var translation: Unmanaged<PrefixTranslation>?
        var connectionShaper: Unmanaged<Shaper>?
        var pathShaper: Unmanaged<Shaper>?
        var bytes = 0
        var packets = 0

        /// Over IPv4 the router before a narrow link fragments what has no DF; IPv6 is fragmented by its sender or not at all,
        /// and this host does not know where.
        var mayFragment: Bool { unsafe underlay?.endpoint.address.family == .v4 }
    }

    /// Where a packet goes.
    struct Hop: BitwiseCopyable {
        /// What the table says of its address.
        let destination: Int32
        /// TOS of the outer packet.
        let tos: UInt8
        /// Index of the path's entry in `uses`.
        let use: Int
    }

    package let drops: DropCounters
    private let events: EventRing
    private(set) var table = ForwardingTable.empty
    private(set) var now = Instant(nanoseconds: 0)
    private var batch = SendBatch()
    private var chacha = ChaCha20Poly1305()
    let uses: UnsafeMutablePointer<PathUse>
    private var useCount = 0
    var icmpError = ICMPError()
    var shapers = ShaperSet()
    /// A run could not be sent, ever: the paths are asked only then.
    private var hasSendFailed = false
    /// For fragments.
    let scratch: UnsafeMutableRawPointer

    package init(events: EventRing, drops: DropCounters) {
        self.events = events
        self.drops = drops
        unsafe uses = .allocate(capacity: Self.batchLimit)
        unsafe scratch = .allocate(byteCount: Self.packetCapacity, alignment: 16)
    }

    deinit {
        unsafe uses.deallocate()
        unsafe scratch.deallocate()
    }

    package mutating func begin(table: ForwardingTable, now: Instant) {
        if table !== self.table {
            self.table = table
            shapers.follow(table)
        }
        self.now = now
        shapers.begin(now: now)
        icmpError.refill(at: now)
    }

    /// True when another packet may not fit: send the runs, then call `sent` and `finish`.
    package var isFull: Bool {
        batch.used &+ Self.worstCase > batch.capacity || useCount == Self.batchLimit
            || batch.runCount &+ Self.worstRuns > SendBatch.maximumRuns
    }

    /// Takes one packet as the TUN gave it. Its bytes, and 16 more behind them, are written to.
    package mutating func add(_ bytes: UnsafeMutableRawPointer, count: Int, offload: VirtioNetHeader) {
        icmpError.clear()
        do throws(DropReason) {
            let packet = try unsafe IPPacket(bytes, count: count)
            add(packet, offload: offload)
        } catch {
            drops.add(.outboundMalformed)
        }
    }

    @inline(__always)
    private mutating func add(_ packet: borrowing IPPacket, offload: VirtioNetHeader) {
        let destination = packet.route(by: .destination, in: table)
        guard destination >= 0, let path = unsafe table.path(to: destination, for: packet) else {
            drops.add(packet.staysOnLink ? .linkLocalMulticast : .noRoute)
            icmpError.make(for: packet)
            return
        }
        let index = unsafe use(path)
        guard unsafe uses[index].underlay != nil else {
            drop(packet, offload: offload, use: index)
            return
        }
        guard !isOwnMessage(packet, use: index) else {
            drops.add(.routingLoop)
            return
        }
        let hop = unsafe Hop(destination: destination, tos: packet.tos & uses[index].tosMask, use: index)
        if offload.segmentation == VirtioNetHeader.Segmentation.none {
            if offload.flags & VirtioNetHeader.Flag.needsChecksum != 0 {
                guard Self.finishChecksum(packet, offload: offload) else {
                    drops.add(.outboundOffloadInvalid)
                    return
                }
            }
            guard unsafe !uses[index].hasPolicy || applyPathPolicy(packet, hop) else { return }
            seal(packet, hop)
        } else {
            guard let superpacket = unsafe Superpacket(packet, offload: offload, limit: uses[index].limit)
            else {
                drops.add(.outboundOffloadInvalid)
                return
            }
            guard unsafe !uses[index].hasPolicy || applyPathPolicy(superpacket, hop) else { return }
            for number in 0..<superpacket.segmentCount { seal(superpacket.segment(number), hop) }
        }
    }

    /// An ICMP error about the packet just added, to be written to the TUN; nil most of the time.
    package var reply: UnsafeRawBufferPointer? { unsafe icmpError.bytes }

    // MARK: Runs

    package var runCount: Int { batch.runCount }

    package func run(_ index: Int) -> SendRun { batch[index] }

    package func bytes(of run: SendRun) -> UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: batch.base + run.offset, count: run.count)
    }

    /// The source that the run was to be sent from is no longer ours.
    package func forgetSource(of run: SendRun) {
        unsafe uses[run.use].path._withUnsafeGuaranteedRef { $0.forgetSource() }
    }

    /// The socket took the run, or a part of it, for too big.
    package func runWasTooBig(_ run: SendRun) {
        unsafe uses[run.use].path._withUnsafeGuaranteedRef { path in
            if path.mayTellOfTooBig(at: now) { _ = events.sendTooBig(path.peer) }
        }
    }

    /// The socket did not take the run. A full queue is no failure: that is what congestion looks like.
    package mutating func runFailed(_ run: SendRun, _ code: Int32, isCongestion: Bool) {
        guard !isCongestion else { return }
        hasSendFailed = true
        unsafe uses[run.use].path._withUnsafeGuaranteedRef { $0.sendFailed(code, at: now) }
    }

    @inline(__always)
    package func runWasSent(_ run: SendRun) {
        guard hasSendFailed else { return }
        unsafe uses[run.use].path._withUnsafeGuaranteedRef { $0.sendWorks() }
    }

    /// All runs have been sent, or counted as dropped.
    package mutating func sent() { batch.clear() }

    /// Counters, stamps and events, once a batch.
    package mutating func finish() {
        for index in 0..<useCount {
            let use = unsafe uses[index]
            guard unsafe use.packets > 0 else { continue }
            unsafe use.path._withUnsafeGuaranteedRef { path in
                path.noteTraffic(at: now)
                unsafe use.keypair?._withUnsafeGuaranteedRef { keypair in
                    unsafe path.noteSent(
                        bytes: use.bytes, packets: use.packets, under: keypair, at: now, events: events)
                }
            }
        }
        useCount = 0
        chacha.wipe()
    }

    // MARK: Steps

    /// The batch's entry for a path: its keypair and its endpoint are read once.
    @inline(__always)
    mutating func use(_ path: Unmanaged<TunnelPath>) -> Int {
        let opaque = unsafe path.toOpaque()
        var index = useCount &- 1
        while index >= 0 {
            if unsafe uses[index].path.toOpaque() == opaque { return index }
            index &-= 1
        }
        var features: ForwardingTable.Features = []
        let entry = unsafe path._withUnsafeGuaranteedRef { path in
            features = table.features(of: path.peer)
            var keypair = unsafe path.sendingKeypair
            let isExpired = unsafe keypair?._withUnsafeGuaranteedRef { $0.isExpired(at: now) } ?? false
            if isExpired { unsafe keypair = nil }
            let isCut = path.isCut
            let innerMTU = path.innerMTU
            let limit = innerMTU > 0 ? innerMTU : Int.max
            return unsafe PathUse(
                path: .passUnretained(path), keypair: keypair, underlay: isCut ? nil : path.underlay,
                isCut: isCut, hasPolicy: innerMTU > 0, limit: limit, paddingLimit: min(limit, table.mtu),
                tosMask: ECN.Codepoint.mask)
        }
        precondition(useCount < Self.batchLimit)
        unsafe (uses + useCount).initialize(to: entry)
        if !features.isEmpty { unsafe equip(uses + useCount, features) }
        useCount &+= 1
        return useCount &- 1
    }

    /// Drops a packet for want of an endpoint, with an ICMP error, or because a drill has cut its path: a cable gives no
    /// reply.
    @inline(never)
    private mutating func drop(_ packet: borrowing IPPacket, offload: VirtioNetHeader, use index: Int) {
        guard unsafe !uses[index].isCut else {
            let segments =
                offload.segmentation == VirtioNetHeader.Segmentation.none
                ? nil : Superpacket(packet, offload: offload)?.segmentCount
            drops.add(.drilled, count: segments ?? 1)
            return
        }
        drops.add(.noEndpoint)
        icmpError.make(for: packet)
    }

    /// A message that we sealed for this peer, led back into its tunnel by a route. Sealed again it would go
    /// round for ever, in ever more pieces. Nobody else writes the index of our key's peer.
    @inline(__always)
    private func isOwnMessage(_ packet: borrowing IPPacket, use index: Int) -> Bool {
        guard packet.transport == IPProtocol.udp || packet.transport == IPProtocol.fragment,
            let keypair = unsafe uses[index].keypair
        else { return false }
        // A first fragment of IPv6 has a fragment header before the UDP header.
        let offset =
            UDPField.headerLength &+ (packet.transport == IPProtocol.udp ? 0 : ExtensionField.unit)
        guard packet.bodyLength >= offset &+ Protocol.transportHeaderSize,
            unsafe packet.body.loadUnaligned(fromByteOffset: offset, as: UInt32.self).littleEndian
                == MessageType.transport.rawValue
        else { return false }
        let message = unsafe TransportHeader(packet.body + offset)
        return unsafe keypair._withUnsafeGuaranteedRef { $0.remoteIndex == message.receiverIndex }
    }

    /// `packet` is finished, and has 16 bytes behind it that are put back. `mayFragment` where it is longer than
    /// the path carries whole.
    @inline(__always)
    mutating func seal(_ packet: borrowing IPPacket, _ hop: Hop, mayFragment: Bool = false) {
        unsafe seal(packet.start, count: packet.count, tos: hop.tos, use: hop.use, mayFragment: mayFragment)
    }

    private mutating func seal(
        _ packet: UnsafeMutableRawPointer, count: Int, tos: UInt8, use index: Int, mayFragment: Bool
    ) {
        guard let keypair = unsafe uses[index].keypair, let underlay = unsafe uses[index].underlay else {
            // Control sends what is staged whole.
            if mayFragment {
                drops.add(.outboundTooBig)
            } else {
                unsafe stage(packet, count: count, use: index)
            }
            return
        }
        let padded = unsafe paddedLength(count, mtu: uses[index].paddingLimit)
        let size = padded &+ Protocol.transportOverhead
        guard let output = unsafe batch.room(for: size) else {
            drops.add(.outboundOffloadInvalid)
            return
        }
        let isSealed = unsafe keypair._withUnsafeGuaranteedRef { keypair in
            unsafe keypair.seal(packet, count: count, padded: padded, into: output, by: &chacha)
        }
        guard isSealed else {
            drops.add(.sendCounterExhausted)
            return
        }
        batch.append(size: size, underlay: underlay, use: index, tos: tos, mayFragment: mayFragment)
        unsafe uses[index].bytes &+= size
        unsafe uses[index].packets &+= 1
    }

    /// Not on the packet's usual way: control stages it, and starts a handshake. A host that floods a tunnel
    /// without a session must not keep control busy with packets that only take each other's place.
    @inline(never)
    private func stage(_ packet: UnsafeRawPointer, count: Int, use index: Int) {
        let isStaged = unsafe uses[index].path._withUnsafeGuaranteedRef { path in
            unsafe path.mayStage(at: now)
                && events.stage(packet, count: count, peer: path.peer)
        }
        if !isStaged { drops.add(.stagedQueueFull) }
    }

    private static func finishChecksum(_ packet: borrowing IPPacket, offload: VirtioNetHeader) -> Bool {
        let start = Int(offload.checksumStart)
        let field = start &+ Int(offload.checksumOffset)
        guard field &+ 2 <= packet.count else { return false }
        let sum = unsafe ~Checksum.fold(Checksum.add(packet.bytes + start, count: packet.count &- start))
        let isUDP = offload.checksumOffset == UDPField.checksum
        unsafe packet.start.storeWord(isUDP && sum == 0 ? 0xffff : sum, at: field)
        return true
    }
}
