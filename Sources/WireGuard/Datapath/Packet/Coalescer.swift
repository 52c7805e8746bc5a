/// Puts consecutive segments of a flow together into the superpacket that they were split from, so that the
/// kernel's stack is walked once instead of forty times. Payload stays where it was opened: a superpacket is
/// a list of slices.
///
/// Packets leave in the order in which the first segment of each came; within a flow nothing overtakes. Up to
/// `maximumOpen` flows grow at a time, and all end with the batch.
@safe struct Coalescer: ~Copyable {
    /// More than a batch of datagrams can hold: see `isFull`.
    private static let capacity = 4096
    /// Segments of one datagram that there is room for while it is not full.
    static let reserve = 256
    private static let maximumOpen = 8
    private static let maximumSlices = 64
    private static let none: Int32 = -1

    private enum Transport: UInt8, BitwiseCopyable { case other, tcp, udp }

    /// A packet to be written to the TUN: one or more slices.
    @unsafe private struct Entry: BitwiseCopyable {
        var packet: UnsafeMutableRawPointer
        var family: IPAddress.Family
        var transport: Transport
        /// May take another segment.
        var isOpen: Bool
        /// The transport checksum of each slice was right.
        var isVerified: Bool
        var pushes: Bool
        var ipLength: Int
        var headerLength: Int
        /// Payload of the first segment, and so of every one but the last.
        var segmentSize: Int
        var total: Int
        var nextSequence: UInt32
        var slices: Int
        var first: Int32
        var last: Int32
    }

    @unsafe private struct Node: BitwiseCopyable {
        var slice: PacketSlice
        var next: Int32
    }

    /// What the TUN takes: nothing but whole packets, or superpackets of TCP, or of UDP too.
    struct Offloads {
        var vnetHeader: Bool
        var tcp: Bool
        var udp: Bool
    }

    private let offloads: Offloads
    private let entries: UnsafeMutablePointer<Entry>
    private let nodes: UnsafeMutablePointer<Node>
    private let gathered: UnsafeMutablePointer<PacketSlice>
    private let vnetHeader: UnsafeMutablePointer<VirtioNetHeader>
    private var entryCount = 0
    private var nodeCount = 0
    private var written = 0
    private var open = InlineArray<8, Int32>(repeating: Coalescer.none)
    private var openCount = 0

    init(offloads: Offloads) {
        self.offloads = offloads
        unsafe entries = .allocate(capacity: Self.capacity)
        unsafe nodes = .allocate(capacity: Self.capacity)
        unsafe gathered = .allocate(capacity: Self.maximumSlices + 1)
        unsafe vnetHeader = .allocate(capacity: 1)
    }

    deinit {
        unsafe entries.deallocate()
        unsafe nodes.deallocate()
        unsafe gathered.deallocate()
        unsafe vnetHeader.deallocate()
    }

    /// True when a further datagram, of up to `reserve` segments, may not fit.
    var isFull: Bool { nodeCount &+ Self.reserve > Self.capacity }

    // MARK: Taking packets

    @inline(__always)
    mutating func add(_ packet: borrowing IPPacket) {
        precondition(nodeCount < Self.capacity)
        guard let entry = unsafe candidate(packet) else {
            unsafe push(plain(packet), slice: PacketSlice(base: packet.start, count: packet.count))
            return
        }
        var position = openCount &- 1
        while position >= 0 {
            let number = open[position]
            if unsafe Self.isSameFlow(entries[Int(number)], entry) {
                if unsafe entry.isVerified && continues(entries[Int(number)], entry) {
                    unsafe extend(Int(number), with: entry)
                    if unsafe !entries[Int(number)].isOpen { close(position) }
                    return
                }
                unsafe entries[Int(number)].isOpen = false
                close(position)
                break
            }
            position &-= 1
        }
        if unsafe entry.isOpen {
            if openCount == Self.maximumOpen {
                unsafe entries[Int(open[0])].isOpen = false
                close(0)
            }
            open[openCount] = Int32(truncatingIfNeeded: entryCount)
            openCount &+= 1
        }
        unsafe push(entry, slice: PacketSlice(base: packet.start, count: packet.count))
    }

    private mutating func close(_ position: Int) {
        var index = position
        while index &+ 1 < openCount {
            open[index] = open[index &+ 1]
            index &+= 1
        }
        openCount &-= 1
    }

    @inline(__always)
    private mutating func push(_ entry: Entry, slice: PacketSlice) {
        unsafe (nodes + nodeCount).initialize(to: Node(slice: slice, next: Self.none))
        var entry = unsafe entry
        unsafe entry.first = Int32(truncatingIfNeeded: nodeCount)
        unsafe entry.last = entry.first
        unsafe (entries + entryCount).initialize(to: entry)
        nodeCount &+= 1
        entryCount &+= 1
    }

    @inline(__always)
    private mutating func extend(_ number: Int, with segment: Entry) {
        let payload = unsafe segment.total &- segment.headerLength
        let slice = unsafe PacketSlice(base: segment.packet + segment.headerLength, count: payload)
        unsafe (nodes + nodeCount).initialize(to: Node(slice: slice, next: Self.none))
        let entry = unsafe entries + number
        unsafe nodes[Int(entry.pointee.last)].next = Int32(truncatingIfNeeded: nodeCount)
        unsafe entry.pointee.last = Int32(truncatingIfNeeded: nodeCount)
        nodeCount &+= 1
        unsafe entry.pointee.slices &+= 1
        unsafe entry.pointee.total &+= payload
        unsafe entry.pointee.nextSequence = segment.nextSequence
        unsafe entry.pointee.pushes = segment.pushes
        unsafe entry.pointee.isOpen =
            payload == entry.pointee.segmentSize && !segment.pushes
            && entry.pointee.slices < Self.maximumSlices
    }

    // MARK: Judging packets

    private func plain(_ packet: borrowing IPPacket) -> Entry {
        unsafe Entry(
            packet: packet.start, family: packet.family, transport: .other, isOpen: false, isVerified: false,
            pushes: false, ipLength: packet.headerLength, headerLength: 0, segmentSize: 0,
            total: packet.count,
            nextSequence: 0, slices: 1, first: 0, last: 0)
    }

    /// A packet of a flow, whose ports are where they should be; open if others may be put behind it. Nil for
    /// all else.
    @inline(__always)
    private func candidate(_ packet: borrowing IPPacket) -> Entry? {
        guard !packet.isFragment, packet.headerLength == IPPacket.headerLength(packet.family) else {
            return nil
        }
        // A superpacket's header is summed anew: a wrong one must not come out right.
        let isHeaderRight = packet.isPlainHeaderRight
        let length = packet.bodyLength
        if packet.transport == IPProtocol.tcp {
            guard offloads.tcp, length >= TCPField.headerLength else { return nil }
            let tcpLength = packet.tcpHeaderLength
            guard tcpLength >= TCPField.headerLength, tcpLength <= length else { return nil }
            let flags = packet.tcpFlags
            let payload = length &- tcpLength
            let pushes = flags & TCPFlag.psh != 0
            let mayGrow = isHeaderRight && payload > 0 && flags & ~TCPFlag.psh == TCPFlag.ack
            let isVerified = mayGrow && packet.isBodyRight
            let sequence = unsafe packet.body.bigEndian32(at: TCPField.sequence)
            return unsafe Entry(
                packet: packet.start, family: packet.family, transport: .tcp, isOpen: isVerified && !pushes,
                isVerified: isVerified, pushes: pushes, ipLength: packet.headerLength,
                headerLength: packet.headerLength &+ tcpLength, segmentSize: payload, total: packet.count,
                nextSequence: sequence &+ UInt32(truncatingIfNeeded: payload), slices: 1, first: 0, last: 0)
        }
        if packet.transport == IPProtocol.udp {
            guard offloads.udp, length >= UDPField.headerLength else { return nil }
            let mayGrow =
                unsafe isHeaderRight && length > UDPField.headerLength
                && packet.body.bigEndian16(at: UDPField.length) == length
                && packet.body.word(at: UDPField.checksum) != 0
            let isVerified = mayGrow && packet.isBodyRight
            return unsafe Entry(
                packet: packet.start, family: packet.family, transport: .udp, isOpen: isVerified,
                isVerified: isVerified, pushes: false, ipLength: packet.headerLength,
                headerLength: packet.headerLength &+ UDPField.headerLength,
                segmentSize: length &- UDPField.headerLength, total: packet.count, nextSequence: 0, slices: 1,
                first: 0, last: 0)
        }
        return nil
    }

    /// Addresses and ports stand next to each other when there are no options: 12 bytes, or 36.
    @inline(__always)
    private static func isSameFlow(_ a: Entry, _ b: Entry) -> Bool {
        guard unsafe a.transport == b.transport, unsafe a.family == b.family else { return false }
        return unsafe a.family == .v4
            ? isEqual(a.packet, b.packet, from: IPv4Field.source, count: 12)
            : isEqual(a.packet, b.packet, from: IPv6Field.source, count: 36)
    }

    /// `count` is a multiple of four.
    @inline(__always)
    private static func isEqual(_ a: UnsafeRawPointer, _ b: UnsafeRawPointer, from: Int, count: Int) -> Bool {
        var difference: UInt32 = 0
        var offset = from
        while offset < from &+ count {
            difference |=
                (unsafe a.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
                ^ (unsafe b.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
            offset &+= 4
        }
        return difference == 0
    }

    /// Whether `segment`, of the same flow, is what a sender's kernel would have split off behind `entry`.
    @inline(__always)
    private func continues(_ entry: Entry, _ segment: Entry) -> Bool {
        let payload = unsafe segment.total &- segment.headerLength
        let a = unsafe UnsafeRawPointer(entry.packet)
        let b = unsafe UnsafeRawPointer(segment.packet)
        guard unsafe entry.isOpen, unsafe entry.headerLength == segment.headerLength,
            unsafe payload <= entry.segmentSize, unsafe entry.total &+ payload <= 65_535
        else { return false }
        if unsafe entry.family == .v4 {
            // The first byte of the fragment field has the flags; only DF can be set here.
            guard unsafe a.byte(at: IPv4Field.tos) == b.byte(at: IPv4Field.tos),
                unsafe a.byte(at: IPv4Field.ttl) == b.byte(at: IPv4Field.ttl),
                unsafe a.byte(at: IPv4Field.fragment) == b.byte(at: IPv4Field.fragment)
            else { return false }
        } else {
            // The flow label too.
            guard unsafe Self.isEqual(a, b, from: IPv6Field.versionAndClass, count: 4),
                unsafe a.byte(at: IPv6Field.hopLimit) == b.byte(at: IPv6Field.hopLimit)
            else { return false }
        }
        guard unsafe entry.transport == .tcp else { return true }
        let ip = unsafe entry.ipLength
        guard unsafe b.bigEndian32(at: ip &+ TCPField.sequence) == entry.nextSequence else { return false }
        // Acknowledgement; window; options. Not the flags (ACK, perhaps PSH), not the checksum.
        let options = ip &+ TCPField.headerLength
        return unsafe Self.isEqual(a, b, from: ip &+ TCPField.acknowledgement, count: 4)
            && a.word(at: ip &+ TCPField.window) == b.word(at: ip &+ TCPField.window)
            && Self.isEqual(a, b, from: options, count: entry.headerLength &- options)
    }

    // MARK: Giving packets

    /// The next packet for the TUN, its virtio header first if the device has one; nil when all have been
    /// given. Valid until the next call.
    mutating func nextWrite() -> UnsafeBufferPointer<PacketSlice>? {
        guard written < entryCount else { return nil }
        let entry = unsafe entries[written]
        written &+= 1
        var count = 0
        if offloads.vnetHeader {
            unsafe vnetHeader.initialize(to: finish(entry))
            unsafe (gathered + 0).initialize(
                to: PacketSlice(base: UnsafeMutableRawPointer(vnetHeader), count: VirtioNetHeader.size))
            count = 1
        }
        var node = unsafe entry.first
        while node != Self.none {
            unsafe (gathered + count).initialize(to: nodes[Int(node)].slice)
            unsafe node = nodes[Int(node)].next
            count &+= 1
        }
        return unsafe UnsafeBufferPointer(start: gathered, count: count)
    }

    /// All have been written: the buffers that the slices lie in may be used again.
    mutating func clear() {
        entryCount = 0
        nodeCount = 0
        written = 0
        openCount = 0
    }

    /// Writes the lengths and the checksums that a superpacket needs over the header of its first segment.
    private func finish(_ entry: Entry) -> VirtioNetHeader {
        var header = VirtioNetHeader()
        guard unsafe entry.slices > 1 else {
            if unsafe entry.isVerified { header.flags = VirtioNetHeader.Flag.dataValid }
            return header
        }
        let packet = unsafe entry.packet
        let transport = unsafe packet + entry.ipLength
        let length = unsafe entry.total &- entry.ipLength
        let isTCP = unsafe entry.transport == .tcp
        switch unsafe entry.family {
        case .v4:
            unsafe packet.storeBigEndian16(entry.total, at: IPv4Field.totalLength)
            unsafe Checksum.finishIPv4Header(packet, headerLength: IPv4Field.headerLength)
            header.segmentation = VirtioNetHeader.Segmentation.tcp4
        case .v6:
            unsafe packet.storeBigEndian16(length, at: IPv6Field.payloadLength)
            header.segmentation = VirtioNetHeader.Segmentation.tcp6
        }
        if isTCP {
            if unsafe entry.pushes {
                let flags = unsafe transport.reading.byte(at: TCPField.flags) | TCPFlag.psh
                unsafe transport.storeByte(flags, at: TCPField.flags)
            }
        } else {
            unsafe transport.storeBigEndian16(length, at: UDPField.length)
            header.segmentation = VirtioNetHeader.Segmentation.udp
        }
        let field = isTCP ? TCPField.checksum : UDPField.checksum
        let pseudo = unsafe Checksum.pseudoHeader(
            packet, family: entry.family, transport: isTCP ? IPProtocol.tcp : IPProtocol.udp, length: length)
        unsafe transport.storeWord(Checksum.fold(pseudo), at: field)
        header.flags = VirtioNetHeader.Flag.needsChecksum
        unsafe header.headerLength = UInt16(truncatingIfNeeded: entry.headerLength)
        unsafe header.segmentSize = UInt16(truncatingIfNeeded: entry.segmentSize)
        unsafe header.checksumStart = UInt16(truncatingIfNeeded: entry.ipLength)
        header.checksumOffset = UInt16(truncatingIfNeeded: field)
        return header
    }
}
