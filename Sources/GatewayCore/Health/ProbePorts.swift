/// Source ports of the SYNs that ask TCP targets: each tunnel of a connection has its own, and so has a drill, as an
/// answer says by nothing else what it answers.
package struct ProbePorts: Sendable {
    package enum Use: Int, Sendable {
        case health
        case drill
    }

    private static let uses = 2
    private let all: ClosedRange<UInt16>
    /// Ports of one tunnel and one use.
    private let width: Int

    /// `tunnels` is how many the connection has; what is more than there are ports for shares them.
    package init(_ all: ClosedRange<UInt16>, tunnels: Int) {
        self.all = all
        width = max(all.count / (max(tunnels, 1) * Self.uses), 1)
    }

    /// `tunnel` is an index into the connection's tunnels.
    package func ports(of tunnel: Int, for use: Use) -> ClosedRange<UInt16> {
        let first = (tunnel * Self.uses + use.rawValue) * width % all.count
        return UInt16(Int(all.lowerBound) + first)...UInt16(Int(all.lowerBound) + first + width - 1)
    }

    /// Nil for a port of no tunnel.
    package func owner(of port: UInt16) -> (tunnel: Int, use: Use)? {
        guard all.contains(port) else { return nil }
        let slot = (Int(port) - Int(all.lowerBound)) / width
        guard let use = Use(rawValue: slot % Self.uses) else { return nil }
        return (slot / Self.uses, use)
    }
}
