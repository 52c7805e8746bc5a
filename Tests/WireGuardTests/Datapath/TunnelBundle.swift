import TestSupport

@testable import WireGuard

/// A gateway with several tunnels that have a session each, and the far ends of these.
struct TunnelBundle: ~Copyable {
    struct Tunnel {
        let path: TunnelPath
        /// Ours is named by the messages to us, theirs by the messages from us.
        let ours: Keypair
        let theirs: Keypair
        let underlay: UnderlayPath
    }

    struct Sent {
        /// By the session that it was sealed in.
        var tunnel: Int
        var underlay: UnderlayPath
        /// As opened, padding included.
        var plaintext: [UInt8]
        /// Without the padding.
        var packet: [UInt8]
        var mayFragment: Bool
    }

    let keypairs = KeypairTable(capacity: 256)
    let drops = DropCounters()
    let outboundEvents = EventRing(capacity: 1 << 16)
    let inboundEvents = EventRing(capacity: 1 << 16)
    let tunnels: [Tunnel]
    var table = ForwardingTable.empty
    var outbound: Outbound
    var inbound: Inbound
    var now = Instant(nanoseconds: 1_000_000_000_000)
    /// ICMP that the last `send` wrote back to its TUN.
    private(set) var replies: [[UInt8]] = []
    /// What the last `receive` had sent: answers to probes.
    private(set) var answers: [Sent] = []

    /// One tunnel for each link, of the socket group with the same position in `sockets`, or of 0.
    init(_ links: [InsideLink?], sockets: [UInt8] = [], role: Role = .initiator) {
        var tunnels: [Tunnel] = []
        for (number, link) in links.enumerated() {
            let socket = number < sockets.count ? sockets[number] : 0
            let path = TunnelPath(peer: PeerID(number), socket: socket, inside: link)
            let session = SessionPair(
                .init(path, keypairs), seed: UInt64(number), role: role, createdAt: now)
            let underlay = UnderlayPath(
                endpoint: Endpoint(address: IPAddress(v4: 0xc000_020a + UInt32(number)), port: 51820),
                socket: socket)
            path.setUnderlay(underlay)
            tunnels.append(Tunnel(path: path, ours: session.near, theirs: session.far, underlay: underlay))
        }
        self.tunnels = tunnels
        outbound = Outbound(events: outboundEvents, drops: drops)
        inbound = Inbound(
            keypairs: keypairs, events: inboundEvents, drops: drops, vnetHeader: false, tcpOffload: false,
            udpOffload: false)
    }

    var paths: [TunnelPath] { tunnels.map(\.path) }

    /// One batch from the TUN.
    mutating func send(_ packets: [[UInt8]], offload: VirtioNetHeader = VirtioNetHeader()) -> [Sent] {
        outbound.begin(table: table, now: now)
        replies = []
        for packet in packets {
            var buffer = packet + [UInt8](repeating: 0xee, count: 16)
            unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe outbound.add(bytes.baseAddress!, count: packet.count, offload: offload)
            }
            if let reply = unsafe outbound.reply { unsafe replies.append(Array(reply)) }
        }
        var sent: [Sent] = []
        while outbound.releaseHeld() { sent += takeRuns() }
        return sent + takeRuns()
    }

    private mutating func takeRuns() -> [Sent] {
        var sent: [Sent] = []
        for index in 0..<outbound.runCount {
            let run = outbound.run(index)
            sent += unsafe open(run, outbound.bytes(of: run))
        }
        outbound.sent()
        outbound.finish()
        return sent
    }

    /// By which tunnel a packet goes; nil if by none.
    mutating func tunnel(of packet: [UInt8]) -> Int? { send([packet]).first?.tunnel }

    /// One batch from the network: inner packets that the far end of a tunnel sends. What is written to the TUN.
    mutating func receive(_ packets: [[UInt8]], by tunnel: Int, from underlay: UnderlayPath? = nil)
        -> [[UInt8]]
    {
        inbound.begin(table: table, now: now)
        var buffers: [UnsafeMutableRawBufferPointer] = unsafe []
        for packet in packets {
            let message = tunnels[tunnel].theirs.seal(packet, mtu: 1420)!
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: message.count, alignment: 8)
            unsafe buffer.copyBytes(from: message)
            unsafe buffers.append(buffer)
            unsafe inbound.add(
                buffer.baseAddress!, count: message.count, segmentSize: 0,
                from: underlay ?? tunnels[tunnel].underlay)
        }
        var written: [[UInt8]] = []
        while let slices = unsafe inbound.nextWrite() {
            let slice = unsafe slices[0]
            unsafe written.append(Array(UnsafeRawBufferPointer(start: slice.base, count: slice.count)))
        }
        inbound.written()
        answers = []
        for index in 0..<inbound.runCount {
            let run = inbound.run(index)
            answers += unsafe open(run, inbound.bytes(of: run))
        }
        inbound.sent()
        inbound.finish()
        unsafe buffers.forEach { buffer in unsafe buffer.deallocate() }
        return written
    }

    func events(_ ring: EventRing) -> [DatapathEvent] {
        var events: [DatapathEvent] = []
        _ = ring.drain { events.append($0) }
        return events
    }

    /// As the far ends do.
    private func open(_ run: SendRun, _ bytes: UnsafeRawBufferPointer) -> [Sent] {
        var chacha = ChaCha20Poly1305()
        let all = unsafe Array(bytes)
        return stride(from: 0, to: all.count, by: run.segmentSize).compactMap { start in
            var message = Array(all[start..<min(start + run.segmentSize, all.count)])
            let header = unsafe message.withUnsafeBytes { unsafe TransportHeader($0.baseAddress!) }
            let tunnel = tunnels.firstIndex { $0.theirs.localIndex == header.receiverIndex }!
            let isAuthentic = unsafe message.withUnsafeMutableBytes { message in
                let body = unsafe message.baseAddress! + 16
                return unsafe tunnels[tunnel].theirs.receiveKey.open(
                    counter: header.counter, ciphertext: body, count: message.count - 16, into: body,
                    by: &chacha)
            }
            guard isAuthentic else { return nil }
            let plaintext = Array(message[16..<message.count - 16])
            let length =
                plaintext[0] >> 4 == 4
                ? Int(plaintext[2]) << 8 | Int(plaintext[3]) : 40 + Int(plaintext[4]) << 8 + Int(plaintext[5])
            return Sent(
                tunnel: tunnel, underlay: run.underlay, plaintext: plaintext,
                packet: Array(plaintext.prefix(length)), mayFragment: run.mayFragment)
        }
    }
}
