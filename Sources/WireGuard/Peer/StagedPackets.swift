/// Inner packets that wait for a session: the newest 128, in order (whitepaper, section 6.3).
struct StagedPackets {
    private var packets: [[UInt8]] = []
    /// Place of the oldest once the ring is full; 0 before.
    private var oldest = 0

    var count: Int { packets.count }
    var isEmpty: Bool { packets.isEmpty }

    /// True when the oldest had to go for it.
    mutating func append(_ packet: [UInt8]) -> Bool {
        guard packets.count == Protocol.stagedPacketLimit else {
            packets.append(packet)
            return false
        }
        packets[oldest] = packet
        oldest = (oldest + 1) % Protocol.stagedPacketLimit
        return true
    }

    /// Oldest first; none is left, and neither is their memory.
    mutating func takeAll() -> [[UInt8]] {
        defer { self = StagedPackets() }
        return Array(packets[oldest...] + packets[..<oldest])
    }
}
