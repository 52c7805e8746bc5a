internal import Testing

/// The two ends. Each has its own network namespace, an address of either family on the internet's side, and
/// prefixes that only the tunnel carries.
enum Site: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case onprem
    case vpc

    var other: Site { self == .onprem ? .vpc : .onprem }
    var letter: Character { self == .onprem ? "a" : "b" }
    var testDescription: String { rawValue }

    func underlay(_ family: Family) -> String {
        switch (self, family) {
        case (.onprem, .v4): "192.0.2.10"
        case (.onprem, .v6): "2001:db8:1::10"
        case (.vpc, .v4): "198.51.100.10"
        case (.vpc, .v6): "2001:db8:2::10"
        }
    }

    /// A second address of the same link, for what a host with two addresses does.
    func secondUnderlay(_ family: Family) -> String { underlay(family) + (family == .v4 ? "0" : "0") }

    /// The internet's address on this side: the site's default gateway.
    func router(_ family: Family) -> String {
        switch (self, family) {
        case (.onprem, .v4): "192.0.2.1"
        case (.onprem, .v6): "2001:db8:1::1"
        case (.vpc, .v4): "198.51.100.1"
        case (.vpc, .v6): "2001:db8:2::1"
        }
    }

    /// The gateway's own address inside the tunnel.
    func inside(_ family: Family) -> String {
        switch (self, family) {
        case (.onprem, .v4): "10.10.0.1"
        case (.onprem, .v6): "fd10::1"
        case (.vpc, .v4): "10.20.0.1"
        case (.vpc, .v6): "fd20::1"
        }
    }

    /// What is behind this site.
    var prefixes: [String] {
        self == .onprem ? ["10.10.0.0/16", "fd10::/48"] : ["10.20.0.0/16", "fd20::/48"]
    }
}

enum Family: Int, CaseIterable, Sendable, CustomTestStringConvertible {
    case v4 = 4
    case v6 = 6

    var testDescription: String { "IPv\(rawValue)" }
    /// For `ping` and `ip`.
    var option: String { "-\(rawValue)" }
    var hostPrefix: Int { self == .v4 ? 32 : 128 }
    var linkPrefix: Int { self == .v4 ? 24 : 64 }
    /// IP header and the ICMP header of an echo.
    var echoOverhead: Int { self == .v4 ? 28 : 48 }

    func endpoint(_ address: String, _ port: Int) -> String {
        self == .v4 ? "\(address):\(port)" : "[\(address)]:\(port)"
    }
}
