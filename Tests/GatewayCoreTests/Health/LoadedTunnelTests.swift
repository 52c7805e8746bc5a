import ControlAPI
import Testing
import WireGuard

@testable import GatewayCore

/// What is heard says whether a tunnel is down: probes alone would take a deep queue for a cut.
@Suite struct LoadedTunnelTests {
    /// What an upload through a deep queue brings back.
    enum Load: String, CaseIterable, Sendable {
        /// Acknowledgements.
        case tcp
        /// Nothing but answers to probes.
        case udp
        /// Nothing but answers, and the probes of the vgwd at the far end.
        case udpToVgwd

        func apply(to tunnel: SimulatedTunnel) {
            tunnel.isUploading = true
            if self == .tcp { tunnel.dataInterval = .milliseconds(10) }
            if self == .udpToVgwd { tunnel.wordInterval = .milliseconds(200) }
        }
    }

    /// Fills a queue of 2500 ms at three times its rate: each second adds two.
    private func fill(_ tunnel: SimulatedTunnel) {
        for step in 0...125 {
            tunnel.roundTrip = .milliseconds(step * 20)
            tunnel.run(for: .milliseconds(10))
        }
    }

    @Test(
        "1. a loaded uplink is not taken for a dead one: 2500 ms of queue, with other tunnels or without",
        arguments: Load.allCases, [false, true])
    func loaded(load: Load, hasAlternative: Bool) {
        for phase in 0..<20 {
            let tunnel = SimulatedTunnel.up(HealthSettings(), phase: UInt32(phase) * (UInt32.max / 20))
            tunnel.tell(.alternative(hasAlternative))
            tunnel.forgetHistory()
            for _ in 0..<3 {
                load.apply(to: tunnel)
                fill(tunnel)
                // The queue drops two of three.
                tunnel.isAnswered = { $0.sequence % 3 == 0 }
                tunnel.run(for: .seconds(20))
                tunnel.isAnswered = { _ in true }
                tunnel.dataInterval = nil
                tunnel.roundTrip = .milliseconds(1)
                tunnel.run(for: .seconds(10))
            }
            #expect(tunnel.transitions.isEmpty, "\(tunnel.states)")
            #expect(tunnel.health.liveness == .answering)
        }
    }

    @Test(
        "2. a cut under load is found within 0.7 s where there is another tunnel, and within 5 s where there is none",
        arguments: Load.allCases, [false, true])
    func cut(load: Load, hasAlternative: Bool) {
        var longest = Duration.zero
        for step in 0..<50 {
            let tunnel = SimulatedTunnel.up(HealthSettings(), phase: UInt32(step) * (UInt32.max / 50))
            load.apply(to: tunnel)
            fill(tunnel)
            tunnel.run(for: .milliseconds(5000 + step * 17))
            tunnel.tell(.alternative(hasAlternative))
            tunnel.forgetHistory()
            tunnel.isCut = true
            let cut = tunnel.now
            tunnel.run(for: .seconds(8))
            #expect(tunnel.states == [.down] && tunnel.health.reason == .probeTimeout)
            #expect(tunnel.health.liveness == .silent)
            if let down = tunnel.transitions.first { longest = max(longest, down.at - cut) }
        }
        #expect(longest <= (hasAlternative ? .milliseconds(700) : .seconds(5)), "\(longest)")
    }

    @Test(
        "3. what is lost one way is found though the far end is heard: by its word in time, without in 5 s",
        arguments: [false, true], [false, true])
    func oneWay(isVgwd: Bool, isLoaded: Bool) {
        var longest = Duration.zero
        for step in 0..<50 {
            let tunnel = SimulatedTunnel.up(HealthSettings(), phase: UInt32(step) * (UInt32.max / 50))
            tunnel.dataInterval = .milliseconds(10)
            if isVgwd { tunnel.wordInterval = .milliseconds(200) }
            if isLoaded {
                tunnel.isUploading = true
                fill(tunnel)
            }
            tunnel.run(for: .milliseconds(5000 + step * 17))
            tunnel.forgetHistory()
            tunnel.isCutOut = true
            let cut = tunnel.now
            tunnel.run(for: .seconds(8))
            #expect(tunnel.states == [.down] && tunnel.health.reason == .probeTimeout)
            #expect(tunnel.health.liveness == .heard)
            if let down = tunnel.transitions.first { longest = max(longest, down.at - cut) }
            tunnel.isCutOut = false
            tunnel.roundTrip = .milliseconds(1)
            tunnel.run(for: .milliseconds(250))
            #expect(tunnel.health.liveness == .answering)
        }
        #expect(longest <= (isVgwd ? .milliseconds(700) : .seconds(5)), "\(longest)")
    }

    @Test(
        "3b. the far end's word takes a tunnel down after as many probes as are set", arguments: [1, 3, 100])
    func depth(downAfter: Int) {
        var settings = HealthSettings()
        settings.downAfter = downAfter
        let tunnel = SimulatedTunnel.up(settings)
        tunnel.dataInterval = .milliseconds(20)
        tunnel.wordInterval = .milliseconds(200)
        tunnel.run(for: .seconds(5))
        tunnel.forgetHistory()
        tunnel.isCutOut = true
        let cut = tunnel.now
        tunnel.run(for: settings.interval * (downAfter + 5))
        let down = tunnel.transitions.first.map { $0.at - cut }
        let expected = settings.interval * (downAfter - 1) + .milliseconds(50)
        #expect(tunnel.states == [.down])
        let bounds = expected...expected + settings.interval * 2
        #expect(down.map { bounds.contains($0) } == true, "\(down as Any)")
    }

    @Test("3c. probes leave more often only where answers are slow and all that is heard")
    func hurry() {
        func probes(_ load: Load?, jitter: Duration = .zero) -> Int {
            let tunnel = SimulatedTunnel.up()
            tunnel.roundTrip = .milliseconds(30)
            tunnel.run(for: .seconds(60))
            if let load {
                load.apply(to: tunnel)
                fill(tunnel)
                tunnel.isAnswered = { $0.sequence % 3 == 0 }
            }
            tunnel.run(for: .seconds(4))
            tunnel.forgetHistory()
            for step in 0..<50 {
                if load == nil { tunnel.roundTrip = .milliseconds(30) + jitter * (step % 3) }
                tunnel.run(for: .milliseconds(200))
            }
            return tunnel.probes.count
        }
        #expect(probes(nil) == 50)
        #expect(probes(.tcp) < 60)
        #expect(probes(.udpToVgwd) == 50)
        #expect(probes(nil, jitter: .milliseconds(20)) < 100)
        #expect(probes(.udp) == 400)
    }

    @Test("4. a far end that probes seldom, and says seldom what it hears, takes nobody down")
    func rareWord() {
        for phase in 0..<20 {
            let tunnel = SimulatedTunnel.up(HealthSettings(), phase: UInt32(phase) * (UInt32.max / 20))
            tunnel.wordInterval = .seconds(7)
            tunnel.dataInterval = .milliseconds(50)
            tunnel.isUploading = true
            tunnel.tell(.alternative(true))
            fill(tunnel)
            tunnel.forgetHistory()
            tunnel.run(for: .seconds(60))
            #expect(tunnel.transitions.isEmpty, "\(tunnel.states)")
        }
    }

    @Test("5. silence takes a tunnel down that was heard until then, and what is heard then shows it at once")
    func silence() {
        let tunnel = SimulatedTunnel.up()
        tunnel.dataInterval = .milliseconds(20)
        tunnel.isCutOut = true
        tunnel.run(for: .seconds(5))
        #expect(tunnel.state == .down && tunnel.health.liveness == .heard)
        #expect(tunnel.toldLiveness == .heard)
        tunnel.isCut = true
        tunnel.run(for: .seconds(5))
        #expect(tunnel.toldLiveness == .silent)
        tunnel.isCut = false
        tunnel.run(for: .milliseconds(210))
        #expect(tunnel.state == .down && tunnel.toldLiveness == .heard)
    }

    @Test("6. a time limit follows the round trip, up to 4 s (RFC 6298)")
    func timeLimit() {
        var estimator = RoundTripEstimator()
        let bounds: ClosedRange<Duration> = .milliseconds(50)...ProbeStream.longestTimeout
        #expect(estimator.timeout(within: bounds) == .seconds(1))
        for _ in 0..<50 { estimator.add(.milliseconds(1)) }
        #expect(estimator.timeout(within: bounds) == .milliseconds(50))
        for _ in 0..<50 { estimator.add(.milliseconds(2500)) }
        #expect((.milliseconds(2500)...(.milliseconds(2600))).contains(estimator.timeout(within: bounds)))
        estimator.add(.seconds(20))
        #expect(estimator.timeout(within: bounds) == .seconds(4))
    }
}
