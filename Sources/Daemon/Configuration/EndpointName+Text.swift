package import GatewayCore
internal import LinuxIO
internal import WireGuard

extension EndpointName {
    /// Why a text is no endpoint, and what would be one.
    package struct Problem: Error {
        package let problem: String
        package let remedy: String
    }

    /// `host:port`, `192.0.2.1:51820`, `[2001:db8::1]:51820` or `[fe80::1%eth0]:51820`. `given` is the text for an error: a
    /// key that stands in the wrong place is not repeated.
    package static func parse(_ text: String, shownAs given: String? = nil) throws(Problem) -> EndpointName {
        let shown = given ?? "\"\(text)\""
        let example = "write \"vgw.example.com:51820\", \"192.0.2.1:51820\" or \"[2001:db8::1]:51820\""
        if let address = IPAddress(text) {
            let right = address.family == .v4 ? "\(address):51820" : "[\(address)]:51820"
            throw Problem(problem: "\(text) has no port", remedy: "write \"\(right)\"")
        }
        guard let colon = text.lastIndex(of: ":") else {
            throw Problem(problem: "\(shown) has no port", remedy: example)
        }
        let host = String(text[..<colon])
        let digits = text[text.index(after: colon)...]
        guard !digits.isEmpty, digits.utf8.count <= 5, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let port = UInt16(digits), port > 0
        else {
            throw Problem(
                problem: "\(shown) has no port from 1 to 65535 after its last colon", remedy: example)
        }
        if host.contains(":"), !host.hasPrefix("[") {
            throw Problem(
                problem: "\(shown) is ambiguous",
                remedy: "put an IPv6 address in brackets: \"[…]:\(port)\"")
        }
        if let endpoint = Endpoint(text) {
            guard !endpoint.address.isUnspecified, !endpoint.address.isMulticast else {
                throw Problem(
                    problem: "\(endpoint.address) is no host", remedy: "write the far end's address")
            }
            guard endpoint.address.family == .v4 || !endpoint.address.isLinkLocal || endpoint.scope != 0
            else {
                throw Problem(
                    problem: "\(endpoint.address) is link-local and names no interface",
                    remedy: "write it behind a percent sign: \"[\(endpoint.address)%eth0]:\(port)\"")
            }
            return .address(endpoint)
        }
        if host.hasPrefix("["), host.hasSuffix("]"), host.contains("%") {
            guard let scoped = ScopedAddress(String(host.dropFirst().dropLast())) else {
                throw Problem(
                    problem: "\(shown) names no link-local address with its interface",
                    remedy: "write \"[fe80::1%eth0]:\(port)\"; other addresses name no interface")
            }
            return .name(scoped.description, port: port)
        }
        guard Names.isHost(host) else {
            throw Problem(
                problem: "\(shown) names neither an address nor a host",
                remedy: host.utf8.count > 253 || host.split(separator: ".").contains { $0.utf8.count > 63 }
                    ? "a host name has at most 253 characters, and 63 between two dots" : example)
        }
        return .name(host, port: port)
    }
}
