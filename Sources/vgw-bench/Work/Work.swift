internal import FoundationEssentials

/// One piece of work that is sent through every implementation, and the figures it gives.
struct Work: Sendable {
    let name: String
    /// What of it can be measured of an implementation; the others are left out without a word.
    let applies: @Sendable (Implementation) -> Bool
    let measure: @Sendable (Tunnel, _ seconds: Int) async throws -> [Figure: Double]

    /// In the order in which they are done: idle while nothing has been done yet, memory when all has been,
    /// and handshakes last since they leave a daemon with a thousand peers.
    static let all: [Work] = [
        Work(name: "idle", applies: \.hasDaemon, measure: idle),
        Work(name: "tcp-1", applies: { _ in true }, measure: tcp(1, .tcp1, .tcp1Reverse)),
        Work(name: "tcp-4", applies: { _ in true }, measure: tcp(4, .tcp4, .tcp4Reverse)),
        Work(name: "tcp-8", applies: { _ in true }, measure: tcp(8, .tcp8, .tcp8Reverse)),
        Work(name: "udp", applies: { _ in true }, measure: udp),
        Work(name: "ping", applies: { _ in true }, measure: ping),
        Work(name: "memory", applies: \.hasDaemon, measure: memory),
        Work(name: "handshakes", applies: { $0.handshakeCipher != nil }, measure: handshakes),
    ]

    /// Seconds that all of it takes for one implementation, for the estimate at the start.
    static func expected(_ works: [Work], seconds: Int) -> Int {
        // Measurements in each, and what their set-up takes.
        let share = ["idle": 1, "tcp-1": 2, "tcp-4": 2, "tcp-8": 2, "udp": 4, "ping": 1, "handshakes": 1]
        return works.map { (share[$0.name] ?? 0) * (seconds + 1) }.reduce(3, +)
    }

    // MARK: What needs no traffic

    private static func idle(_ tunnel: Tunnel, seconds: Int) async throws -> [Figure: Double] {
        func switches() -> Double { tunnel.daemons.map(\.contextSwitches).reduce(0, +) }
        let clock = ContinuousClock()
        // Past the handshake and what follows it.
        try await Task.sleep(for: .seconds(1))
        let (before, start) = (switches(), clock.now)
        try await Task.sleep(for: .seconds(seconds))
        let elapsed = (clock.now - start) / .seconds(1)
        return [.wakeUps: (switches() - before) / elapsed / Double(tunnel.daemons.count)]
    }

    private static func memory(_ tunnel: Tunnel, seconds: Int) async throws -> [Figure: Double] {
        var figures: [Figure: Double] = [:]
        figures[.resident] = tunnel.daemons.map(\.residentMegabytes).max()
        figures[.residentPeak] = tunnel.daemons.map(\.residentPeakMegabytes).max()
        return figures
    }

    private static func handshakes(_ tunnel: Tunnel, seconds: Int) async throws -> [Figure: Double] {
        guard let cipher = tunnel.implementation.handshakeCipher else { return [:] }
        let lab = tunnel.lab
        let peers = "\(lab.directory)/peers.conf"
        try HandshakeStorm.configuration(of: HandshakeStorm.peers())
            .write(toFile: peers, atomically: false, encoding: .utf8)
        let text = try await Shell.run(
            """
            \(lab.inside(.b)) wg addconf \(lab.interface(.b)) \(peers)
            \(lab.inside(.a)) \(Shell.quote(Lab.ownPath)) handshake-storm --seconds \(seconds) --cipher \(cipher) \
                --to \(Lab.Host.b.outer):\(WireGuardTunnel.port) --key "$(cat \(lab.directory)/b.pub)"
            """, limit: 3 * seconds + 30)
        let outcome: HandshakeStorm.Outcome = try Output.read(from: text)
        guard outcome.cookies == 0 else {
            throw Failure("took itself to be under attack: \(outcome.cookies) cookies for answers")
        }
        guard outcome.answered > 0 else { throw Failure("no initiation was answered") }
        return [.handshakes: Double(outcome.answered) / outcome.seconds]
    }
}
