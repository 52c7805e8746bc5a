internal import LinuxIO

/// A network interface of this host that has the name of vgwd's own, and is no TUN device that it could attach to.
enum InterfaceConflict {
    /// Nil where there is none, and where the kernel does not tell.
    static func find(_ name: String) -> (problem: String, remedy: String)? {
        guard let link = (try? (try? Netlink())?.link(name)) ?? nil, !link.isTun else { return nil }
        let what =
            switch link.kind {
            case nil: "a network device"
            case "bridge": "a bridge"
            case "wireguard": "a WireGuard interface of the kernel"
            case "tap": "a TAP device"
            case let kind?: "an interface of kind \(kind)"
            }
        // The kernel finds an interface by its other names too (ip link property add altname).
        let problem =
            link.name == name ? "\(name) is \(what)" : "\(name) is another name of \(link.name), \(what)"
        let removal = link.kind == "wireguard" ? "wg-quick down \(link.name)" : "ip link del \(link.name)"
        return (
            "\(problem) of this host, no TUN device",
            "take another name" + (link.kind == nil ? "" : ", or remove that one ('\(removal)')")
        )
    }
}
