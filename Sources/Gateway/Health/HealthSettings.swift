package import WireGuard
package struct HealthSettings: Hashable, Sendable {
    package static let targetLimit = 8
    package var isOn = true
    package var interval: Duration = .milliseconds(200)
    package var downAfter = 3
    package var upAfter = 5
    package var holdDown: Duration = .seconds(1)
    package var maxLoss: Double?
    package var maxRoundTrip: Duration?
    package var targets: [HealthTarget] = []
    package init() {}
}
package enum HealthTarget: Hashable, Sendable, CustomStringConvertible {
    case echo(IPAddress)
    case tcp(IPAddress, UInt16)
    package var address: IPAddress {
        switch self { case .echo(let a), .tcp(let a, _): a }
    }
    package var description: String {
        switch self { case .echo(let a): "\(a)"; case .tcp(let a, let p): "\(Endpoint(address: a, port: p))" }
    }
}
