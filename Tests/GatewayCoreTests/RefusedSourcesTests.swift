import Testing
import WireGuard

@testable import GatewayCore

@Suite struct RefusedSourcesTests {
    private let now = Instant(nanoseconds: 1_000_000_000)
    private let peer = PeerID(3)

    private func address(_ text: String) -> IPAddress { IPAddress(text)! }

    /// An IPv4 header alone, of a packet of TCP.
    private func packet(from source: String, to destination: String) -> [UInt8] {
        [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0] + address(source).bytes + address(destination).bytes
            + [UInt8](repeating: 0, count: 20)
    }

    private func probe(from source: String, to destination: String) -> [UInt8] {
        return ProbePacket.echo(
            from: address(source), to: address(destination), secret: FixedEntropy.secret(1), peer: peer,
            sequence: 1)!
    }

    @Test(
        "the case of a refused source is told by its packet and by what is configured",
        arguments: [
            (true, "169.254.1.1", "swap local and remote of inside"),
            (false, "169.254.1.1", "swap local and remote of inside"),
            (
                true, "169.254.9.1",
                "the far end probes from 169.254.9.1 to 169.254.1.1, and inside here has 169.254.1.2"
            ),
            (false, "10.9.0.1", "no route of connection vpc has 10.9.0.1"),
            (false, "10.30.0.1", "here 10.30.0.1 is behind connection other, not vpc"),
            (true, "fd00:9::1", "the far end probes from fd00:9::1"),
        ] as [(Bool, String, String)])
    func words(_ isProbe: Bool, _ source: String, _ expected: String) throws {
        let destination = source.contains(":") ? "fd00::1" : "169.254.1.1"
        var sources = RefusedSources()
        let packet = isProbe ? probe(from: source, to: destination) : packet(from: source, to: destination)
        sources.note(packet, length: packet.count, by: peer, now: now)
        let entry = try #require(sources.all.first)
        #expect(entry.isProbe == isProbe && entry.address == address(source) && entry.count == 1)
        let text = entry.words(
            tunnel: "vpc-a", connection: "vpc",
            inside: InsideLink(local: address("169.254.1.1"), remote: address("169.254.1.2")),
            owners: source == "10.30.0.1" ? ["other"] : [])
        #expect(text.hasPrefix("tunnel vpc-a: ") && text.contains(expected), "\(text)")
    }

    @Test("without an inside link here, the one to write is given")
    func noInside() throws {
        var sources = RefusedSources()
        let packet = probe(from: "169.254.1.2", to: "169.254.1.1")
        sources.note(packet, length: packet.count, by: peer, now: now)
        let text = try #require(sources.all.first).words(
            tunnel: "a", connection: "vpc", inside: nil, owners: [])
        #expect(text.hasSuffix("inside = { local = \"169.254.1.1\", remote = \"169.254.1.2\" }"), "\(text)")
    }

    @Test("a flood of sources keeps the newest, and half a packet is none")
    func few() {
        var sources = RefusedSources()
        for number in 0..<100 {
            let packet = packet(from: "10.9.0.\(number)", to: "10.1.0.1")
            sources.note(packet, length: packet.count, by: peer, now: now)
            sources.note(Array(packet[..<19]), length: packet.count, by: peer, now: now)
        }
        #expect(sources.all.count == 16 && sources.all.last?.address == address("10.9.0.99"))
        sources.note([], length: 0, by: peer, now: now)
        sources.forget(peer)
        #expect(sources.all.isEmpty)
    }
}
