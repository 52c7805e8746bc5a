internal import WireGuard

/// What instructions are counted of: a packet through the daemon's own code, under the null cipher.
enum InstructionWork: String, CaseIterable {
    case smallOut = "64 B packet, out"
    case smallBoth = "64 B packet, out and in"
    case fullOut = "1420 B packet, out"
    case fullBoth = "1420 B packet, out and in"
    case tcpOut = "1420 B of a TCP superpacket, out"
    case tcpBoth = "1420 B of a TCP superpacket, out and in"
    case udpOut = "1420 B of a UDP superpacket, out"
    case udpBoth = "1420 B of a UDP superpacket, out and in"

    private var shape: PacketShape {
        switch self {
        case .smallOut, .smallBoth: .single(64)
        case .fullOut, .fullBoth: .single(1420)
        case .tcpOut, .tcpBoth: .tcpSuperpacket(packetSize: 1420)
        case .udpOut, .udpBoth: .udpSuperpacket(packetSize: 1420)
        }
    }

    private var opens: Bool {
        switch self {
        case .smallBoth, .fullBoth, .tcpBoth, .udpBoth: true
        case .smallOut, .fullOut, .tcpOut, .udpOut: false
        }
    }

    var packetsInBatch: Int { PacketLoop.reads(of: shape) * shape.packets }

    func run(batches: Int) throws {
        var loop = PacketLoop(cipher: .chacha20Poly1305)
        _ = loop.pass(shape, batches: batches, opens: opens)
        guard loop.problems.isEmpty else { throw Failure("\(rawValue): dropped \(loop.problems)") }
    }
}
