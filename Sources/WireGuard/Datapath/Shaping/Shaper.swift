/// What an outbound thread holds back so that a ``RateLimiter`` is kept: a queue for each class, some tens of
/// milliseconds of the rate long. A sender of TCP so meets a delay that grows before it meets loss; to drop at
/// once what comes too early, as a policer does, would cost it most of the rate.
///
/// Packets wait as they came, unsealed: each goes under the key and to the endpoint of the moment it goes, and
/// one that is dropped has cost no cipher.
///
/// How `Outbound` uses one, a thread having its own for each limiter:
/// 1. `begin` once a batch;
/// 2. for each finished packet or segment, `offer`: `.send` seals it as ever, `.held` copied it, `.dropped`
///    is counted (`.rateLimited`);
/// 3. after the batch, and when `nextOpening` has come, until the send buffer is full or there is nothing:
///    `first`, `takeFirst`, seal, `removeFirst`;
/// 4. the thread waits for its device until the earliest `nextOpening` at most.
///
/// Concurrency: made and used by one thread; the limiter is shared.
@safe final class Shaper {
    enum Verdict {
        case send
        case held
        case dropped
    }

    let limiter: RateLimiter
    /// Whether it is one path's; else it is a whole connection's.
    let isOfPath: Bool
    /// The table no longer has its limiter: what it holds is to go on at once.
    var isRetired = false
    /// Added to an inner packet's length, padded: what it is on the wire.
    private let overhead: Int
    private var small: PacketQueue
    private var bulk: PacketQueue
    private var position: UInt64 = 0
    /// From where on the first packet of `bulk` may go, once that has been booked.
    private var bulkTurn: UInt64?

    private static let bulkTime: UInt64 = 50
    private static let smallTime: UInt64 = 20

    /// `overhead` is the outer headers, 60 with IPv4 and 80 with IPv6. Takes the memory of both queues: 70 ms of
    /// the rate, from 256 KB up to 5 MB.
    init(limiter: RateLimiter, isOfPath: Bool = true, overhead: Int) {
        self.limiter = limiter
        self.isOfPath = isOfPath
        self.overhead = overhead
        func capacity(_ milliseconds: UInt64, _ range: ClosedRange<UInt64>) -> Int {
            Int(min(max(limiter.rate * milliseconds / 1000, range.lowerBound), range.upperBound))
        }
        bulk = PacketQueue(capacity: capacity(Self.bulkTime, 64 << 10...4 << 20))
        small = PacketQueue(capacity: capacity(Self.smallTime, 64 << 10...1 << 20))
    }

    @inline(__always)
    func begin(now: Instant) { position = limiter.position(at: now) }

    /// One inner packet, whole, its checksums finished.
    @inline(__always)
    func offer(_ packet: UnsafeRawPointer, count: Int, _ traffic: QueueClass) -> Verdict {
        switch traffic {
        case .small:
            if small.isEmpty, limiter.take(wireLength(count), of: .small, at: position) { return .send }
            return unsafe small.append(packet, count: count) ? .held : .dropped
        case .bulk:
            if bulk.isEmpty, limiter.take(wireLength(count), of: .bulk, at: position) { return .send }
            return unsafe bulk.append(packet, count: count) ? .held : .dropped
        }
    }

    var isEmpty: Bool { small.isEmpty && bulk.isEmpty }

    /// The packet that goes next, small before bulk, with 16 bytes behind it that may be written to.
    var first: UnsafeMutableRawBufferPointer? { unsafe small.isEmpty ? bulk.first : small.first }

    /// Whether its time has come; then it is counted as gone: seal it, then call `removeFirst`, with nothing
    /// offered in between.
    func takeFirst() -> Bool {
        guard let packet = unsafe first else { return false }
        let count = wireLength(packet.count)
        guard small.isEmpty else { return limiter.take(count, of: .small, at: position) }
        if let bulkTurn { return bulkTurn <= position }
        if limiter.take(count, of: .bulk, at: position) { return true }
        bulkTurn = limiter.book(count)
        return false
    }

    func removeFirst() {
        guard small.isEmpty else { return small.removeFirst() }
        bulk.removeFirst()
        bulkTurn = nil
    }

    private func wireLength(_ count: Int) -> Int { (count &+ 15) & ~15 &+ overhead }

    /// When the time of `first` comes; nil while nothing waits.
    var nextOpening: Instant? {
        if let packet = unsafe small.first {
            return limiter.opening(for: wireLength(packet.count), of: .small)
        }
        if let bulkTurn { return limiter.time(of: bulkTurn) }
        if let packet = unsafe bulk.first {
            return limiter.opening(for: wireLength(packet.count), of: .bulk)
        }
        return nil
    }
}
