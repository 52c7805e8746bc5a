/// Packets that wait for their turn, first in first out, in one ring of bytes: a bound on how long it gets, and
/// no allocation for any of them.
///
/// Concurrency: a local of one thread.
@safe struct PacketQueue: ~Copyable {
    /// What a packet may be overwritten with behind its end while it is sealed: see `Outbound.add`.
    private static let slack = 16
    private static let prefix = 8

    private let ring: UnsafeMutableRawPointer
    private let capacity: Int
    /// Offset of the first packet, and of the first free byte behind the last.
    private var head = 0
    private var tail = 0
    /// Where the packets at the ring's end stop, while those at its start follow them.
    private var wrap: Int
    private(set) var packets = 0
    private(set) var bytes = 0

    /// `capacity` in bytes, a few dozen of which each packet takes besides its own.
    init(capacity: Int) {
        self.capacity = capacity & ~7
        wrap = self.capacity
        unsafe ring = .allocate(byteCount: max(self.capacity, 8), alignment: 16)
    }

    deinit { unsafe ring.deallocate() }

    var isEmpty: Bool { packets == 0 }

    /// False when there is no room: the packet is to be dropped.
    mutating func append(_ packet: UnsafeRawPointer, count: Int) -> Bool {
        let size = (Self.prefix &+ count &+ Self.slack &+ 7) & ~7
        if isEmpty {
            head = 0
            tail = 0
            wrap = capacity
        }
        // A packet lies in one piece. Full and empty differ in `packets`.
        if tail >= head && (tail > head || isEmpty) {
            if tail &+ size > capacity {
                guard size <= head else { return false }
                wrap = tail
                tail = 0
            }
        } else {
            guard tail &+ size <= head else { return false }
        }
        unsafe ring.storeBytes(of: count, toByteOffset: tail, as: Int.self)
        unsafe (ring + (tail &+ Self.prefix)).copyMemory(from: packet, byteCount: count)
        tail &+= size
        packets &+= 1
        bytes &+= count
        return true
    }

    /// The packet whose turn it is, with 16 bytes behind it that may be written to; until `removeFirst`.
    var first: UnsafeMutableRawBufferPointer? {
        guard !isEmpty else { return nil }
        let count = unsafe ring.load(fromByteOffset: head, as: Int.self)
        return unsafe UnsafeMutableRawBufferPointer(start: ring + (head &+ Self.prefix), count: count)
    }

    mutating func removeFirst() {
        guard !isEmpty else { return }
        let count = unsafe ring.load(fromByteOffset: head, as: Int.self)
        head &+= (Self.prefix &+ count &+ Self.slack &+ 7) & ~7
        packets &-= 1
        bytes &-= count
        if head >= wrap {
            head = 0
            wrap = capacity
        }
    }
}
