import ControlAPI
import Testing
import WireGuard

@testable import GatewayCore

/// What handshakes, traffic and what is around a tunnel make of its state.
@Suite struct TunnelHealthTests {
    private func unprobed() -> SimulatedTunnel { SimulatedTunnel(canProbe: false) }

    // MARK: Without probes

    @Test("1. idle until somebody wants it, connecting while it tries, up with the handshake")
    func unprobedLife() {
        let tunnel = unprobed()
        #expect(tunnel.state == .idle && tunnel.health.reason == .started)
        tunnel.tell(.handshakeStarted)
        #expect(tunnel.state == .connecting)
        tunnel.tell(.sessionBegun)
        #expect(tunnel.state == .up && tunnel.health.reason == .handshakeCompleted)
        tunnel.run(for: .seconds(180))
        tunnel.tell(.sessionEnded)
        #expect(tunnel.state == .idle && tunnel.health.reason == .sessionExpired)
        #expect(tunnel.states == [.connecting, .up, .idle])
        #expect(tunnel.wakeUps == 0)
    }

    @Test("2. down when the first retry is due, with the reason, and up when the far end is back")
    func unprobedNoReply() {
        let tunnel = unprobed()
        tunnel.tell(.handshakeStarted)
        tunnel.run(for: .seconds(5))
        tunnel.tell(.handshakeUnanswered(.noReplyToHandshake))
        #expect(tunnel.state == .down && tunnel.health.reason == .noReplyToHandshake)
        #expect(tunnel.health.hasFailed)
        tunnel.run(for: .seconds(85))
        #expect(tunnel.state == .down)
        tunnel.tell(.sessionBegun)
        #expect(tunnel.state == .up && !tunnel.health.hasFailed)
    }

    @Test("3. while the session is heard, handshakes may fail; 15 s of silence then take it down")
    func unprobedSilence() {
        let tunnel = unprobed()
        tunnel.tell(.sessionBegun)
        tunnel.run(for: .seconds(60))
        tunnel.tell(.heard(at: tunnel.now))
        tunnel.run(for: .seconds(60))
        #expect(tunnel.state == .up, "silence alone is no fault")
        tunnel.tell(.heard(at: tunnel.now))
        let heard = tunnel.now
        tunnel.run(for: .seconds(5))
        tunnel.tell(.handshakeUnanswered(.noReplyToHandshake))
        #expect(tunnel.state == .up)
        tunnel.run(for: .seconds(30))
        #expect(tunnel.transitions.last?.at == heard + .seconds(15))
        #expect(tunnel.state == .down && tunnel.health.reason == .noReplyToHandshake)
        #expect(tunnel.health.nextTimeout == nil)
        tunnel.tell(.heard(at: tunnel.now))
        #expect(tunnel.state == .up && tunnel.health.reason == .trafficHeard)
        tunnel.run(for: .seconds(15))
        #expect(tunnel.state == .down)
        tunnel.tell(.sessionBegun)
        #expect(tunnel.state == .up)
    }

    @Test("4. an attempt that fails long after the far end was heard takes it down at once")
    func unprobedDead() {
        let tunnel = unprobed()
        tunnel.tell(.sessionBegun)
        tunnel.run(for: .seconds(20))
        tunnel.tell(.handshakeUnanswered(.noReplyToHandshake))
        #expect(tunnel.state == .down)
        tunnel.tell(.sessionEnded)
        #expect(tunnel.state == .down, "no session is no better")
    }

    // MARK: With probes

    @Test("5. a probed tunnel connects from the start, and is up by its probes, not by its handshake")
    func probedLife() {
        let tunnel = SimulatedTunnel()
        #expect(tunnel.state == .connecting && tunnel.health.reason == .started)
        tunnel.tell(.sessionBegun)
        #expect(tunnel.state == .connecting && tunnel.health.reason == .handshakeCompleted)
        tunnel.run(for: .seconds(2))
        #expect(tunnel.states == [.up])
        tunnel.forgetHistory()
        for _ in 0..<5 {
            tunnel.run(for: .seconds(120))
            tunnel.tell(.handshakeStarted)
            tunnel.tell(.sessionBegun)
        }
        #expect(tunnel.transitions.isEmpty, "a rekey is no event")
    }

    @Test("6. while probes are answered, a handshake may fail")
    func rekeyFails() {
        let tunnel = SimulatedTunnel.up()
        tunnel.forgetHistory()
        tunnel.tell(.handshakeStarted)
        tunnel.tell(.handshakeUnanswered(.noReplyToHandshake))
        tunnel.run(for: .seconds(60))
        #expect(tunnel.transitions.isEmpty)
        tunnel.tell(.sessionEnded)
        #expect(tunnel.state == .down && tunnel.health.reason == .noReplyToHandshake)
    }

    @Test("7. a session lost: connecting, or down still; and the next one has to be probed again")
    func sessionLost() {
        let tunnel = SimulatedTunnel.up()
        tunnel.forgetHistory()
        tunnel.tell(.sessionEnded)
        #expect(tunnel.state == .connecting && tunnel.health.reason == .sessionExpired)
        tunnel.tell(.sessionBegun)
        #expect(tunnel.state == .connecting)
        tunnel.run(for: .seconds(2))
        #expect(tunnel.states == [.connecting, .up])
        tunnel.isCut = true
        tunnel.run(for: .seconds(2))
        tunnel.tell(.sessionEnded)
        #expect(tunnel.states == [.connecting, .up, .down] && tunnel.health.reason == .sessionExpired)
        tunnel.tell(.handshakeUnanswered(.noReplyToHandshake))
        #expect(tunnel.health.reason == .noReplyToHandshake, "the newest that is known")
        tunnel.isCut = false
        tunnel.tell(.sessionBegun)
        #expect(tunnel.state == .connecting && tunnel.health.hasFailed)
        tunnel.run(for: .seconds(4))
        #expect(tunnel.state == .up)
    }

    // MARK: Reasons

    @Test(
        "9. what the far end's message was refused for is the reason, until there is a session",
        arguments: [HealthReason.mac1Wrong, .timestampNotNewer, .handshakeRefused], [true, false])
    func refused(reason: HealthReason, canProbe: Bool) {
        let tunnel = SimulatedTunnel(canProbe: canProbe)
        tunnel.tell(.handshakeUnanswered(reason))
        #expect(tunnel.state == .down && tunnel.health.reason == reason)
        tunnel.tell(.sessionBegun)
        #expect(tunnel.state == (canProbe ? .connecting : .up))
    }

    @Test("10. an endpoint without an address is down, an unknown one waits for the far end")
    func endpoints() {
        let tunnel = SimulatedTunnel()
        tunnel.tell(.endpoint(.unresolved))
        #expect(tunnel.state == .down && tunnel.health.reason == .endpointUnresolved)
        tunnel.tell(.endpoint(.known))
        #expect(tunnel.state == .connecting)
        tunnel.tell(.endpoint(.unknown))
        #expect(tunnel.state == .connecting && tunnel.health.reason == .endpointUnknown)
        tunnel.tell(.endpoint(.awaited))
        #expect(tunnel.state == .connecting && tunnel.health.reason == .endpointAwaited)
        tunnel.tell(.sessionBegun)
        tunnel.run(for: .seconds(2))
        tunnel.tell(.endpoint(.unresolved))
        #expect(tunnel.state == .up, "a session lives without a name")

        let quiet = unprobed()
        quiet.tell(.endpoint(.unknown))
        #expect(quiet.state == .idle && quiet.health.reason == .endpointUnknown)
        quiet.tell(.endpoint(.awaited))
        #expect(quiet.state == .idle && quiet.health.reason == .endpointAwaited)
        quiet.tell(.endpoint(.unresolved))
        quiet.tell(.endpoint(.known))
        #expect(quiet.state == .idle && !quiet.health.hasFailed, "or nothing would ever try it")
    }

    @Test("11. an interface that goes takes the tunnel with it at once, and it must show itself after")
    func interface() {
        let tunnel = SimulatedTunnel.up()
        tunnel.forgetHistory()
        tunnel.tell(.interface(isUp: false))
        #expect(tunnel.state == .down && tunnel.health.reason == .interfaceDown)
        tunnel.tell(.handshakeUnanswered(.noReplyToHandshake))
        #expect(tunnel.health.reason == .interfaceDown)
        tunnel.run(for: .seconds(5))
        tunnel.tell(.interface(isUp: true))
        #expect(tunnel.state == .connecting)
        tunnel.run(for: .milliseconds(1500))
        #expect(tunnel.state == .connecting, "it has flapped")
        tunnel.run(for: .seconds(1))
        #expect(tunnel.states == [.down, .connecting, .up])

        let quiet = unprobed()
        quiet.tell(.handshakeStarted)
        quiet.tell(.interface(isUp: false))
        quiet.tell(.handshakeUnanswered(.noReplyToHandshake))
        quiet.tell(.interface(isUp: true))
        #expect(quiet.state == .idle && !quiet.health.hasFailed)
    }

    @Test("12. an operator's word goes before everything")
    func operators() {
        let tunnel = SimulatedTunnel.up()
        tunnel.forgetHistory()
        tunnel.tell(.disabledByOperator)
        tunnel.tell(.interface(isUp: false))
        tunnel.tell(.sessionEnded)
        tunnel.tell(.handshakeUnanswered(.mac1Wrong))
        #expect(tunnel.states == [.disabled] && tunnel.health.reason == .operator)
        tunnel.tell(.interface(isUp: true))
        tunnel.tell(.enabledByOperator)
        #expect(tunnel.state == .connecting && tunnel.health.reason == .operator)
        #expect(tunnel.health.hasFailed == false)
    }

    @Test("13. every reason has a name in kebab-case and words of its own")
    func reasons() {
        for reason in HealthReason.allCases {
            #expect(reason.name.allSatisfy { $0.isLowercase || $0 == "-" || $0 == "1" })
            #expect(!reason.words.isEmpty)
        }
        #expect(Set(HealthReason.allCases.map(\.words)).count == HealthReason.allCases.count)
        #expect(HealthReason.mac1Wrong.name == "mac1-wrong")
    }

    @Test("15. a tunnel costs less than 6 KB")
    func memory() {
        var settings = HealthSettings()
        settings.targets = [.echo(IPAddress(v4: 1))]
        let tunnel = SimulatedTunnel.up(settings)
        tunnel.run(for: .seconds(100))
        let size = MemoryLayout<TunnelHealth>.size + tunnel.health.heapBytes
        #expect(size < 6144, "\(size) bytes")
        #expect(SimulatedTunnel(canProbe: false).health.heapBytes < 128)
    }
}

extension TunnelHealth {
    /// Bytes of the arrays that hang on it, by their own account.
    var heapBytes: Int {
        func bytes(_ value: Any) -> Int {
            if let array = value as? any ArrayOfElements {
                return array.allocated + array.elements.reduce(0) { $0 + bytes($1) }
            }
            return Mirror(reflecting: value).children.reduce(0) { $0 + bytes($1.value) }
        }
        return bytes(self)
    }
}

private protocol ArrayOfElements {
    var allocated: Int { get }
    var elements: [Any] { get }
}

extension Array: ArrayOfElements {
    fileprivate var allocated: Int { capacity == 0 ? 0 : 32 + capacity * MemoryLayout<Element>.stride }
    fileprivate var elements: [Any] { map { $0 } }
}
