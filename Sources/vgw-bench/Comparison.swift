/// One run:
///
///     1. each round takes the implementations in turn, every other round from the last to the first
///     2. each gets a lab of its own and fresh daemons
///     3. each piece of work gives its figures, or a reason; when the tunnel has died of it, the rest is left
///     4. an implementation that could not be set up, or died, is not tried again
struct Comparison: Sendable {
    let rounds: Int
    let seconds: Int
    let implementations: [Implementation]
    let absent: [(name: String, reason: String)]
    let works: [Work]
    let reference: String?
    private let machine = Machine.this()
    private var measurements = Measurements()
    private var givenUp: Set<String> = []

    init(
        rounds: Int, seconds: Int, implementations: [Implementation],
        absent: [(name: String, reason: String)], works: [Work], reference: String?
    ) {
        self.rounds = rounds
        self.seconds = seconds
        self.implementations = implementations
        self.absent = absent
        self.works = works
        self.reference = reference
    }

    var report: Report {
        Report(
            machine: machine, rounds: rounds, seconds: seconds, implementations: implementations,
            absent: absent, reference: reference, measurements: measurements)
    }

    /// Ends early, with what there is, when the task is cancelled.
    mutating func run() async {
        let each = Work.expected(works, seconds: seconds)
        let minutes = (rounds * implementations.count * each + 59) / 60
        Progress.say("\(implementations.count) implementations, about \(minutes) min")
        await Lab.sweep()
        for round in 1...rounds {
            // The second of two daemons must not always meet the warmer machine.
            for one in round.isMultiple(of: 2) ? implementations.reversed() : implementations {
                guard !Task.isCancelled else { return }
                guard !givenUp.contains(one.name) else { continue }
                Progress.say("round \(round) of \(rounds): \(one.name)")
                let lab = Lab()
                await measure(one, in: lab, round: round)
                await lab.tearDown()
            }
        }
    }

    private mutating func measure(_ implementation: Implementation, in lab: Lab, round: Int) async {
        do {
            try await lab.build()
            let tunnel = try await Tunnel.start(implementation, in: lab)
            for work in works where work.applies(implementation) {
                try await measure(work, through: tunnel, round: round)
            }
        } catch {
            if !Task.isCancelled { giveUp(implementation.name, round, "\(error)") }
        }
    }

    /// Throws when the tunnel does not carry packets any more.
    private mutating func measure(_ work: Work, through tunnel: Tunnel, round: Int) async throws {
        let name = tunnel.implementation.name
        do {
            measurements.add(try await work.measure(tunnel, seconds), to: name)
        } catch {
            try Task.checkCancellation()
            let reason = "\(work.name): \(error)"
            guard tunnel.daemons.allSatisfy(\.isRunning) else {
                throw Failure("\(reason); a daemon has ended")
            }
            try await tunnel.awaitPacket(tries: 3)
            Progress.say("\(name): \(reason)")
            measurements.addTrouble(name, round: round, reason)
        }
    }

    private mutating func giveUp(_ name: String, _ round: Int, _ reason: String) {
        Progress.say("\(name) failed: \(reason)")
        measurements.addTrouble(name, round: round, reason)
        givenUp.insert(name)
    }
}
