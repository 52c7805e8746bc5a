internal import DequeModule

/// Inner packets that wait for a session: the newest 128, in order (whitepaper, section 6.3).
struct StagedPackets {
    private var packets: Deque<[UInt8]> = []

    var count: Int { packets.count }
    var isEmpty: Bool { packets.isEmpty }

    /// Returns true if the oldest was dropped for it.
    mutating func append(_ packet: [UInt8]) -> Bool {
        let isFull = packets.count == Protocol.stagedPacketLimit
        if isFull { packets.removeFirst() }
        packets.append(packet)
        return isFull
    }

    /// Oldest first; none is left, and neither is their memory.
    mutating func takeAll() -> [[UInt8]] {
        defer { self = StagedPackets() }
        return Array(packets)
    }
}
