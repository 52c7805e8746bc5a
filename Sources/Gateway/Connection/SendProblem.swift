internal import Glibc
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
            case EPERM:
                "a firewall of this host drops it on its way out: 'nft list ruleset' shows the rule"
            case EACCES: "a route of type prohibit is in the way: \(look) shows it"
            case EINVAL where binding.source != nil, EADDRNOTAVAIL:
                "is \(binding.source.map { "\($0)" } ?? "the source") an address of this host? See 'ip address' and \(look)"
            case EINVAL: "a route of type blackhole is in the way: \(look) shows it"
            case ENETUNREACH: "this host has no route there: see \(look)"
            case EHOSTUNREACH:
                "a route of type unreachable is in the way, or nobody answers on the link: \(look) shows it"
            case ENODEV, ENETDOWN:
                "the interface that it leaves by is gone or down: see 'ip link'"
            case EAGAIN, ENOMEM, ENOBUFS: "the interface's queue, or memory, is full"
            default: "see \(look) and the firewall of this host"
            }
    }

    package var error: String { "\(SystemError.text(code)) (\(SystemError.name(code)))" }
}
