import TestSupport

@testable import WireGuard

/// Two ends with a session between them, and nothing else: packets go in as from a TUN, and come out as to
/// one.
struct DatapathPair: ~Copyable {
    final class End {
        let keypairs: KeypairTable
        let path = TunnelPath(peer: PeerID(0))
        let outboundEvents = EventRing(capacity: 1 << 16)
        let inboundEvents = EventRing(capacity: 1 << 16)
        let drops = DropCounters()
        var keypair: Keypair?
        /// The one before, where a test renews the session.
        var previous: Keypair?
        var table = ForwardingTable.empty

        init(workers: Int = 1) { keypairs = KeypairTable(capacity: 16, workers: workers) }

        func events(_ ring: EventRing) -> [DatapathEvent] {
            var events: [DatapathEvent] = []
            _ = ring.drain { events.append($0) }
            return events
        }

        /// The same connection with more asked of it.
        func ask(
            translation: PrefixTranslation? = nil, copiesDSCP: Bool = false, innerMTU: Int = 0
        ) {
            path.setInnerMTU(innerMTU)
            table = ForwardingTable(
                connections: [
                    ForwardingTable.Connection(
                        prefixes: table.connections[0].prefixes, paths: [path], translation: translation,
                        copiesDSCP: copiesDSCP)
                ], mtu: table.mtu)
        }
    }

    static let leftUnderlay = UnderlayPath(endpoint: Endpoint(address: IPAddress("192.0.2.1")!, port: 51820))
    static let rightUnderlay = UnderlayPath(endpoint: Endpoint(address: IPAddress("192.0.2.2")!, port: 51820))

    let left = End()
    let right: End
    var outbound: Outbound
    var inbound: Inbound
    var now = Instant(nanoseconds: 1_000_000_000_000)

    /// Left seals, right opens. `firstCounter` is where left's send counter starts.
    init(
        mtu: Int = 1420, offloads: Bool = true, firstCounter: UInt64 = 0, leftRole: Role = .initiator,
        cipher: Cipher = .chacha20Poly1305, rightWorker: Int = 0, rightWorkers: Int = 1
    ) {
        right = End(workers: rightWorkers)
        let session = SessionPair(
            .init(left.path, left.keypairs), .init(right.path, right.keypairs), role: leftRole,
            cipher: cipher,
            firstCounter: firstCounter, createdAt: now)
        for (end, keypair, underlay, prefixes) in [
            (left, session.near, Self.rightUnderlay, ["10.2.0.0/16", "fd00:2::/64"]),
            (right, session.far, Self.leftUnderlay, ["10.1.0.0/16", "fd00:1::/64"]),
        ] {
            end.keypair = keypair
            end.path.setUnderlay(underlay)
            let connection = ForwardingTable.Connection(
                prefixes: prefixes.map { IPPrefix($0)! }, paths: [end.path])
            end.table = ForwardingTable(connections: [connection], mtu: mtu)
        }
        outbound = Outbound(events: left.outboundEvents, drops: left.drops)
        inbound = Inbound(
            keypairs: right.keypairs, worker: rightWorker, events: right.inboundEvents, drops: right.drops,
            vnetHeader: offloads,
            tcpOffload: offloads, udpOffload: offloads)
    }

    struct Sent {
        var datagram: [UInt8]
        var segmentSize: Int
        var tos: UInt8 = 0
        var mayFragment = false
    }

    struct Written: Equatable {
        var header: VirtioNetHeader?
        var packet: [UInt8]

        static func == (a: Written, b: Written) -> Bool { a.packet == b.packet }
    }

    /// One batch from left's TUN to the network, and what left answered to its own TUN.
    mutating func send(_ packets: [(packet: [UInt8], offload: VirtioNetHeader)]) -> (
        sent: [Sent], replies: [[UInt8]]
    ) {
        outbound.begin(table: left.table, now: now)
        var replies: [[UInt8]] = []
        for (packet, offload) in packets {
            var buffer = packet + [UInt8](repeating: 0xee, count: 16)
            unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe outbound.add(bytes.baseAddress!, count: packet.count, offload: offload)
            }
            if let reply = unsafe outbound.reply { unsafe replies.append(Array(reply)) }
        }
        let sent = (0..<outbound.runCount).map { index in
            let run = outbound.run(index)
            return unsafe Sent(
                datagram: Array(outbound.bytes(of: run)), segmentSize: run.segmentSize,
                tos: run.tos, mayFragment: run.mayFragment)
        }
        outbound.sent()
        outbound.finish()
        return (sent, replies)
    }

    mutating func send(_ packet: [UInt8]) -> [Sent] { send([(packet, VirtioNetHeader())]).sent }

    /// One batch from the network to right's TUN. `whenWritten` is called for each packet, as the TUN has it.
    mutating func receive(
        _ datagrams: [Sent], from underlay: UnderlayPath = leftUnderlay,
        whenWritten: (Written) -> Void = { _ in }
    ) -> [Written] {
        inbound.begin(table: right.table, now: now)
        var buffers: [UnsafeMutableRawBufferPointer] = unsafe []
        for datagram in datagrams {
            let buffer = UnsafeMutableRawBufferPointer.allocate(
                byteCount: max(datagram.datagram.count, 1), alignment: 8)
            unsafe buffer.copyBytes(from: datagram.datagram)
            unsafe buffers.append(buffer)
            unsafe inbound.add(
                buffer.baseAddress!, count: datagram.datagram.count, segmentSize: datagram.segmentSize,
                from: underlay, tos: datagram.tos)
        }
        var written: [Written] = []
        while let slices = unsafe inbound.nextWrite() {
            var bytes: [UInt8] = []
            for index in 0..<slices.count {
                let slice = unsafe slices[index]
                unsafe bytes += UnsafeRawBufferPointer(start: slice.base, count: slice.count)
            }
            let packet = Written(header: VirtioNetHeader(reading: bytes), packet: Array(bytes.dropFirst(10)))
            written.append(packet)
            whenWritten(packet)
        }
        inbound.written()
        inbound.finish()
        unsafe buffers.forEach { buffer in unsafe buffer.deallocate() }
        return written
    }

    mutating func receive(_ datagram: [UInt8]) -> [Written] {
        receive([Sent(datagram: datagram, segmentSize: 0)])
    }
}

extension TunnelPath {
    /// Local index of the key that the data threads seal under.
    var sendingIndex: UInt32? { unsafe sendingKeypair?._withUnsafeGuaranteedRef { $0.localIndex } }
}

extension KeypairTable {
    func holds(_ index: UInt32) -> Bool { unsafe lookup(index) != nil }
}

extension VirtioNetHeader {
    init(reading bytes: [UInt8]) {
        self = unsafe bytes.withUnsafeBytes { unsafe VirtioNetHeader($0.baseAddress!) }
    }

    static func tcp(_ family: IPAddress.Family, segment: Int) -> VirtioNetHeader {
        var header = VirtioNetHeader()
        header.flags = Flag.needsChecksum
        header.segmentation = family == .v4 ? Segmentation.tcp4 : Segmentation.tcp6
        header.segmentSize = UInt16(segment)
        header.checksumStart = family == .v4 ? 20 : 40
        header.checksumOffset = 16
        return header
    }

    static func udp(_ family: IPAddress.Family, segment: Int) -> VirtioNetHeader {
        var header = tcp(family, segment: segment)
        header.segmentation = Segmentation.udp
        header.checksumOffset = 6
        return header
    }
}
