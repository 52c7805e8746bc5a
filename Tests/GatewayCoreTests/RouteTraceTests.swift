import Testing
import WireGuard

@testable import GatewayCore

@Suite struct RouteExplanationTests {
    private let destination = IPAddress("10.20.1.1")!
    private let endpoint = Endpoint(address: IPAddress("203.0.113.1")!, port: 51820)

    private func connection(
        _ name: String, _ prefix: String, metric: UInt32 = 0, _ health: PrefixChoice.Health = .settled,
        onDown: ConnectionSpec.OnDown = .unreachable, reason: String? = nil, isBalanced: Bool = false,
        tunnels: [RouteTrace.Tunnel]? = nil
    ) -> RouteTrace.Connection {
        RouteTrace.Connection(
            name: name,
            candidate: PrefixChoice.Candidate(
                [PrefixChoice.Claim(IPPrefix(prefix)!, metric: metric)], health: health, onDown: onDown),
            reason: reason, isBalanced: isBalanced,
            tunnels: tunnels ?? [
                RouteTrace.Tunnel(name: "\(name)-a", state: "up", isActive: true, endpoint: endpoint)
            ])
    }

    private func explain(
        _ connections: [RouteTrace.Connection], kernel: RouteTrace.Way? = .tun,
        way: RouteTrace.Way? = .link(
            name: "eth1", gateway: IPAddress("192.0.2.254")!, source: IPAddress("192.0.2.1")!),
        packet: RouteTrace.Packet? = nil, match: String? = nil, leftOut: String? = nil
    ) -> RouteTrace {
        RouteTrace(
            of: packet ?? RouteTrace.Packet(to: destination), connections: connections, interface: "vgw0",
            kernel: kernel, match: match, leftOut: leftOut, way: { _, _ in way })
    }

    @Test("a live connection: prefix, tunnel, endpoint, interface and source")
    func live() {
        let result = explain([
            connection("backup", "10.20.0.0/16", metric: 20), connection("aws", "10.20.0.0/16", metric: 10),
            connection("other", "10.30.0.0/16"),
        ])
        #expect(
            result.verdict
                == .tunnel(
                    connection: "aws", tunnel: "aws-a", endpoint: endpoint, interface: "eth1",
                    source: IPAddress("192.0.2.1")!))
        #expect(
            result.steps == [
                "The kernel sends 10.20.1.1 into vgw0.",
                "10.20.0.0/16 of aws, metric 10: taken, the longest prefix, then the least metric.",
                "10.20.0.0/16 of backup, metric 20: would be next.",
                "Tunnel aws-a is up, in use.",
                "Outer packets of aws-a go to 203.0.113.1:51820 by eth1 via 192.0.2.254 from 192.0.2.1.",
            ])
        #expect(result.prefix == IPPrefix("10.20.0.0/16")!)
    }

    @Test("the packet that was asked for, the route and the rule that took it, and what is left out")
    func matched() {
        let result = explain(
            [connection("aws", "10.20.0.0/16")],
            kernel: .link(name: "eth0", gateway: IPAddress("192.0.2.9")!, source: nil),
            packet: RouteTrace.Packet(to: destination, from: IPAddress("192.168.10.5")!, by: "eth2"),
            match: "That is 10.20.0.0/17 in table main.", leftOut: "10.20.1.0/24 is left out: why")
        #expect(
            result.steps.prefix(4) == [
                "The packet is one from 192.168.10.5 that comes by eth2.",
                "The kernel sends 10.20.1.1 by eth0 via 192.0.2.9, not into vgw0.",
                "That is 10.20.0.0/17 in table main.",
                "10.20.1.0/24 is left out: why.",
            ])
    }

    @Test("a dead longer one is passed over, with its reason")
    func fallsThrough() {
        let result = explain([
            connection("wide", "10.0.0.0/8"),
            connection("aws", "10.20.0.0/16", .dead, reason: "probes are not answered"),
        ])
        guard case .tunnel("wide", "wide-a", _, _, _) = result.verdict else {
            Issue.record("\(result.verdict)")
            return
        }
        #expect(
            result.steps[1]
                == "10.20.0.0/16 of aws, metric 0: passed over, as it is not usable: probes are not answered."
        )
        #expect(result.steps[2] == "10.0.0.0/8 of wide, metric 0: taken, the next that is usable.")
    }

    @Test("what the kernel does not send into the TUN is unreachable, or goes elsewhere, and why")
    func notOurs() {
        let down = connection("aws", "10.20.0.0/16", .dead, reason: "no reply to handshake")
        let closed = explain([down], kernel: .nowhere("No route to host"))
        #expect(closed.verdict == .unreachable)
        #expect(closed.steps.last?.contains("on-down = \"unreachable\"") == true)
        #expect(closed.steps[1] == "10.20.0.0/16 of aws, metric 0: not usable: no reply to handshake.")
        let eth0 = RouteTrace.Way.link(name: "eth0", gateway: nil, source: nil)
        let withdrawn = explain(
            [connection("aws", "10.20.0.0/16", .dead, onDown: .withdraw)], kernel: eth0)
        #expect(withdrawn.verdict == .elsewhere(interface: "eth0"))
        #expect(withdrawn.steps.last?.contains("on-down = \"withdraw\"") == true)
        let foreign = explain([connection("aws", "10.20.0.0/16")], kernel: eth0)
        #expect(foreign.steps.last?.contains("somebody else's route") == true)
        let unknown = explain([connection("aws", "10.30.0.0/16")], kernel: eth0)
        #expect(unknown.steps.last == "No connection has a prefix with 10.20.1.1.")
        #expect(unknown.prefix == nil)
    }

    @Test("in the TUN, but for nobody; no tunnel in use; no endpoint; no way; a loop")
    func dropped() {
        func isDropped(_ result: RouteTrace, _ word: String) -> Bool {
            if case .dropped(let reason) = result.verdict { reason.contains(word) } else { false }
        }
        #expect(isDropped(explain([]), "no connection"))
        #expect(isDropped(explain([connection("aws", "10.20.0.0/16", .dead, tunnels: [])]), "no tunnel"))
        let nameless = RouteTrace.Tunnel(name: "a", state: "down", isActive: true, endpoint: nil)
        #expect(
            isDropped(explain([connection("aws", "10.20.0.0/16", tunnels: [nameless])]), "is not known"))
        let aws = connection("aws", "10.20.0.0/16")
        #expect(isDropped(explain([aws], way: .nowhere("Network is unreachable")), "no way"))
        #expect(isDropped(explain([aws], way: .tun), "into itself"))
    }

    @Test("a balanced connection spreads over its tunnels in use, and takes the one when one is left")
    func balanced() {
        let tunnels = ["a", "b", "c"].map {
            RouteTrace.Tunnel(name: $0, state: "up", isActive: $0 != "b", endpoint: endpoint)
        }
        let result = explain([connection("aws", "10.20.0.0/16", isBalanced: true, tunnels: tunnels)])
        #expect(result.verdict == .spread(connection: "aws", tunnels: ["a", "c"]))
        let one = explain([
            connection("aws", "10.20.0.0/16", isBalanced: true, tunnels: Array(tunnels.prefix(2)))
        ])
        guard case .tunnel("aws", "a", _, _, _) = one.verdict else {
            Issue.record("\(one.verdict)")
            return
        }
    }
}
