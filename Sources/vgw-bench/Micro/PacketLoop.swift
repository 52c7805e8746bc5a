internal import TestSupport
internal import WireGuard

/// Both ends of a session in one thread, without TUN and socket: what the daemon itself costs a packet.
///
/// 1. Packets are copied to where a TUN would put them, and go through `Outbound`.
/// 2. Its runs, as they lie in the send buffer, go through `Inbound`, as a socket with UDP_GRO would give them.
struct PacketLoop: ~Copyable {
    /// Time that each direction takes.
    struct Times {
        var sealing = Duration.zero
        var opening = Duration.zero
    }

    private static let underlay = UnderlayPath(
        endpoint: Endpoint(address: IPAddress(v4: 0xc000_0201), port: 51820))
    private static let now = Instant(nanoseconds: 1_000_000_000_000)

    private let senderTable: ForwardingTable
    private let receiverTable: ForwardingTable
    private var outbound: Outbound
    private var inbound: Inbound
    private let drops = DropCounters()
    /// Holds what is published without a reference.
    private let session: SessionPair
    private var buffer = [UInt8](repeating: 0, count: Outbound.packetCapacity)

    init(cipher: Cipher) {
        let sender = TunnelPath(peer: PeerID(0))
        let receiver = TunnelPath(peer: PeerID(0))
        let table = KeypairTable(capacity: 16)
        session = SessionPair(.init(sender), .init(receiver, table), cipher: cipher, createdAt: Self.now)
        sender.setUnderlay(Self.underlay)
        receiver.setUnderlay(Self.underlay)
        senderTable = Self.table("10.2.0.0/16", sender)
        receiverTable = Self.table("10.1.0.0/16", receiver)
        outbound = Outbound(events: EventRing(capacity: 1 << 16), drops: drops)
        inbound = Inbound(
            keypairs: table, events: EventRing(capacity: 1 << 16), drops: drops, vnetHeader: true,
            tcpOffload: true, udpOffload: true)
    }

    private static func table(_ prefix: String, _ path: TunnelPath) -> ForwardingTable {
        guard let prefix = IPPrefix(prefix) else { preconditionFailure("\(prefix) is a prefix") }
        return ForwardingTable(
            connections: [ForwardingTable.Connection(prefixes: [prefix], paths: [path])], mtu: 8920)
    }

    /// Batches as the daemon's threads make them. Without `opens` the messages go nowhere.
    mutating func pass(_ shape: PacketShape, batches: Int, opens: Bool) -> Times {
        var times = Times()
        let clock = ContinuousClock()
        for _ in 0..<batches {
            let start = clock.now
            seal(shape)
            let sealed = clock.now
            if opens { open() }
            let opened = clock.now
            outbound.sent()
            outbound.finish()
            let finished = clock.now
            times.sealing += (sealed - start) + (finished - opened)
            times.opening += opened - sealed
        }
        return times
    }

    /// Reads of the TUN in one batch; fewer where the send buffer is full before.
    static func reads(of shape: PacketShape) -> Int { max(1, min(Outbound.batchLimit, 256 / shape.packets)) }

    private mutating func seal(_ shape: PacketShape) {
        outbound.begin(table: senderTable, now: Self.now)
        unsafe buffer.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            for _ in 0..<Self.reads(of: shape) {
                unsafe Self.copy(shape.bytes, to: base)
                unsafe outbound.add(base, count: shape.bytes.count, offload: shape.offload)
            }
        }
    }

    /// Piece by piece: for a long one, memcpy has an instruction that callgrind counts as thousands on some
    /// processors and that others do not have.
    private static func copy(_ bytes: [UInt8], to base: UnsafeMutableRawPointer) {
        unsafe bytes.withUnsafeBytes { bytes in
            guard let source = bytes.baseAddress else { return }
            for offset in stride(from: 0, to: bytes.count, by: 1024) {
                unsafe (base + offset).copyMemory(
                    from: source + offset, byteCount: min(1024, bytes.count - offset))
            }
        }
    }

    private mutating func open() {
        inbound.begin(table: receiverTable, now: Self.now)
        for index in 0..<outbound.runCount {
            let run = outbound.run(index)
            let bytes = unsafe outbound.bytes(of: run)
            guard let base = unsafe UnsafeMutableRawPointer(mutating: bytes.baseAddress) else { continue }
            unsafe inbound.add(base, count: run.count, segmentSize: run.segmentSize, from: Self.underlay)
        }
        while unsafe inbound.nextWrite() != nil {}
        inbound.written()
        inbound.finish()
    }

    /// What should not have been: a loop that drops measures nothing.
    var problems: [DropReason: UInt64] { drops.snapshot }
}
