package import WireGuard

/// How the tunnels of a connection are watched. The defaults find a cut within 650 ms.
package struct HealthSettings: Hashable, Sendable {
    /// Off: no probe is sent, and the state follows handshakes.
    package var isOn = true
    /// From one probe of a tunnel to the next; not less than `shortestInterval`.
    package var interval: Duration = .milliseconds(200)
    /// Consecutive unanswered probes that take a tunnel down.
    package var downAfter = 3
    /// Consecutive answered probes that bring it up.
    package var upAfter = 5
    /// How long it must go on answering after that, once it has flapped. It doubles with each flap.
    package var holdDown: Duration = .seconds(1)
    package var maxHoldDown: Duration = .seconds(60)
    /// Past this share of lost probes, 0 to 1, a tunnel is degraded. Nil: never.
    package var maxLoss: Double?
    /// Past this mean round trip a tunnel is degraded. Nil: never.
    package var maxRoundTrip: Duration?
    /// One that answers is enough.
    package var targets: [HealthTarget] = []
    /// What targets are asked from: an address of this host that the far site knows the way back to. Nil: the tunnel's
    /// own inside address.
    package var source: IPAddress?

    package static let shortestInterval: Duration = .milliseconds(10)
    /// Targets are probed at this multiple of the interval: their owner did not ask for us.
    package static let targetIntervals = 5

    package init() {}

    package func source(by inside: InsideLink) -> IPAddress { source ?? inside.local }
}
