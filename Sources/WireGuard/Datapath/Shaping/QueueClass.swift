/// Which of two classes a packet is in where a rate is limited: bulk gets what small leaves.
package enum QueueClass: UInt8, Sendable {
    /// Voice, video, routing protocols: whatever its sender marked so, and TCP acknowledgements without data,
    /// which keep the other direction's transfers going.
    ///
    /// The packet's size says nothing by itself: the short last segment of a transfer would overtake the long
    /// ones before it, and its receiver would take that for loss. An acknowledgement that overtakes is only
    /// early.
    case small
    case bulk

    /// A bit for each DSCP that is small: AF41, AF42, AF43 (RFC 2597), CS5, VOICE-ADMIT (RFC 5865), EF
    /// (RFC 3246), CS6 and CS7 (RFC 2474).
    static let smallCodepoints: UInt64 = [34, 36, 38, 40, 44, 46, 48, 56].reduce(0) { $0 | 1 << $1 }

    /// FIN, SYN and RST are part of what a stream carries: an acknowledgement has none of them.
    private static let streamFlags = TCPFlag.fin | TCPFlag.syn | TCPFlag.rst

    @inline(__always)
    init(_ packet: borrowing IPPacket) {
        let isMarked = Self.smallCodepoints &>> UInt64(packet.tos >> 2) & 1 != 0
        self = isMarked || Self.isAcknowledgement(packet) ? .small : .bulk
    }

    @inline(__always)
    private static func isAcknowledgement(_ packet: borrowing IPPacket) -> Bool {
        packet.hasTCPHeader && packet.bodyLength == packet.tcpHeaderLength
            && packet.tcpFlags & streamFlags == 0
    }
}
