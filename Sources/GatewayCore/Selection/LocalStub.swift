package import WireGuard

/// A name server on this host that asks others in turn, such as systemd-resolved at 127.0.0.53.
///
/// vgwd's own questions carry the firewall mark and are never led into a tunnel. Those of such a server do not: where
/// a connection carries the internet, they go into the tunnel that waits for their answer.
package enum LocalStub {
    package static let remedy =
        "write dns = [\"192.0.2.53\"] in [gateway], with the addresses of the name servers that it asks"

    /// Nil where its questions are not likely to be led into a tunnel that carries `prefixes`.
    package static func problem(prefixes: [IPPrefix]) -> String? {
        prefixes.first(where: carriesInternet).map {
            "the name server of this host (/etc/resolv.conf) is a program on it, whose own questions "
                + "\($0) leads into the tunnel"
        }
    }

    /// No site's own network is as short as that, but for the private ones.
    private static func carriesInternet(_ prefix: IPPrefix) -> Bool {
        prefix.length <= 8 && !privateNetworks.contains { $0.contains(prefix) }
    }

    /// RFC 1918 and RFC 4193, as far as they are as short as that.
    private static let privateNetworks = ["10.0.0.0/8", "fc00::/7"].compactMap { IPPrefix($0) }
}
