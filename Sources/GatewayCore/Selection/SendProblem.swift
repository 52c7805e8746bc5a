package import WireGuard

/// That the kernel does not let an outer packet out, in words. Pure.
package struct SendProblem: Hashable, Sendable, CustomStringConvertible {
    /// errno.
    package let code: Int32
    package let description: String
    package let remedy: String

    /// The errno in words, with its name: `Operation not permitted (EPERM)`.
    package let error: String

    /// `mark` is that of outer packets: the remedy shows the route lookup that the socket makes.
    package init(
        _ code: Int32, _ error: String, to endpoint: Endpoint, by binding: UnderlayBinding, mark: UInt32
    ) {
        self.code = code
        self.error = error
        let parts = [
            binding.source.map { "from \($0)" }, binding.device.map { "by \($0)" },
        ].compactMap(\.self)
        let way = parts.isEmpty ? "" : " \(parts.joined(separator: " "))"
        description =
            "sending\(way) to \(endpoint) fails: \(error)"
        var look = "'ip route get \(endpoint.address)"
        if let source = binding.source { look += " from \(source)" }
        if let device = binding.device { look += " oif \(device)" }
        look += mark == 0 ? "'" : " mark \(mark)'"
        remedy =
            switch code {
            case Errno.EPERM:
                "a firewall of this host drops it on its way out: 'nft list ruleset' shows the rule"
            case Errno.EACCES: "a route of type prohibit is in the way: \(look) shows it"
            case Errno.EINVAL where binding.source != nil, Errno.EADDRNOTAVAIL:
                "is \(binding.source.map { "\($0)" } ?? "the source") an address of this host? See 'ip address' and \(look)"
            case Errno.EINVAL: "a route of type blackhole is in the way: \(look) shows it"
            case Errno.ENETUNREACH: "this host has no route there: see \(look)"
            case Errno.EHOSTUNREACH:
                "a route of type unreachable is in the way, or nobody answers on the link: \(look) shows it"
            case Errno.ENODEV, Errno.ENETDOWN:
                "the interface that it leaves by is gone or down: see 'ip link'"
            case Errno.EAGAIN, Errno.ENOMEM, Errno.ENOBUFS: "the interface's queue, or memory, is full"
            default: "see \(look) and the firewall of this host"
            }
    }
}

/// Numbers of errno.h on Linux, here because this target makes no system call.
private enum Errno {
    static let EPERM: Int32 = 1
    static let EAGAIN: Int32 = 11
    static let ENOMEM: Int32 = 12
    static let EACCES: Int32 = 13
    static let ENODEV: Int32 = 19
    static let EINVAL: Int32 = 22
    static let EADDRNOTAVAIL: Int32 = 99
    static let ENETDOWN: Int32 = 100
    static let ENETUNREACH: Int32 = 101
    static let ENOBUFS: Int32 = 105
    static let EHOSTUNREACH: Int32 = 113
}
