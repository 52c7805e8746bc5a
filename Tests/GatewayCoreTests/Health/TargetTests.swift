import ControlAPI
import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

@Suite struct TargetTests {
    /// Tunnels of one connection on virtual time, which are told of each other as the control loop tells them.
    private final class Site {
        let tunnels: [SimulatedTunnel]

        init(tunnels count: Int, answering: Set<Int>) {
            var settings = HealthSettings()
            settings.targets = [
                .echo(IPAddress(v4: 0x0a14_000a)), .tcp(IPAddress(v4: 0x0a14_000b), port: 443),
            ]
            tunnels = (0..<count).map { index in
                SimulatedTunnel(settings, phase: UInt32(index) * 0x4000_0000)
            }
            reach(by: answering)
            for tunnel in tunnels { tunnel.tell(.sessionBegun) }
        }

        var states: [TunnelState] { tunnels.map(\.state) }
        var isSilent: Bool {
            TargetReach.areSilent(tunnels.map { ($0.health.isWorking, $0.health.targetReach) }) == true
        }

        /// Targets answer by these tunnels.
        func reach(by answering: Set<Int>) {
            for (index, tunnel) in tunnels.enumerated() {
                tunnel.isAnswered = { $0.target == nil || answering.contains(index) }
            }
        }

        func run(for seconds: Double) {
            for _ in 0..<Int(seconds * 50) {
                for tunnel in tunnels { tunnel.run(for: .milliseconds(20)) }
                for index in tunnels.indices {
                    let others = tunnels.indices.filter { $0 != index }.map { tunnels[$0].health }
                    tunnels[index].tell(
                        .others(OtherTunnels(others.map { ($0.liveness == .answering, $0.targetReach) })))
                }
            }
        }

        func forgetHistory() { for tunnel in tunnels { tunnel.forgetHistory() } }
    }

    @Test("1. targets that answer by no tunnel take none down, and that is said", arguments: 1...3)
    func none(count: Int) {
        let site = Site(tunnels: count, answering: [])
        site.run(for: 30)
        #expect(site.states == Array(repeating: .up, count: count))
        #expect(site.tunnels.allSatisfy { $0.states == [.up] })
        #expect(site.isSilent)
        site.reach(by: Set(0..<count))
        site.run(for: 2)
        #expect(!site.isSilent)
    }

    @Test("2. targets that fall silent by all tunnels at once take none down", arguments: 1...3)
    func reboot(count: Int) {
        let site = Site(tunnels: count, answering: Set(0..<count))
        site.run(for: 5)
        #expect(!site.isSilent)
        for silence in [0.5, 2, 2.6, 3, 3.4, 10, 60] {
            site.forgetHistory()
            site.reach(by: [])
            site.run(for: silence)
            site.reach(by: Set(0..<count))
            site.run(for: 7)
            #expect(site.tunnels.allSatisfy { $0.transitions.isEmpty }, "after \(silence) s")
        }
    }

    @Test("3. targets that answer by other tunnels take the one down by which they do not", arguments: 2...3)
    func one(count: Int) {
        let site = Site(tunnels: count, answering: Set(0..<count))
        site.run(for: 5)
        site.forgetHistory()
        site.reach(by: Set(1..<count))
        site.run(for: 4.5)
        #expect(site.states == [.down] + Array(repeating: .up, count: count - 1))
        #expect(site.tunnels[0].health.reason == .targetUnreachable && !site.isSilent)
        site.reach(by: Set(0..<count))
        site.run(for: 5)
        #expect(site.tunnels[0].states == [.down, .up])
    }

    @Test("4. one that its targets took down carries again when nothing else does, without a wait")
    func lastResort() {
        let site = Site(tunnels: 2, answering: [1])
        site.run(for: 10)
        #expect(site.states == [.down, .up])
        site.tunnels[1].isCut = true
        site.run(for: 0.75)
        #expect(site.states == [.up, .down])
        // And is left again for one by which targets answer.
        site.tunnels[1].isCut = false
        site.run(for: 10)
        #expect(site.states == [.down, .up])
    }

    @Test("5. targets that then fall silent by the last tunnel, too, bring no other one back")
    func both() {
        let site = Site(tunnels: 2, answering: [1])
        site.run(for: 10)
        site.forgetHistory()
        site.reach(by: [])
        site.run(for: 30)
        #expect(site.states == [.down, .up] && site.isSilent)
        #expect(site.tunnels.allSatisfy { $0.transitions.isEmpty })
    }

    @Test("6. a tunnel that is cut says nothing of its targets")
    func cut() {
        let site = Site(tunnels: 1, answering: [0])
        site.run(for: 5)
        site.tunnels[0].isCut = true
        site.run(for: 10)
        #expect(site.states == [.down] && !site.isSilent)
        site.tunnels[0].isCut = false
        for _ in 0..<100 {
            site.run(for: 0.05)
            #expect(!site.isSilent)
        }
        #expect(site.states == [.up])
    }

    @Test("7. a tunnel that was cut comes back while targets answer by another one", arguments: [1.0, 3, 10])
    func mended(seconds: Double) {
        let site = Site(tunnels: 2, answering: [0, 1])
        site.run(for: 5)
        site.tunnels[0].isCut = true
        site.run(for: seconds)
        #expect(site.states == [.down, .up] && site.tunnels[0].health.reason == .probeTimeout)
        site.tunnels[0].isCut = false
        site.forgetHistory()
        site.run(for: 2.5)
        #expect(site.tunnels.map(\.states) == [[.up], []])
    }

    @Test("8. a tunnel that was cut stays down for targets that still do not answer by it")
    func mendedInPart() {
        let site = Site(tunnels: 2, answering: [0, 1])
        site.run(for: 5)
        site.tunnels[0].isCut = true
        site.run(for: 3)
        site.tunnels[0].isCut = false
        site.reach(by: [1])
        site.forgetHistory()
        site.run(for: 10)
        #expect(site.tunnels.allSatisfy { $0.states.isEmpty })
        #expect(site.tunnels[0].health.reason == .targetUnreachable)
        site.reach(by: [0, 1])
        site.run(for: 5)
        #expect(site.states == [.up, .up])
    }

    @Test("9. whatever targets do, a connection of tunnels that work has one that is used", arguments: 0..<8)
    func storm(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let site = Site(tunnels: 3, answering: [0, 1, 2])
        site.run(for: 5)
        for _ in 0..<60 {
            site.reach(by: Set((0..<3).filter { _ in Bool.random(using: &random) }))
            for _ in 0..<Int.random(in: 1...60, using: &random) {
                site.run(for: 0.1)
                #expect(site.tunnels.contains { $0.health.liveness == .answering })
            }
        }
    }

    @Test(
        "10. a port tells by which tunnel a TCP target was asked, and for what",
        arguments: [1, 2, 3, 16, 600])
    func ports(tunnels: Int) {
        let ports = ProbePorts(61_000...61_999, tunnels: tunnels)
        var seen: Set<UInt16> = []
        for tunnel in 0..<min(tunnels, 500) {
            for use in [ProbePorts.Use.health, .drill] {
                for port in ports.ports(of: tunnel, for: use) {
                    #expect((61_000...61_999).contains(port) && seen.insert(port).inserted)
                    let owner = ports.owner(of: port)
                    #expect(owner?.tunnel == tunnel && owner?.use == use)
                }
            }
        }
        #expect(ports.owner(of: 60_999) == nil && ports.owner(of: 62_000) == nil)
    }
}
