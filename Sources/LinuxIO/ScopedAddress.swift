internal import Glibc
package import WireGuard

/// A link-local IPv6 address with the name of its interface, as `ip` and `wg` write it: `fe80::1%eth0` (RFC 4007,
/// section 11). With an index in place of the name it is an `Endpoint`'s.
package struct ScopedAddress: Hashable, Sendable, CustomStringConvertible {
    package let address: IPAddress
    package let interface: String

    /// How long an index is believed: the interface may be made anew.
    private static let timeToLive: Duration = .seconds(30)

    /// Nil for anything else, also for an interface by its index.
    package init?(_ text: String) {
        let parts = text.split(separator: "%", omittingEmptySubsequences: false)
        // At most 15 bytes, as `dev_valid_name` of Linux has it.
        guard parts.count == 2, let address = IPAddress(String(parts[0])), address.family == .v6,
            address.isLinkLocal, (1...15).contains(parts[1].utf8.count),
            parts[1].utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != 0x2f && $0 != 0x3a && $0 != 0x5d }),
            !parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) })
        else { return nil }
        self.address = address
        interface = String(parts[1])
    }

    package var description: String { "\(address)%\(interface)" }

    /// The index that the interface has now; nil while there is none of that name.
    package var scope: UInt32? {
        let index = unsafe if_nametoindex(interface)
        return index == 0 ? nil : index
    }

    /// As an answer of the resolver.
    func resolved() -> Result<[NameResolver.Address], NameResolver.Problem> {
        guard let scope else {
            return .failure(NameResolver.Problem(description, "there is no interface \(interface) now"))
        }
        return .success([NameResolver.Address(address, scope: scope, timeToLive: Self.timeToLive)])
    }
}
