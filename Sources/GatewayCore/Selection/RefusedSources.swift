internal import WireGuard

/// Where packets came from that a tunnel may not bring (`DropReason.innerSourceNotAllowed`): a prefix is missing at this
/// end, or the two ends have different links inside.
///
/// The data threads tell of two packets a second and tunnel. This holds few: what is oldest goes first.
struct RefusedSources {
    struct Source: Hashable {
        let peer: PeerID
        let address: IPAddress
        /// The latest packet's.
        fileprivate(set) var destination: IPAddress
        /// It was a probe of another vgwd.
        fileprivate(set) var isProbe: Bool
        /// Packets that were told of, not all that came.
        fileprivate(set) var count: UInt64
        fileprivate(set) var last: Instant
    }

    private static let limit = 16

    /// The latest last.
    private(set) var all: [Source] = []

    /// `packet` may be the beginning of one that is `length` bytes long.
    mutating func note(_ packet: [UInt8], length: Int, by peer: PeerID, now: Instant) {
        guard let (source, destination) = Self.addresses(packet) else { return }
        let known = all.firstIndex { $0.peer == peer && $0.address == source }
        var entry =
            known.map { all.remove(at: $0) }
            ?? Source(
                peer: peer, address: source, destination: destination, isProbe: false, count: 0, last: now)
        entry.count += 1
        entry.destination = destination
        entry.isProbe = ProbePacket.isRequest(packet, length: length)
        entry.last = now
        if all.count == Self.limit { all.removeFirst() }
        all.append(entry)
    }

    mutating func forget(_ peer: PeerID) { all.removeAll { $0.peer == peer } }

    private static func addresses(_ packet: [UInt8]) -> (source: IPAddress, destination: IPAddress)? {
        let (start, size) = packet.first.map { $0 >> 4 } == 4 ? (12, 4) : (8, 16)
        guard packet.count >= start + 2 * size,
            let source = IPAddress(bytes: packet[start..<start + size]),
            let destination = IPAddress(bytes: packet[start + size..<start + 2 * size])
        else { return nil }
        return (source, destination)
    }
}

extension RefusedSources.Source {
    /// What is wrong, where, and what to do. `inside` is the tunnel's link; `owners` are the connections here that have the
    /// address behind them.
    func words(tunnel: String, connection: String, inside: InsideLink?, owners: [String]) -> String {
        if address == inside?.local {
            return "tunnel \(tunnel): both ends have \(address) as their own inside address: "
                + "swap local and remote of inside at one of them"
        }
        if isProbe, let inside {
            return
                "tunnel \(tunnel): the far end probes from \(address) to \(destination), and inside here has "
                + "\(inside.remote) to \(inside.local): write the same link at both ends"
        }
        if isProbe {
            return "tunnel \(tunnel): the far end probes from \(address), and this end has no inside link: "
                + "write inside = { local = \"\(destination)\", remote = \"\(address)\" }"
        }
        let way =
            "tunnel \(tunnel): packets from \(address) to \(destination) are refused (inner-source-not-allowed)"
        guard owners.isEmpty else {
            return
                "\(way): here \(address) is behind connection \(owners.joined(separator: " and ")), not \(connection)"
        }
        return
            "\(way): no route of connection \(connection) has \(address). Add its prefix to routes here if it is "
            + "behind the far end, else stop it there"
    }
}
