internal import LinuxIO
package import WireGuard

/// That the kernel does not let an outer packet out, in words. Pure.
package struct SendProblem: Hashable, Sendable, CustomStringConvertible {
    /// errno.
    package let code: Int32
    package let description: String
    package let remedy: String

    /// `ip route get` as the socket sends.
    package init(_ code: Int32, to endpoint: Endpoint, by binding: UnderlayBinding, mark: UInt32) {
        self.code = code
        let parts = [
            binding.source.map { "from \($0)" }, binding.device.map { "by \($0)" },
        ].compactMap(\.self)
        let way = parts.isEmpty ? "" : " \(parts.joined(separator: " "))"
        description =
            "sending\(way) to \(endpoint) fails: \(SystemError.text(code)) (\(SystemError.name(code)))"
        var look = "'ip route get \(endpoint.address)"
        if let source = binding.source { look += " from \(source)" }
        if let device = binding.device { look += " oif \(device)" }
        look += mark == 0 ? "'" : " mark \(mark)'"
        remedy =
            switch code {
            case SystemError.notPermitted:
                "a firewall of this host drops it on its way out: 'nft list ruleset' shows the rule"
            case SystemError.accessDenied: "a route of type prohibit is in the way: \(look) shows it"
            case 22 where binding.source != nil, 99:  // EINVAL, EADDRNOTAVAIL
                "is \(binding.source.map { "\($0)" } ?? "the source") an address of this host? See 'ip address' and \(look)"
            case 22: "a route of type blackhole is in the way: \(look) shows it"
            case 101: "this host has no route there: see \(look)"  // ENETUNREACH
            case 113:  // EHOSTUNREACH
                "a route of type unreachable is in the way, or nobody answers on the link: \(look) shows it"
            case SystemError.noDevice, 100:  // ENETDOWN
                "the interface that it leaves by is gone or down: see 'ip link'"
            case 11, 12, 105: "the interface's queue, or memory, is full"  // EAGAIN, ENOMEM, ENOBUFS
            default: "see \(look) and the firewall of this host"
            }
    }

    package var error: String { "\(SystemError.text(code)) (\(SystemError.name(code)))" }
}
