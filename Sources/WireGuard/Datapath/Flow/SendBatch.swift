/// Messages of one size to one peer, next to each other in the send buffer: one `sendmsg` with UDP_SEGMENT.
package struct SendRun: BitwiseCopyable {
    /// Bytes from the start of the buffer.
    package var offset: Int
    package var count: Int
    /// Length of each message but the last, which may be shorter.
    package var segmentSize: Int
    package var segments: Int
    package var underlay: UnderlayPath
    /// Whose messages they are, their class and their fragmenting: what all of a run have in common, in one word.
    fileprivate var key: Int

    /// Whose messages they are, as a number of the batch's owner.
    var use: Int { key >> 9 }
    /// One message that is known to be too long for the path: its outer packet is to be fragmented on the way.
    package var mayFragment: Bool { key & SendBatch.fragmenting != 0 }
    /// TOS or traffic class of the outer packets.
    package var tos: UInt8 { UInt8(truncatingIfNeeded: key) }
}

/// The send buffer: sealed messages, and the runs that they form.
@safe struct SendBatch: ~Copyable {
    /// UDP payload over IPv4 is 65,507 bytes at most; a run goes out as one datagram before the kernel segments
    /// it.
    private static let maximumRun = 65_507
    /// UDP_MAX_SEGMENTS of the oldest kernels that have UDP_SEGMENT.
    private static let maximumSegments = 64
    static let maximumRuns = 4096
    fileprivate static let fragmenting = 1 << 8

    /// Bytes that the outbound thread takes: as much as a batch can be segmented into.
    static let usualCapacity = 1 << 20

    let capacity: Int
    let base: UnsafeMutableRawPointer
    private(set) var used = 0
    private let runs: UnsafeMutablePointer<SendRun>
    private(set) var runCount = 0
    private var isLastOpen = false

    /// `capacity` in bytes.
    init(capacity: Int = usualCapacity) {
        self.capacity = capacity
        unsafe base = .allocate(byteCount: capacity, alignment: 64)
        unsafe runs = .allocate(capacity: Self.maximumRuns)
    }

    deinit {
        unsafe base.deallocate()
        unsafe runs.deallocate()
    }

    subscript(index: Int) -> SendRun {
        precondition(index >= 0 && index < runCount)
        return unsafe runs[index]
    }

    /// Where the next `size` bytes may be written; nil when the buffer is full.
    @inline(__always)
    func room(for size: Int) -> UnsafeMutableRawPointer? {
        guard used &+ size <= capacity, runCount < Self.maximumRuns else { return nil }
        return unsafe base + used
    }

    /// Takes the `size` bytes just written as one message, into the last run if it may have it. One that may be
    /// fragmented is alone: no fragment is made of a segment of UDP_SEGMENT.
    @inline(__always)
    mutating func append(
        size: Int, underlay: UnderlayPath, use: Int, tos: UInt8 = 0, mayFragment: Bool = false
    ) {
        let key = use &<< 9 | (mayFragment ? Self.fragmenting : 0) | Int(tos)
        let last = unsafe runs + (runCount &- 1)
        if isLastOpen, unsafe last.pointee.key == key, unsafe size <= last.pointee.segmentSize,
            unsafe last.pointee.count &+ size <= Self.maximumRun,
            unsafe last.pointee.segments < Self.maximumSegments
        {
            unsafe last.pointee.count &+= size
            unsafe last.pointee.segments &+= 1
            isLastOpen = unsafe size == last.pointee.segmentSize
        } else {
            unsafe (runs + runCount).initialize(
                to: SendRun(
                    offset: used, count: size, segmentSize: size, segments: 1, underlay: underlay, key: key))
            runCount &+= 1
            isLastOpen = !mayFragment
        }
        used &+= size
    }

    mutating func clear() {
        used = 0
        runCount = 0
        isLastOpen = false
    }
}
