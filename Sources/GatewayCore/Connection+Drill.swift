internal import ControlAPI
internal import WireGuard

/// A drill that is going on: a tunnel taken away on purpose (``Drill``).
struct DrillRun {
    let caller: Caller
    var drill: Drill
    let duration: Duration
    let activeBefore: String?
    /// Notes on what it cannot tell.
    let preliminaries: [String]
    /// No target answered before the cut.
    let wereTargetsSilent: Bool
}

extension Connection {
    mutating func startDrill(
        _ request: DrillRequest, by caller: Caller, _ context: inout GatewayContext
    ) throws(APIError) {
        guard DrillRequest.durationRange.contains(request.duration ?? DrillRequest.defaultDuration) else {
            throw APIError(
                code: .badRequest, message: "that is no duration of a drill",
                hint: "a drill takes 1 to 300 seconds: {\"duration\": 10}")
        }
        guard drill == nil else {
            throw APIError(code: .conflict, message: "a drill of \(name) is going on")
        }
        guard tunnels.allSatisfy({ $0.probedLink != nil }) else {
            throw APIError(
                code: .conflict, message: "no drill of \(name): its tunnels are not probed",
                hint: "give each tunnel inside addresses, and leave health on")
        }
        let active = activeTunnels.first
        let duration = Duration.milliseconds(Int64((request.duration ?? DrillRequest.defaultDuration) * 1000))
        drill = DrillRun(
            caller: caller,
            drill: Drill(
                connection: name,
                tunnels: Dictionary(uniqueKeysWithValues: tunnels.map { ($0.name, $0.health.state) }),
                active: active, hasTargets: !spec.health.targets.isEmpty, duration: duration,
                objective: spec.recoveryTimeObjective, now: context.now),
            duration: duration, activeBefore: active, preliminaries: preliminaries,
            wereTargetsSilent: silentTargetsSource != nil)
        settleDrill(&context)
    }

    /// What the drill cannot tell.
    private var preliminaries: [String] {
        guard !spec.health.targets.isEmpty else {
            return [
                "it was measured from gateway to gateway: only targets (health = { target = [...] }) show that "
                    + "traffic behind them was back"
            ]
        }
        guard spec.health.source == nil else { return [] }
        return [
            "targets were asked from the inside addresses: only a source in the network behind this gateway "
                + "(health = { source = ... }) shows that its traffic was back"
        ]
    }

    mutating func handleDrillTimeout(_ context: inout GatewayContext) {
        guard let deadline = drill?.drill.nextTimeout, deadline <= context.now else { return }
        drill?.drill.handleTimeout(now: context.now)
        settleDrill(&context)
    }

    mutating func noteInDrill(_ observation: Drill.Observation, _ context: inout GatewayContext) {
        guard drill != nil else { return }
        drill?.drill.handle(observation, now: context.now)
        settleDrill(&context)
    }

    /// At the end of a run, or of the connection: what is cut is put back, and who waits is told.
    mutating func breakOffDrill(because reason: String, _ context: inout GatewayContext) {
        guard let run = drill else { return }
        setCut(false, tunnel: run.activeBefore, context)
        drill = nil
        context.emit(
            .drillEnded(connection: name, .failure(APIError(code: .unavailable, message: reason))))
    }

    private mutating func settleDrill(_ context: inout GatewayContext) {
        while let output = drill?.drill.poll() {
            switch output {
            case .cut(let tunnel):
                setCut(true, tunnel: tunnel, context)
                let caller = drill?.caller
                context.raise(
                    .drillStarted, connection: name, tunnel: tunnel, reason: HealthReason.operator.name,
                    "a drill by \(caller?.words ?? "an operator") cuts \(tunnel) of \(name)",
                    details: caller?.details() ?? [:], isDrill: true, level: .notice)
            case .probe(let destination, let sequence): sendLive(sequence, to: destination, &context)
            case .restore(let tunnel): setCut(false, tunnel: tunnel, context)
            case .finished(let outcome): finishDrill(outcome, &context)
            }
        }
    }

    private mutating func setCut(_ isCut: Bool, tunnel: String?, _ context: borrowing GatewayContext) {
        guard let index = self.tunnel(named: tunnel) else { return }
        context.device.path(of: tunnels[index].peer)?.setCut(isCut)
        if isCut { tunnels[index].isDrilled = true }
        isUndecided = true
    }

    /// By whatever tunnel is active.
    private func sendLive(
        _ sequence: UInt32, to destination: Drill.Destination, _ context: inout GatewayContext
    ) {
        guard let index = tunnel(named: activeTunnels.first), let inside = tunnels[index].probedLink else {
            return
        }
        guard destination == .gateway else {
            for target in spec.health.targets.indices {
                ask(target, by: index, sequence: sequence, for: .drill, &context)
            }
            return
        }
        let peer = tunnels[index].peer
        let packet = ProbePacket.echo(
            from: inside.local, to: inside.remote, secret: context.probeSecret, peer: peer,
            sequence: sequence, purpose: .drill)
        if let packet { _ = context.device.sendProbe(packet, to: peer, now: context.now) }
    }

    private mutating func finishDrill(_ outcome: DrillOutcome, _ context: inout GatewayContext) {
        guard let run = drill else { return }
        drill = nil
        if let refusal = outcome.refusal {
            let error = APIError(code: .conflict, message: "no drill of \(name): \(refusal.words)")
            return context.emit(.drillEnded(connection: name, .failure(error)))
        }
        let recovered = outcome.timeToRecover.map { "\($0.wholeNanoseconds / 1_000_000) ms" }
        context.raise(
            .drillFinished, connection: name, tunnel: outcome.cut,
            recovered.map { "traffic of \(name) was back after \($0)" }
                ?? "traffic of \(name) was not back while \(outcome.cut ?? "its tunnel") was cut",
            details: [
                "recovered-after": recovered ?? "never", "probes-lost": "\(outcome.gateway.lost)",
                "measured": outcome.targets == nil
                    ? "to the far gateway" : "to the far gateway and to targets",
            ], isDrill: true, level: .notice)
        context.emit(.drillEnded(connection: name, .success(DrillReport(outcome, run))))
    }
}

extension DrillReport {
    fileprivate init(_ outcome: DrillOutcome, _ run: DrillRun) {
        self.init(
            connection: outcome.connection, tunnel: outcome.cut ?? "", duration: run.duration.seconds,
            timeToDetect: outcome.timeToDetect?.seconds,
            timeToRecover: outcome.gateway.timeToRecover?.seconds, probesSent: outcome.gateway.sent,
            probesLost: outcome.gateway.lost, longestGap: outcome.gateway.longestGap.seconds,
            targets: outcome.targets.map { measure in
                DrillTargets(
                    timeToRecover: measure.timeToRecover?.seconds, probesSent: measure.sent,
                    probesLost: measure.lost, longestGap: measure.longestGap.seconds)
            }, activeBefore: run.activeBefore,
            activeDuring: outcome.activeWhileCut, activeAfter: outcome.activeAfter,
            rto: outcome.objective?.seconds, rtoMet: outcome.isMet,
            notes: run.preliminaries + outcome.notes(wereTargetsSilent: run.wereTargetsSilent))
    }
}
