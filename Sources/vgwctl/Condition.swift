internal import ControlAPI

/// How a connection is: for the order of the table, and for the exit status of `vgwctl status`. The worst comes last.
enum Condition: String, Comparable, CaseIterable {
    /// Each tunnel is up, or comes up with the first packet.
    case usable
    /// The first handshakes are under way, or their probes.
    case connecting
    /// Traffic passes, with more loss or delay than a limit, or with a tunnel less than there should be.
    case degraded
    case down

    init(_ connection: ConnectionStatus) {
        let states = Set(connection.tunnels.map(\.state))
        self =
            if connection.state == .down || connection.isUsable == false {
                .down
            } else if !states.isDisjoint(with: [.down, .degraded, .disabled]) {
                .degraded
            } else if connection.tunnels.contains(where: { $0.isBeginning }) {
                connection.state == .up ? .degraded : .connecting
            } else {
                .usable
            }
    }

    /// In their order where they are as well as each other.
    static func worstFirst(_ connections: [ConnectionStatus]) -> [ConnectionStatus] {
        let conditions = connections.map { Condition($0) }
        return connections.indices.sorted { (conditions[$1], $0) < (conditions[$0], $1) }.map {
            connections[$0]
        }
    }

    /// Nil without a connection.
    static func worst(of connections: [ConnectionStatus]) -> Condition? {
        connections.map { Condition($0) }.max()
    }

    /// 2 and 3 are no statuses of sysexits.h, nor of `Failure`.
    var exitStatus: Int32 {
        switch self {
        case .usable: 0
        case .connecting, .degraded: 2
        case .down: 3
        }
    }

    static func < (a: Condition, b: Condition) -> Bool { a.place < b.place }

    private var place: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}

extension TunnelStatus {
    /// Its first handshakes are under way, or the name of its endpoint is being looked up.
    fileprivate var isBeginning: Bool {
        state == .connecting || state == .idle && endpoint == nil && configuredEndpoint != nil
    }
}

extension Palette {
    func paint(_ text: String, _ condition: Condition) -> String {
        switch condition {
        case .usable: green(text)
        case .connecting, .degraded: yellow(text)
        case .down: red(text)
        }
    }
}
