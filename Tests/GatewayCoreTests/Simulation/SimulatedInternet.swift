import ControlAPI
import TestSupport
import WireGuard

@testable import GatewayCore

/// Two gateways, `near` and `far`, with a connection of several tunnels between them, each by a wire of its own, on virtual
/// time. The same seed gives the same run.
final class SimulatedInternet {
    /// What a wire does to datagrams in one direction.
    struct Way {
        var isCut = false
        /// 0 to 1.
        var loss = 0.0
        var duplicates = 0.0
        var delay: Duration = .milliseconds(1)
        /// At most that much is added to the delay: past a millisecond datagrams overtake each other.
        var jitter: Duration = .zero
    }

    private struct Flight {
        let at: Instant
        let serial: Int
        let bytes: [UInt8]
        let wire: Int
        let from: Endpoint
        let isToFar: Bool
    }

    let near: SimulatedGateway
    let far: SimulatedGateway
    private(set) var now = Instant(nanoseconds: 1_000_000_000_000)
    /// By wire, and then to `far` and back.
    var ways: [[Way]]
    private var random: SplitMix
    private var flights: [Flight] = []
    private var serial = 0
    /// Each message's keypair and counter: what comes twice is a nonce that was used twice.
    private var nonces: Set<[UInt8]> = []
    private(set) var reusedNonces = 0
    /// Rounds without any time passing: a deadline that does not advance.
    private(set) var longestStandstill = 0

    static let names = ["a", "b", "c"]

    init(
        wires: Int = 2, seed: UInt64 = 1, health: HealthSettings = HealthSettings(),
        edit: (inout ConnectionSpec) -> Void = { _ in }
    ) {
        random = SplitMix(seed: seed)
        near = SimulatedGateway(number: 1, seed: seed &* 2 &+ 1)
        far = SimulatedGateway(number: 2, seed: seed &* 2 &+ 2)
        ways = Array(repeating: [Way(), Way()], count: wires)
        for (own, other) in [(near, far), (far, near)] {
            // Each tunnel has keys of its own at the far end's side: one peer a tunnel.
            var connection = ConnectionSpec(
                name: own === near ? "vpc" : "onprem", routes: [other.site], health: health,
                tunnels: (0..<wires).map { wire in
                    TunnelSpec(
                        name: Self.names[wire], publicKey: Self.key(of: other, wire, seed).publicKey,
                        privateKey: Self.key(of: own, wire, seed),
                        endpoints: [.address(other.address(by: wire))],
                        binding: SimulatedGateway.binding(wire),
                        inside: InsideLink(local: own.inside(of: wire), remote: other.inside(of: wire)),
                        priority: 10 * (wire + 1))
                })
            edit(&connection)
            let spec = GatewaySpec(
                privateKey: own.privateKey, listenPort: 51820, firewallMark: 51820, connections: [connection])
            own.start(
                spec, underlays: (0..<wires).map { UnderlayState(SimulatedGateway.binding($0)) }, now: now)
        }
        settle()
    }

    private static func key(of gateway: SimulatedGateway, _ wire: Int, _ seed: UInt64) -> PrivateKey {
        var entropy = SplitMix(seed: seed &* 1000 &+ UInt64(gateway.number * 10 + wire))
        return PrivateKey.generate(from: &entropy)
    }

    // MARK: Time

    func run(for duration: Duration) { run(until: now + duration) }

    func run(until end: Instant) {
        var standstill = 0
        while let next = [near.nextTimeout, far.nextTimeout, flights.first?.at].compactMap({ $0 }).min(),
            next <= end
        {
            standstill = next > now ? 0 : standstill + 1
            longestStandstill = max(longestStandstill, standstill)
            guard standstill < 10_000 else { return }
            now = max(now, next)
            if let flight = flights.first, flight.at <= now {
                flights.removeFirst()
                (flight.isToFar ? far : near).receive(
                    flight.bytes, by: flight.wire, from: flight.from, now: now)
            } else {
                for gateway in [near, far] { gateway.tell { $0.handleTimeout(now: now) } }
            }
            settle()
        }
        now = end
    }

    /// What an operator, the host or a test does to a gateway.
    func tell<Failure: Error>(
        _ gateway: SimulatedGateway, _ body: (inout Gateway, Instant) throws(Failure) -> Void
    ) throws(Failure) {
        let now = now
        try gateway.tell { (core: inout Gateway) throws(Failure) in try body(&core, now) }
        settle()
    }

    func restart(_ gateway: SimulatedGateway) {
        gateway.restart(now: now)
        settle()
    }

    private func settle() {
        for gateway in [near, far] {
            for sent in gateway.settle(now: now) { fly(sent, isToFar: gateway === near) }
        }
    }

    private func fly(_ sent: SimulatedGateway.Sent, isToFar: Bool) {
        if MessageType(of: sent.bytes) == .transport,
            !nonces.insert(Array(sent.bytes[4..<16]) + [isToFar ? 1 : 0]).inserted
        {
            reusedNonces += 1
        }
        let target = isToFar ? far : near
        guard let wire = ways.indices.first(where: { target.address(by: $0) == sent.to }) else { return }
        let way = ways[wire][isToFar ? 0 : 1]
        guard !way.isCut, Double.random(in: 0..<1, using: &random) >= way.loss else { return }
        let copies = Double.random(in: 0..<1, using: &random) < way.duplicates ? 2 : 1
        for _ in 0..<copies {
            let jitter =
                way.jitter == .zero ? 0 : Int64.random(in: 0...way.jitter.wholeNanoseconds, using: &random)
            serial += 1
            let flight = Flight(
                at: now + way.delay + .nanoseconds(jitter), serial: serial, bytes: sent.bytes, wire: wire,
                from: sent.from, isToFar: isToFar)
            let index =
                flights.firstIndex { ($0.at, $0.serial) > (flight.at, flight.serial) } ?? flights.count
            flights.insert(flight, at: index)
        }
    }

    // MARK: Faults

    /// Both ways, or one of them.
    func cut(_ wire: Int, toFar: Bool? = nil, _ isCut: Bool = true) {
        if toFar != false { ways[wire][0].isCut = isCut }
        if toFar != true { ways[wire][1].isCut = isCut }
    }

    func mend() {
        for wire in ways.indices { ways[wire] = [Way(), Way()] }
    }

    // MARK: Looking

    /// Sends a packet from the host behind one gateway to that behind the other. Returns true if it arrives at once.
    func passes(from gateway: SimulatedGateway) -> Bool {
        let other = gateway === near ? far : near
        let before = other.delivered.count
        let packet = Self.packet(from: gateway.host, to: other.host)
        gateway.send([packet], now: now)
        settle()
        run(for: .milliseconds(50))
        return other.delivered.dropFirst(before).contains(packet)
    }

    /// A UDP packet of 28 bytes without a checksum of its own.
    private static func packet(from source: IPAddress, to destination: IPAddress) -> [UInt8] {
        var packet: [UInt8] =
            [0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0] + source.bytes + destination.bytes
        packet += [0x30, 0x39, 0x30, 0x39, 0, 8, 0, 0]
        var sum = stride(from: 0, to: 20, by: 2).reduce(UInt32(0)) {
            $0 + UInt32(packet[$1]) << 8 + UInt32(packet[$1 + 1])
        }
        while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
        packet[10] = UInt8(truncatingIfNeeded: ~sum >> 8)
        packet[11] = UInt8(truncatingIfNeeded: ~sum)
        return packet
    }
}
