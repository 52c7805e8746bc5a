package import WireGuard

/// A machine behind the far gateway that shows that more than the tunnel works.
package enum HealthTarget: Hashable, Sendable {
    /// Answers an ICMP or ICMPv6 echo request.
    case echo(IPAddress)
    /// Answers a SYN, be it with a refusal: either way a packet went there and back.
    case tcp(IPAddress, port: UInt16)

    package var address: IPAddress {
        switch self {
        case .echo(let address), .tcp(let address, _): address
        }
    }
}

extension HealthTarget: CustomStringConvertible {
    /// `10.20.0.10`, `tcp 10.20.0.10:443`, `tcp [fd00::10]:443`.
    package var description: String {
        switch self {
        case .echo(let address): address.description
        case .tcp(let address, let port): "tcp \(Endpoint(address: address, port: port))"
        }
    }
}
