internal import GatewayCore
import LinuxIO
import Testing
import WireGuard

@testable import Daemon

/// What this host itself sends to a far site from.
@Suite struct PreferredSourceTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let what: String
        /// `INTERFACE ADDRESS`, then `down` or `peer`.
        let networks: [String]
        var outer: Set<String> = ["wan"]
        var carried: [String] = []
        var nat: [String] = []
        let guesses: [String]
        var testDescription: String { what }
    }

    static let cases = [
        Case(
            what: "a router", networks: ["wan 203.0.113.2/24", "lan 192.168.10.1/24"],
            guesses: ["192.168.10.1"]),
        Case(what: "an underlay with private addresses", networks: ["wan 10.20.0.5/16"], guesses: []),
        Case(
            what: "a router behind another one's NAT",
            networks: ["wan 192.168.1.2/24", "lan 192.168.10.1/24"],
            guesses: ["192.168.10.1"]),
        Case(
            what: "both families", networks: ["lan 10.1.0.1/16", "lan fd01::1/64"],
            guesses: ["10.1.0.1", "fd01::1"]),
        Case(what: "two networks", networks: ["lan 10.1.0.1/16", "dmz 10.2.0.1/16"], guesses: []),
        Case(
            what: "two of which one is down", networks: ["lan 10.1.0.1/16", "dmz 10.2.0.1/16 down"],
            guesses: ["10.1.0.1"]),
        Case(what: "public addresses", networks: ["wan 203.0.113.2/24", "dmz 198.51.100.1/24"], guesses: []),
        Case(what: "another VPN", networks: ["wg0 10.8.0.1/24 peer", "wan 203.0.113.2/24"], guesses: []),
        Case(
            what: "containers", networks: ["docker0 172.17.0.1/16", "br-0123456789ab 172.18.0.1/16"],
            guesses: []),
        Case(
            what: "a network that a tunnel carries", networks: ["lan 10.1.0.1/16"], carried: ["10.1.0.0/16"],
            guesses: []),
        Case(
            what: "a part of one that a tunnel carries", networks: ["lan 10.1.0.1/16"],
            carried: ["10.1.0.0/24"],
            guesses: []),
        Case(
            what: "a network inside one that a tunnel carries", networks: ["lan 10.1.0.1/16"],
            carried: ["10.0.0.0/8"],
            guesses: ["10.1.0.1"]),
        Case(
            what: "one that has a number at the far site", networks: ["lan 10.1.0.1/16", "dmz 10.2.0.1/16"],
            nat: ["10.2.0.0/16"], guesses: ["10.2.0.1"]),
    ]

    @Test(arguments: cases)
    func `the one local network behind the gateway is guessed, and in doubt none`(_ example: Case) throws {
        let networks = try example.networks.map { text in
            let words = text.split(separator: " ").map(String.init)
            return LocalNetwork(
                interface: words[0], network: try #require(IPPrefix(words[1])), isInUse: words.last != "down",
                isPointToPoint: words.last == "peer")
        }
        let translations = try example.nat.map {
            PrefixTranslationSpec(
                inside: try #require(IPPrefix($0)), outside: try #require(IPPrefix("10.99.0.0/16")))
        }
        let carried = Set(example.carried.compactMap { IPPrefix($0) })
        let guesses = PreferredSource.guesses(
            from: networks, outerInterfaces: example.outer, translations: translations,
            carried: carried.contains)
        #expect(guesses.map(\.address.description) == example.guesses)
    }

    private static func load(_ line: String, _ networks: [LocalNetwork]) throws -> GatewayConfiguration {
        var surroundings = Surroundings()
        surroundings.networks = networks
        surroundings.addresses = networks.map(\.address)
        return try GatewayConfiguration.parse(
            ConfigurationExamples.text(routes: "routes = [\"10.20.0.0/16\"]\n" + line),
            path: "/etc/vgwd/vgwd.toml",
            files: ConfigurationExamples.files, surroundings: surroundings)
    }

    private static let lan = LocalNetwork(interface: "lan", network: IPPrefix("192.168.10.1/24")!)

    @Test func `check shows what is sent from, and warns of a source that is no address of this host`() throws
    {
        let guessed = try Self.load("", [Self.lan])
        #expect(
            guessed.summary().contains(
                "  source            192.168.10.1, of lan, for what this gateway sends itself"))
        let written = try Self.load("source = \"192.168.10.9\"", [Self.lan])
        #expect(
            written.summary().contains("  source            192.168.10.9, for what this gateway sends itself")
        )
        #expect(written.warnings.map(\.problem) == ["192.168.10.9 is no address of this host now"])
        #expect(try Self.load("", []).summary().contains("  source            the inside address"))
        // A source of a family that has no route.
        let other = LocalNetwork(interface: "lan", network: IPPrefix("fd01::1/64")!)
        #expect(try Self.load("", [other]).summary().contains("  source            the inside address"))
    }

    @Test(arguments: [
        ("source = \"everything\"", "is no address of a host"),
        ("source = [\"10.0.0.1\", \"10.0.0.2\"]", "second source of one family"),
    ])
    func `a source that cannot be one is refused`(_ line: String, _ problem: String) throws {
        let error = #expect(throws: ConfigurationErrors.self) { try Self.load(line, []) }
        #expect(error?.description.contains(problem) ?? false)
    }
}
