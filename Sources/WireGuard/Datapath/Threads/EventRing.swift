internal import Synchronization

/// Events from one data thread to the control thread: a ring of bytes with one writer and one reader, so
/// neither waits.
///
/// Handshakes, strays and staged packets, which a stranger or a busy host can produce without end, may fill three
/// quarters of it, and replies to probes and refused packets, which a peer can, seven eighths; the rest is kept for the events that
/// timers and key confirmation hang on.
///
/// A second one leads strays the other way, from control to the inbound thread that they are for.
///
/// Concurrency: one thread appends, another drains. `tail` is the writer's, `head` the reader's.
@safe package final class EventRing: @unchecked Sendable {
    private struct Record: BitwiseCopyable {
        enum Kind: UInt8, BitwiseCopyable {
            case handshakeMessage, stage, dataSent, dataReceived, rekeyDue, keyConfirmed, roamed, probeReply
            case sendTooBig, stray, sourceRefused
            /// Nothing more before the end of the memory: the next record is at its start.
            case wrap
        }

        var kind: Kind
        var payloadCount: UInt32 = 0
        /// Length of the inner packet whose start is the payload.
        var length: UInt32 = 0
        var peer: PeerID = PeerID(0)
        /// Local index, nanoseconds of an instant, or the class of an outer packet.
        var value: UInt64 = 0
        var from: UnderlayPath = UnderlayPath(endpoint: Endpoint(address: IPAddress(v4: 0), port: 0))

        static let stride = (MemoryLayout<Record>.size + 15) & ~15
    }

    private let storage: UnsafeMutableRawPointer
    private let capacity: Int
    private let head = Atomic<Int>(0)
    private let tail = Atomic<Int>(0)
    private let signalled = Atomic<Bool>(false)
    /// Bytes of handshakes so far: appended (the writer's), taken (the reader's).
    private let handshakesAppended = Atomic<Int>(0)
    private let handshakesTaken = Atomic<Int>(0)

    /// `capacity` in bytes, rounded up to a power of two.
    package init(capacity: Int) {
        var size = 4096
        while size < capacity { size *= 2 }
        self.capacity = size
        unsafe storage = .allocate(byteCount: size, alignment: 16)
    }

    deinit { unsafe storage.deallocate() }

    /// Share of the ring that waiting handshakes take, 0 to 1.
    package var handshakeFill: Double {
        let appended = handshakesAppended.load(ordering: .relaxed)
        return Double(appended - handshakesTaken.load(ordering: .relaxed)) / Double(capacity)
    }

    /// True once after one or more appends: the writer then wakes the reader. A reader that is about to look
    /// clears it first, so that nothing is left lying.
    package func takeSignal() -> Bool {
        let isEmpty = tail.load(ordering: .relaxed) == head.load(ordering: .sequentiallyConsistent)
        return !isEmpty && !signalled.exchange(true, ordering: .sequentiallyConsistent)
    }

    // MARK: The writer's side; false when there is no room

    func handshakeMessage(_ bytes: UnsafeRawPointer, count: Int, from: UnderlayPath) -> Bool {
        unsafe append(
            Record(kind: .handshakeMessage, payloadCount: UInt32(count), from: from), payload: bytes,
            within: capacity / 4 * 3)
    }

    func stray(
        _ message: UnsafeRawPointer, count: Int, from: UnderlayPath, tos: UInt8
    ) -> Bool {
        unsafe append(
            Record(
                kind: .stray, payloadCount: UInt32(count), value: UInt64(tos), from: from),
            payload: message, within: capacity / 4 * 3)
    }

    /// Control passes it on.
    package func stray(_ message: [UInt8], from: UnderlayPath, tos: UInt8) -> Bool {
        unsafe message.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return true }
            return unsafe stray(base, count: bytes.count, from: from, tos: tos)
        }
    }

    func stage(_ packet: UnsafeRawPointer, count: Int, peer: PeerID) -> Bool {
        unsafe append(
            Record(kind: .stage, payloadCount: UInt32(count), peer: peer), payload: packet,
            within: capacity / 4 * 3)
    }

    /// `count` is what is kept of `length` bytes.
    func probeReply(
        _ packet: UnsafeRawPointer, count: Int, length: Int, peer: PeerID, at now: Instant
    ) -> Bool {
        unsafe append(
            Record(
                kind: .probeReply, payloadCount: UInt32(count), length: UInt32(length), peer: peer,
                value: now.nanoseconds), payload: packet, within: capacity / 8 * 7)
    }

    /// `count` is what is kept of `length` bytes.
    func sourceRefused(_ packet: UnsafeRawPointer, count: Int, length: Int, peer: PeerID) -> Bool {
        unsafe append(
            Record(kind: .sourceRefused, payloadCount: UInt32(count), length: UInt32(length), peer: peer),
            payload: packet, within: capacity / 8 * 7)
    }

    func dataSent(_ peer: PeerID, at now: Instant) -> Bool {
        unsafe append(Record(kind: .dataSent, peer: peer, value: now.nanoseconds), payload: nil)
    }

    func dataReceived(_ peer: PeerID, at now: Instant) -> Bool {
        unsafe append(
            Record(kind: .dataReceived, peer: peer, value: now.nanoseconds), payload: nil)
    }

    func rekeyDue(_ peer: PeerID) -> Bool {
        unsafe append(Record(kind: .rekeyDue, peer: peer), payload: nil)
    }

    func keyConfirmed(_ peer: PeerID, localIndex: UInt32) -> Bool {
        unsafe append(
            Record(kind: .keyConfirmed, peer: peer, value: UInt64(localIndex)), payload: nil)
    }

    func roamed(_ peer: PeerID) -> Bool {
        unsafe append(Record(kind: .roamed, peer: peer), payload: nil)
    }

    func sendTooBig(_ peer: PeerID) -> Bool {
        unsafe append(Record(kind: .sendTooBig, peer: peer), payload: nil)
    }

    /// `limit` is the bytes that may be in use afterwards; nil is all there are.
    private func append(_ record: Record, payload: UnsafeRawPointer?, within limit: Int? = nil) -> Bool {
        let count = Int(record.payloadCount)
        let length = Record.stride + (count + 15) & ~15
        let tail = self.tail.load(ordering: .relaxed)
        let used = tail - head.load(ordering: .acquiring)
        var offset = tail & (capacity - 1)
        let untilEnd = capacity - offset
        let skipped = untilEnd < length ? untilEnd : 0
        guard used + skipped + length <= limit ?? capacity else { return false }
        if skipped > 0 {
            if skipped >= Record.stride {
                unsafe storage.storeBytes(of: Record(kind: .wrap), toByteOffset: offset, as: Record.self)
            }
            offset = 0
        }
        unsafe storage.storeBytes(of: record, toByteOffset: offset, as: Record.self)
        if let payload = unsafe payload {
            unsafe (storage + offset + Record.stride).copyMemory(from: payload, byteCount: count)
        }
        if record.kind == .handshakeMessage {
            handshakesAppended.wrappingAdd(length, ordering: .relaxed)
        }
        self.tail.store(tail + skipped + length, ordering: .releasing)
        return true
    }

    // MARK: The reader's side

    /// Takes everything that was there when it was called, oldest first, at most `limit` events. True if some
    /// are left.
    package func drain(limit: Int = .max, _ body: (DatapathEvent) -> Void) -> Bool {
        // An exchange, not a store: it sees what the writer appended before it last found the flag up.
        _ = signalled.exchange(false, ordering: .sequentiallyConsistent)
        let tail = self.tail.load(ordering: .sequentiallyConsistent)
        var head = self.head.load(ordering: .relaxed)
        var taken = 0
        while head < tail, taken < limit {
            let offset = head & (capacity - 1)
            let untilEnd = capacity - offset
            guard untilEnd >= Record.stride else {
                head += untilEnd
                continue
            }
            let record = unsafe storage.loadUnaligned(fromByteOffset: offset, as: Record.self)
            if record.kind == .wrap {
                head += untilEnd
                continue
            }
            let count = Int(record.payloadCount)
            let payload = unsafe UnsafeRawBufferPointer(start: storage + offset + Record.stride, count: count)
            let event = unsafe Self.event(record, payload: payload)
            let length = Record.stride + (count + 15) & ~15
            head += length
            if record.kind == .handshakeMessage { handshakesTaken.wrappingAdd(length, ordering: .relaxed) }
            // Room is given back before the event is handled: handling may take a while.
            self.head.store(head, ordering: .releasing)
            taken += 1
            body(event)
        }
        self.head.store(head, ordering: .releasing)
        return head < tail
    }

    private static func event(_ record: Record, payload: UnsafeRawBufferPointer) -> DatapathEvent {
        let at = Instant(nanoseconds: record.value)
        return switch record.kind {
        case .handshakeMessage: .handshakeMessage(unsafe Array(payload), from: record.from)
        case .stray:
            .stray(
                unsafe Array(payload), from: record.from,
                tos: UInt8(truncatingIfNeeded: record.value))
        case .stage: .stage(record.peer, packet: unsafe Array(payload))
        case .dataSent: .dataSent(record.peer, at: at)
        case .dataReceived: .dataReceived(record.peer, at: at)
        case .rekeyDue: .rekeyDue(record.peer)
        case .keyConfirmed: .keyConfirmed(record.peer, localIndex: UInt32(truncatingIfNeeded: record.value))
        case .roamed, .wrap: .roamed(record.peer)
        case .sendTooBig: .sendTooBig(record.peer)
        case .sourceRefused:
            .sourceRefused(record.peer, packet: unsafe Array(payload), length: Int(record.length))
        case .probeReply:
            .probeReply(record.peer, packet: unsafe Array(payload), length: Int(record.length), at: at)
        }
    }
}
