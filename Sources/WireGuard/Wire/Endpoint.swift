/// Where a peer is reached: address and UDP port, with the interface index that an IPv6 link-local address
/// needs.
package struct Endpoint: Hashable, Sendable, BitwiseCopyable {
    package var address: IPAddress
    package var port: UInt16
    /// `sin6_scope_id`; 0 for every address that is not link-local.
    package var scope: UInt32

    @inlinable package init(address: IPAddress, port: UInt16, scope: UInt32 = 0) {
        self.address = address
        self.port = port
        self.scope = scope
    }
}

extension Endpoint: CustomStringConvertible {
    /// `192.0.2.1:51820` or `[2001:db8::1%3]:51820`.
    package var description: String {
        switch address.family {
        case .v4: "\(address):\(port)"
        case .v6: scope == 0 ? "[\(address)]:\(port)" : "[\(address)%\(scope)]:\(port)"
        }
    }

    /// The form that `description` writes. The scope is a number: names of interfaces are the system's.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        guard let port = Self.number(text[text.index(after: colon)...], as: UInt16.self) else { return nil }
        let host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            let parts = host.dropFirst().dropLast().split(separator: "%", omittingEmptySubsequences: false)
            guard let first = parts.first, parts.count <= 2, let address = IPAddress(String(first)),
                address.family == .v6
            else { return nil }
            var scope: UInt32 = 0
            if parts.count == 2 {
                guard let number = Self.number(parts[1], as: UInt32.self) else { return nil }
                scope = number
            }
            self.init(address: address, port: port, scope: scope)
        } else {
            guard let address = IPAddress(String(host)), address.family == .v4 else { return nil }
            self.init(address: address, port: port)
        }
    }

    /// Digits only: the standard library would take a sign as well.
    private static func number<Value: FixedWidthInteger>(_ text: Substring, as: Value.Type) -> Value? {
        text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? Value(text) : nil
    }
}

/// The address of ours that a peer's packets arrive at, and that we answer from (IP_PKTINFO,
/// IPV6_RECVPKTINFO).
package struct LocalSource: Hashable, Sendable, BitwiseCopyable {
    package var address: IPAddress
    /// Interface index; 0 lets the routing table choose.
    package var interface: UInt32

    @inlinable package init(address: IPAddress, interface: UInt32) {
        self.address = address
        self.interface = interface
    }
}

/// Both ends of the outer path to a peer. `source` is sticky: learned from what the peer sends, and forgotten
/// on every handshake retry, and when the address leaves us.
package struct UnderlayPath: Hashable, Sendable, BitwiseCopyable {
    package var endpoint: Endpoint
    package var source: LocalSource?
    /// Which of the gateway's UDP socket groups it leaves and comes by; 0 is the gateway's own port.
    package var socket: UInt8

    @inlinable package init(endpoint: Endpoint, source: LocalSource? = nil, socket: UInt8 = 0) {
        self.endpoint = endpoint
        self.source = source
        self.socket = socket
    }
}
