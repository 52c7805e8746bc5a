internal import LinuxIO
internal import Logging
internal import WireGuard

/// All that control keeps of one tunnel beside its session, which is `Device`'s.
struct TunnelRecord {
    let peer: PeerID
    let connection: String
    let name: String
    /// The sockets that it leaves by.
    let socket: UInt8
    /// Whether it is probed.
    let inside: InsideLink?

    var health: TunnelHealth
    var endpoints: EndpointSelector
    /// Nil where the MTU is given, or nobody would answer.
    var pathMTU: PathMTUSearch?
    /// Up to when `pathMTU` knows of traffic.
    var trafficSeenAt = Instant(nanoseconds: 0)

    // For the log and the status.

    var isUp = false
    var hasGivenUp = false
    /// When the first unanswered initiation went out.
    var askingSince: Instant?
    /// errno of what control sent last; nil while that works.
    var sendError: Int32?
    /// errno that the log has told of.
    var toldSendError: Int32?
    /// Whether two hosts share the far end's key.
    var sharing = KeySharing()
    /// Changes of endpoint are not logged before, only counted.
    var roamingQuietUntil: Instant?
    var roamsUnreported = 0
    /// A drill has cut it, and it has not shown since that it works: what becomes of it is the drill's doing.
    var isDrilled = false
    /// A new session is to be asked for, once it is decided where.
    var wantsSession = false

    var deadline: Instant? {
        [health.nextTimeout, endpoints.nextTimeout, pathMTU?.nextTimeout].compactMap(\.self).min()
    }
}

/// The tunnels by peer, with the earliest deadline of each in a list of words: a thousand of them are scanned in
/// less time than a heap would take to keep in order.
struct TunnelRecords {
    private static let never = Instant(nanoseconds: .max)

    private var records: [TunnelRecord?] = []
    private var deadlines: [Instant] = []
    private var places: [PeerID: Int] = [:]
    private var byName: [String: PeerID] = [:]
    private var free: [Int] = []

    var peers: [PeerID] { records.compactMap { $0?.peer } }

    func peer(named name: String) -> PeerID? { byName[name] }

    /// Nil for a peer that is gone. Changed in place; call `reschedule` after what may have moved a deadline.
    subscript(peer: PeerID) -> TunnelRecord? {
        get { places[peer].flatMap { records[$0] } }
        _modify {
            if let place = places[peer] {
                yield &records[place]
            } else {
                var nobody: TunnelRecord?
                yield &nobody
            }
        }
    }

    mutating func add(_ record: TunnelRecord) {
        let place = free.popLast() ?? records.count
        if place == records.count {
            records.append(record)
            deadlines.append(Self.never)
        } else {
            records[place] = record
        }
        places[record.peer] = place
        byName[record.name] = record.peer
        reschedule(record.peer)
    }

    mutating func remove(_ peer: PeerID) {
        guard let place = places.removeValue(forKey: peer), let record = records[place] else { return }
        byName[record.name] = nil
        records[place] = nil
        deadlines[place] = Self.never
        free.append(place)
    }

    mutating func reschedule(_ peer: PeerID) {
        guard let place = places[peer] else { return }
        deadlines[place] = records[place]?.deadline ?? Self.never
    }

    var earliest: Instant? {
        let earliest = deadlines.min() ?? Self.never
        return earliest == Self.never ? nil : earliest
    }

    func due(at now: Instant) -> [PeerID] {
        deadlines.indices.filter { deadlines[$0] <= now }.compactMap { records[$0]?.peer }
    }
}
