@testable import WireGuard

/// Watches every message of a simulation for what no implementation may ever do, whatever the network does to
/// it.
struct WireMonitor {
    private(set) var violations: [String] = []

    private struct Session: Hashable {
        let node: Int
        let remoteIndex: UInt32
    }

    /// By node, and by the address of the far end.
    private var lastInitiation: [Int: [IPAddress: Instant]] = [:]
    private var ephemerals: Set<[UInt8]> = []
    private var nonces: Set<[UInt8]> = []
    /// Sessions that a node answered to, and the index under which it must be spoken to first.
    private var answered: [Session: UInt32] = [:]
    private var heard: Set<Session> = []

    mutating func noteSent(_ message: SimulatedNode.Sent, by node: SimulatedNode) {
        let bytes = message.bytes
        switch message.type {
        case .initiation:
            let previous = lastInitiation[node.number]?[message.to.endpoint.address]
            if let previous, message.at < previous + Protocol.rekeyTimeout {
                report("node \(node.number) sent two initiations within 5 s", message)
            }
            lastInitiation[node.number, default: [:]][message.to.endpoint.address] = message.at
            if !ephemerals.insert(Array(bytes[8..<40])).inserted {
                report("an ephemeral key was used twice", message)
            }
        case .response:
            if !ephemerals.insert(Array(bytes[12..<44])).inserted {
                report("an ephemeral key was used twice", message)
            }
            answered[Session(node: node.number, remoteIndex: word(bytes, at: 8))] = word(bytes, at: 4)
        case .transport:
            let remoteIndex = word(bytes, at: 4)
            if let local = answered[Session(node: node.number, remoteIndex: remoteIndex)],
                !heard.contains(Session(node: node.number, remoteIndex: local))
            {
                report("responder \(node.number) sent before it was spoken to", message)
            }
            // Index and counter under one key: the nonce.
            if !nonces.insert([UInt8(node.number)] + bytes[4..<16]).inserted {
                report("a nonce was used twice", message)
            }
        case .cookieReply: break
        case nil: report("node \(node.number) sent a message of no type", message)
        }
    }

    mutating func noteReceived(_ bytes: [UInt8], by node: SimulatedNode) {
        guard bytes.count >= Protocol.transportOverhead, MessageType(of: bytes) == .transport else { return }
        heard.insert(Session(node: node.number, remoteIndex: word(bytes, at: 4)))
    }

    /// A restarted node knows nothing of what it sent before.
    mutating func forget(_ node: SimulatedNode) { lastInitiation[node.number] = nil }

    private mutating func report(_ violation: String, _ message: SimulatedNode.Sent) {
        violations.append("\(message.at.nanoseconds): \(violation)")
    }

    private func word(_ bytes: [UInt8], at offset: Int) -> UInt32 {
        bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
}
