internal import Synchronization

/// The way of a datagram from the network to the TUN:
///
/// 1. `begin` takes the table and the time for the batch.
/// 2. `add` splits a datagram into the messages that the kernel joined (UDP GRO). Handshake messages go to
///    control, and so does what is for another worker. A transport message finds its keypair, is opened in place,
///    passes the replay window, and its inner packet must be whole and come from an address behind that peer. It takes
///    over what routers marked on the outer one (ECN). Probes of the far end get a reply, and replies to our own go
///    to control. A key that is heard for the first time is used for sending from here on.
/// 3. `nextWrite` publishes where the peers are now, and then gives the packets, coalesced, for the TUN: replies to
///    them find both the key and the endpoint.
/// 4. The caller sends the runs, which are the replies to probes, and calls `sent`.
/// 5. `finish` writes counters and stamps, and raises what control must know.
///
/// Concurrency: a local of the inbound thread, used inside its epoch.
@safe package struct Inbound: ~Copyable {
    private static let maximumUses = 64
    /// A second's probes of a thousand tunnels, or what a peer may ask for with packets of full size in a batch.
    private static let replyCapacity = 256 << 10
    /// Bytes of a packet that control sees: of a reply to a probe the longest header, the ICMP header, and what was ours.
    private static let excerpt = 96

    @unsafe private struct PathUse {
        var path: Unmanaged<TunnelPath>
        /// Where the last message came from.
        var underlay: UnderlayPath
        /// Serial number of the keypair that the last message was under.
        var serial: UInt64
        /// The connection that its packets come from; negative is none.
        var connection: Int32
        var isCut: Bool
        /// There is more to do with its packets than to pass them on.
        var hasPolicy: Bool
        /// The longest inner packet that the path carries; 0 while nothing is known.
        var innerMTU: Int
        var translation: Unmanaged<PrefixTranslation>?
        var bytes = 0
        var packets = 0
        var hasData = false
    }

    package let drops: DropCounters
    private let keypairs: KeypairTable
    private let worker: Int
    private let events: EventRing
    private var table = ForwardingTable.empty
    private var now = Instant(nanoseconds: 0)
    private var windows: ReplayWindows
    private var chacha = ChaCha20Poly1305()
    private var coalescer: Coalescer
    private let uses: UnsafeMutablePointer<PathUse>
    private var useCount = 0
    /// Whether the paths have the endpoints of all that was added.
    private var areEndpointsPublished = true
    /// TOS of the datagram that is being taken.
    private var outerTOS: UInt8 = 0
    /// Replies to probes; their `use` is the index of the peer.
    private var replies = SendBatch(capacity: replyCapacity)

    /// The offloads are those of the TUN: whether it takes a virtio header, and superpackets of TCP and of
    /// UDP. `worker` is which of the table's this one is.
    package init(
        keypairs: KeypairTable, worker: Int = 0, events: EventRing, drops: DropCounters, vnetHeader: Bool,
        tcpOffload: Bool,
        udpOffload: Bool
    ) {
        self.keypairs = keypairs
        self.worker = worker
        self.events = events
        self.drops = drops
        windows = ReplayWindows(capacity: keypairs.capacity)
        coalescer = Coalescer(
            offloads: Coalescer.Offloads(
                vnetHeader: vnetHeader, tcp: vnetHeader && tcpOffload, udp: vnetHeader && udpOffload))
        unsafe uses = .allocate(capacity: Self.maximumUses)
    }

    deinit { unsafe uses.deallocate() }

    package mutating func begin(table: ForwardingTable, now: Instant) {
        if table !== self.table { self.table = table }
        self.now = now
    }

    /// True when the packets must be written, and `written` called, before another datagram is added.
    package var isFull: Bool { coalescer.isFull }

    /// Takes one datagram, of one or more messages of `segmentSize` bytes, the last perhaps shorter; 0 when
    /// it is one message. Its bytes are overwritten with what was in it, and must stay until the packets are
    /// written. `tos` is TOS or traffic class of the outer packets, as they arrived.
    package mutating func add(
        _ datagram: UnsafeMutableRawPointer, count: Int, segmentSize: Int, from underlay: UnderlayPath,
        tos: UInt8 = 0
    ) {
        outerTOS = tos
        areEndpointsPublished = false
        guard segmentSize > 0, segmentSize < count else {
            unsafe addMessage(datagram, count: count, from: underlay)
            return
        }
        // What the coalescer keeps room for; kernels join 64.
        let limit = min(count, Coalescer.reserve &* segmentSize)
        var offset = 0
        while offset < limit {
            let length = min(segmentSize, count &- offset)
            unsafe addMessage(datagram + offset, count: length, from: underlay)
            offset &+= length
        }
        if limit < count { drops.add(.datagramOversized) }
    }

    /// The next packet for the TUN; nil when all have been given.
    package mutating func nextWrite() -> UnsafeBufferPointer<PacketSlice>? {
        if !areEndpointsPublished { publishEndpoints() }
        return unsafe coalescer.nextWrite()
    }

    /// All packets have been written: the datagrams' bytes are no longer needed.
    package mutating func written() { coalescer.clear() }

    // MARK: Runs

    package var runCount: Int { replies.runCount }

    package func run(_ index: Int) -> SendRun { replies[index] }

    package func bytes(of run: SendRun) -> UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: replies.base + run.offset, count: run.count)
    }

    /// The source that the run was to be sent from is no longer ours.
    package func forgetSource(of run: SendRun) { table.path(of: PeerID(run.use))?.forgetSource() }

    /// All runs have been sent, or counted as dropped.
    package mutating func sent() { replies.clear() }

    // MARK: The end of a batch

    /// Counters, stamps and events, once a batch.
    package mutating func finish() {
        if !areEndpointsPublished { publishEndpoints() }
        for index in 0..<useCount {
            let use = unsafe uses[index]
            // What came by a path that a drill has cut is not counted.
            guard unsafe use.packets > 0 else { continue }
            unsafe use.path._withUnsafeGuaranteedRef { path in
                if path.mayTellOfRoaming(at: now), events.roamed(path.peer) { path.roamingWasTold() }
                let isFirst = unsafe path.noteReceived(
                    bytes: use.bytes, packets: use.packets, at: now, hasData: use.hasData)
                if isFirst, !events.dataReceived(path.peer, at: now) { path.disarmDataReceived() }
            }
        }
        useCount = 0
        chacha.wipe()
    }

    // MARK: Steps

    /// Each peer is where the last message of its came from, and what is sent to it from now on goes there.
    private mutating func publishEndpoints() {
        for index in 0..<useCount {
            let use = unsafe uses[index]
            // What came by a path that a drill has cut is not counted.
            guard unsafe use.packets > 0 else { continue }
            unsafe use.path._withUnsafeGuaranteedRef { path in
                // A peer that has a socket group of its own is not to be lured out of it.
                guard unsafe use.underlay.socket == path.socket,
                    unsafe path.underlay != path.learnable(use.underlay, at: now)
                else { return }
                unsafe path.roam(to: use.underlay, under: use.serial, at: now)
            }
        }
        areEndpointsPublished = true
    }

    @inline(__always)
    private mutating func addMessage(
        _ message: UnsafeMutableRawPointer, count: Int, from underlay: UnderlayPath
    ) {
        guard count >= 4 else {
            drops.add(.datagramTruncated)
            return
        }
        let type = UInt32(littleEndian: unsafe message.loadUnaligned(as: UInt32.self))
        if type == MessageType.transport.rawValue {
            do throws(DropReason) {
                try unsafe addTransport(message, count: count, from: underlay)
            } catch {
                drops.add(error)
            }
        } else {
            unsafe passToControl(message, count: count, type: type, from: underlay)
        }
    }

    @inline(never)
    private func passToControl(
        _ message: UnsafeRawPointer, count: Int, type: UInt32, from underlay: UnderlayPath
    ) {
        guard let type = MessageType(rawValue: type) else {
            drops.add(.messageTypeUnknown)
            return
        }
        guard count == type.exactSize else {
            drops.add(.messageLengthWrong)
            return
        }
        if !(unsafe events.handshakeMessage(message, count: count, from: underlay)) {
            drops.add(.handshakeQueueFull)
        }
    }

    /// The kernel joined a message of another worker's peer, behind the same address and port, to one that is ours.
    @inline(never)
    private func passOn(
        _ message: UnsafeRawPointer, count: Int, from underlay: UnderlayPath
    ) throws(DropReason) {
        guard unsafe events.stray(message, count: count, from: underlay, tos: outerTOS) else {
            throw .strayQueueFull
        }
    }

    @inline(__always)
    private mutating func addTransport(
        _ message: UnsafeMutableRawPointer, count: Int, from underlay: UnderlayPath
    ) throws(DropReason) {
        guard count >= Protocol.transportOverhead else { throw .messageLengthWrong }
        let header = unsafe TransportHeader(message)
        guard let reference = unsafe keypairs.lookup(header.receiverIndex) else {
            throw .receiverIndexUnknown
        }
        if keypairs.workers > 1 {
            let owner = KeypairTable.worker(ofIndex: header.receiverIndex, among: keypairs.workers)
            guard owner == worker else { return try unsafe passOn(message, count: count, from: underlay) }
        }
        let body = unsafe message + Protocol.transportHeaderSize
        let index = try unsafe reference.withGuaranteedRef { keypair throws(DropReason) in
            try unsafe open(
                body, count: count &- Protocol.transportHeaderSize, counter: header.counter, under: keypair,
                from: underlay)
        }
        unsafe uses[index].bytes &+= count
        unsafe uses[index].packets &+= 1
        let length = count &- Protocol.transportOverhead
        guard length > 0 else { return }
        unsafe uses[index].hasData = true
        let packet = try unsafe IPPacket(body, count: length)
        if outerTOS & ECN.Codepoint.mask != 0 { try ECN.decapsulate(packet, outer: outerTOS) }
        let connection = unsafe uses[index].connection
        guard connection >= 0, packet.route(by: .source, in: table) == connection else {
            try addUnusual(packet, use: index, from: underlay)
            return
        }
        if unsafe uses[index].hasPolicy { try applyPathPolicy(packet, use: index) }
        coalescer.add(packet)
    }

    /// What a path asks for beside passing on: that no stream is opened whose segments, which go back by it, would
    /// be too long; and that what goes to another number of ours gets there, also from the far end of an inside
    /// link, whose ICMP errors are about a site's packets.
    @inline(never)
    private func applyPathPolicy(_ packet: borrowing IPPacket, use index: Int) throws(DropReason) {
        let innerMTU = unsafe uses[index].innerMTU
        if innerMTU > 0, MSSClamp.concerns(packet) { MSSClamp.clamp(packet, innerMTU: innerMTU) }
        guard let translation = unsafe uses[index].translation else { return }
        let outcome = unsafe translation._withUnsafeGuaranteedRef { $0.inbound(packet) }
        if outcome == .impossible { throw .untranslatable }
    }

    /// A packet from an inside address, from one that is watched, or from where packets to it do not go.
    @inline(never)
    private mutating func addUnusual(
        _ packet: borrowing IPPacket, use index: Int, from underlay: UnderlayPath
    ) throws(DropReason) {
        let connection = unsafe uses[index].connection
        let (peer, inside) = unsafe uses[index].path._withUnsafeGuaranteedRef { ($0.peer, $0.inside) }
        let source = packet.address(.source)
        guard connection >= 0, table.mayComeFrom(source, inside: inside, of: connection) else {
            if unsafe uses[index].path._withUnsafeGuaranteedRef({ $0.mayTellOfSource(at: now) }) {
                // Without room it is counted all the same, and the next one is told of.
                _ = unsafe events.sourceRefused(
                    packet.bytes, count: min(packet.count, Self.excerpt), length: packet.count, peer: peer)
            }
            throw .innerSourceNotAllowed
        }
        if let inside, source == inside.remote, packet.address(.destination) == inside.local,
            packet.isEchoRequest
        {
            if let silence = packet.probeSilence {
                unsafe uses[index].path._withUnsafeGuaranteedRef { $0.noteWord(silence: silence, at: now) }
            }
            guard reply(to: packet, use: index, from: underlay) else { throw .probeUnanswerable }
            return
        }
        if packet.mayAnswerProbe, packet.transport != IPProtocol.tcp || table.isWatched(source),
            table.isProbeSource(packet.address(.destination), of: connection)
        {
            let kept = min(packet.count, Self.excerpt)
            guard
                unsafe events.probeReply(packet.bytes, count: kept, length: packet.count, peer: peer, at: now)
            else { throw .probeQueueFull }
            return
        }
        if unsafe uses[index].hasPolicy { try applyPathPolicy(packet, use: index) }
        coalescer.add(packet)
    }

    /// Turns a probe into its reply and seals it for where it came from. False without a session to do so in,
    /// or when the replies of a batch are too many.
    ///
    /// What lies behind the packet, the padding and the tag of its message, is at least as long as the padding
    /// of the reply.
    private mutating func reply(
        to packet: borrowing IPPacket, use index: Int, from underlay: UnderlayPath
    ) -> Bool {
        unsafe uses[index].path._withUnsafeGuaranteedRef { path in
            let destination =
                underlay.socket == path.socket ? path.learnable(underlay, at: now) : path.underlay
            let innerMTU = path.innerMTU
            let padded = paddedLength(
                packet.count, mtu: innerMTU > 0 ? min(innerMTU, table.mtu) : table.mtu)
            let size = padded &+ Protocol.transportOverhead
            guard let destination, let keypair = unsafe path.sendingKeypair,
                let output = unsafe replies.room(for: size)
            else { return false }
            return unsafe keypair._withUnsafeGuaranteedRef { keypair in
                guard !keypair.isExpired(at: now), keypair.isConfirmed else { return false }
                packet.turnIntoEchoReply()
                guard
                    unsafe keypair.seal(
                        packet.start, count: packet.count, padded: padded, into: output, by: &chacha)
                else { return false }
                replies.append(size: size, underlay: destination, use: path.peer.rawValue)
                path.noteSent(bytes: size, packets: 1, under: keypair, at: now, events: events)
                return true
            }
        }
    }

    /// From keypair to key confirmation. Returns the index of the path's entry for this batch. What is authentic but
    /// came by a path that a drill has cut leaves no trace.
    @inline(__always)
    private mutating func open(
        _ ciphertext: UnsafeMutableRawPointer, count: Int, counter: UInt64, under keypair: Keypair,
        from underlay: UnderlayPath
    ) throws(DropReason) -> Int {
        let age = now.nanoseconds &- keypair.createdAt.nanoseconds
        // A keypair made after this batch's clock was read has an age below zero.
        guard Int64(bitPattern: age) < rejectAfter else { throw .keypairExpired }
        guard counter < Protocol.rejectAfterMessages else { throw .counterExhausted }
        guard
            unsafe keypair.receiveKey.open(
                counter: counter, ciphertext: ciphertext, count: count, into: ciphertext, by: &chacha)
        else { throw .authenticationFailed }
        guard windows.accept(counter, keypair: keypair) else { throw .replayed }
        let index = use(keypair.path, underlay, keypair.serial)
        guard unsafe !uses[index].isCut else { throw .drilled }
        if !keypair.heard.load(ordering: .relaxed) { hear(keypair) }
        if keypair.role == .initiator, Int64(bitPattern: age) >= rekeyAfterReceiving,
            !keypair.receiveRekeyAsked.load(ordering: .relaxed), events.rekeyDue(keypair.path.peer)
        {
            keypair.receiveRekeyAsked.store(true, ordering: .relaxed)
        }
        return index
    }

    /// The first message under a keypair. It is published before control is told: control, which knows whether it was
    /// replaced in the meantime, then has the last word.
    @inline(never)
    private func hear(_ keypair: Keypair) {
        keypair.path.supersede(with: keypair, at: now)
        let isControlTold =
            keypair.role == .initiator
            || events.keyConfirmed(keypair.path.peer, localIndex: keypair.localIndex)
        if isControlTold { keypair.heard.store(true, ordering: .relaxed) }
    }

    @inline(__always)
    private mutating func use(_ path: TunnelPath, _ underlay: UnderlayPath, _ serial: UInt64) -> Int {
        let opaque = unsafe Unmanaged.passUnretained(path).toOpaque()
        var index = useCount &- 1
        while index >= 0 {
            if unsafe uses[index].path.toOpaque() == opaque {
                unsafe uses[index].underlay = underlay
                unsafe uses[index].serial = serial
                return index
            }
            index &-= 1
        }
        if useCount == Self.maximumUses { finish() }
        let innerMTU = path.innerMTU
        unsafe (uses + useCount).initialize(
            to: PathUse(
                path: .passUnretained(path), underlay: underlay, serial: serial,
                connection: table.connection(of: path.peer),
                isCut: path.isCut, hasPolicy: innerMTU > 0, innerMTU: innerMTU))
        if table.features(of: path.peer).contains(.translates) { unsafe equip(uses + useCount) }
        useCount &+= 1
        return useCount &- 1
    }

    @inline(never)
    private func equip(_ use: UnsafeMutablePointer<PathUse>) {
        guard unsafe use.pointee.connection >= 0,
            let translation = unsafe table.connections[Int(use.pointee.connection)].translation
        else { return }
        unsafe use.pointee.translation = .passUnretained(translation)
        unsafe use.pointee.hasPolicy = true
    }
}

extension Unmanaged {
    /// `_withUnsafeGuaranteedRef`, which counts no reference, with the error's type kept.
    @inline(__always)
    fileprivate func withGuaranteedRef<Result, Failure: Error>(
        _ body: (Instance) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let result: Swift.Result<Result, Failure> = unsafe _withUnsafeGuaranteedRef { instance in
            do throws(Failure) {
                return .success(try body(instance))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}

private let rejectAfter = Protocol.rejectAfterTime.wholeNanoseconds
private let rekeyAfterReceiving = Protocol.rekeyAfterTimeReceiving.wholeNanoseconds
