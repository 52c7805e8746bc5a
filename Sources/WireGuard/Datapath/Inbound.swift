internal import Synchronization

/// The way of a datagram from the network to the TUN:
///
/// 1. `begin` takes the table and the time for the batch.
/// 2. `add` cuts a datagram into the messages that the kernel joined (UDP GRO). Handshake messages go to
///    control. A transport message finds its keypair, is opened in place, passes the replay window, and its
///    inner packet must be whole and come from an address behind that peer.
/// 3. `nextWrite` gives the packets, coalesced, for the TUN.
/// 4. `finish` writes counters, stamps and endpoints, and raises what control must know.
///
/// Concurrency: a local of the inbound thread, used inside its epoch.
@safe package struct Inbound: ~Copyable {
    private static let maximumUses = 64

    @unsafe private struct PathUse {
        var path: Unmanaged<TunnelPath>
        var underlay: UnderlayPath
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
    private var keystream = Keystream()
    private var coalescer: Coalescer
    private let uses: UnsafeMutablePointer<PathUse>
    private var useCount = 0

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
    /// written.
    package mutating func add(
        _ datagram: UnsafeMutableRawPointer, count: Int, segmentSize: Int, from underlay: UnderlayPath
    ) {
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
    package mutating func nextWrite() -> UnsafeBufferPointer<PacketSlice>? { unsafe coalescer.nextWrite() }

    /// All packets have been written: the datagrams' bytes are no longer needed.
    package mutating func written() { coalescer.clear() }

    /// Counters, stamps, endpoints and events, once a batch.
    package mutating func finish() {
        for index in 0..<useCount {
            let use = unsafe uses[index]
            unsafe use.path._withUnsafeGuaranteedRef { path in
                if unsafe path.underlay != use.underlay {
                    unsafe path.setUnderlay(use.underlay)
                    _ = events.roamed(path.peer)
                }
                let isFirst = unsafe path.noteReceived(
                    bytes: use.bytes, packets: use.packets, at: now, hasData: use.hasData)
                if isFirst, !events.dataReceived(path.peer, at: now) { path.disarmDataReceived() }
            }
        }
        useCount = 0
        keystream.wipe()
    }

    // MARK: Steps

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

    @inline(__always)
    private mutating func addTransport(
        _ message: UnsafeMutableRawPointer, count: Int, from underlay: UnderlayPath
    ) throws(DropReason) {
        guard count >= Protocol.transportOverhead else { throw .messageLengthWrong }
        let header = unsafe TransportHeader(message)
        if keypairs.workers > 1 {
            let owner = KeypairTable.worker(ofIndex: header.receiverIndex, among: keypairs.workers)
            guard owner == worker else { throw .wrongWorker }
        }
        guard let reference = unsafe keypairs.lookup(header.receiverIndex) else {
            throw .receiverIndexUnknown
        }
        let packet = unsafe message + Protocol.transportHeaderSize
        let index = try unsafe reference._withUnsafeGuaranteedRef { keypair in
            unsafe open(
                packet, count: count &- Protocol.transportHeaderSize, counter: header.counter, under: keypair,
                from: underlay)
        }.get()
        unsafe uses[index].bytes &+= count
        unsafe uses[index].packets &+= 1
        let length = count &- Protocol.transportOverhead
        guard length > 0 else { return }
        unsafe uses[index].hasData = true
        let inner = try unsafe InnerHeader(packet, count: length)
        let owner = unsafe uses[index].path._withUnsafeGuaranteedRef { table.connection(of: $0.peer) }
        guard owner >= 0, unsafe inner.sourceConnection(packet, in: table) == owner else {
            throw .innerSourceNotAllowed
        }
        unsafe coalescer.add(packet, header: inner)
    }

    /// From keypair to key confirmation; the position of the path's entry for this batch.
    @inline(__always)
    private mutating func open(
        _ ciphertext: UnsafeMutableRawPointer, count: Int, counter: UInt64, under keypair: Keypair,
        from underlay: UnderlayPath
    ) -> Result<Int, DropReason> {
        let age = now.nanoseconds &- keypair.createdAt.nanoseconds
        // A keypair made after this batch's clock was read has an age below zero.
        guard Int64(bitPattern: age) < rejectAfter else { return .failure(.keypairExpired) }
        guard counter < Protocol.rejectAfterMessages else { return .failure(.counterExhausted) }
        guard
            unsafe keypair.receiveKey.open(
                counter: counter, ciphertext: ciphertext, count: count, into: ciphertext, by: &keystream)
        else { return .failure(.authenticationFailed) }
        guard windows.accept(counter, keypair: keypair) else { return .failure(.replayed) }
        let index = use(keypair.path, underlay)
        if !keypair.confirmed.load(ordering: .relaxed),
            events.keyConfirmed(keypair.path.peer, localIndex: keypair.localIndex)
        {
            keypair.confirmed.store(true, ordering: .relaxed)
        }
        if keypair.role == .initiator, Int64(bitPattern: age) >= rekeyAfterReceiving,
            !keypair.receiveRekeyAsked.load(ordering: .relaxed), events.rekeyDue(keypair.path.peer)
        {
            keypair.receiveRekeyAsked.store(true, ordering: .relaxed)
        }
        return .success(index)
    }

    @inline(__always)
    private mutating func use(_ path: TunnelPath, _ underlay: UnderlayPath) -> Int {
        let opaque = unsafe Unmanaged.passUnretained(path).toOpaque()
        var index = useCount &- 1
        while index >= 0 {
            if unsafe uses[index].path.toOpaque() == opaque {
                unsafe uses[index].underlay = underlay
                return index
            }
            index &-= 1
        }
        if useCount == Self.maximumUses { finish() }
        unsafe (uses + useCount).initialize(to: PathUse(path: .passUnretained(path), underlay: underlay))
        useCount &+= 1
        return useCount &- 1
    }
}

private let rejectAfter = Protocol.rejectAfterTime.wholeNanoseconds
private let rekeyAfterReceiving = Protocol.rekeyAfterTimeReceiving.wholeNanoseconds
