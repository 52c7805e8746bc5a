internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// A drill that is going on, and who waits for its report.
struct DrillRun {
    let waiter: DrillWaiter
    let caller: Caller
    var drill: Drill
    let duration: Duration
    let activeBefore: String?
    /// Notes on what it cannot tell.
    let preliminaries: [String]
    /// No target answered before the cut.
    let wereTargetsSilent: Bool
    let answer: ControlCommand.Answer<DrillReport>
}

/// Drills: a tunnel taken away on purpose (``Drill``).
extension ControlLoop {
    func drill(
        _ name: String, _ request: DrillRequest, _ waiter: DrillWaiter, by caller: Caller,
        answer: @escaping ControlCommand.Answer<DrillReport>
    ) {
        guard let connection = state.connection(named: name), let record = connections[name] else {
            return answer(
                .failure(
                    APIError(
                        code: .notFound, message: "there is no connection \(name)",
                        hint: "'vgwctl status' lists them")))
        }
        guard !waiter.hasLeft else {
            return answer(
                .failure(
                    APIError(
                        code: .conflict, message: "no drill of \(name): its client has closed the connection",
                        hint: "a drill lasts no longer than its client: leave the connection open, both ways")
                ))
        }
        guard drills[name] == nil else {
            return answer(.failure(APIError(code: .conflict, message: "a drill of \(name) is going on")))
        }
        guard peers(of: connection).allSatisfy({ tunnels[$0]?.inside != nil }) else {
            return answer(
                .failure(
                    APIError(
                        code: .conflict, message: "no drill of \(name): its tunnels are not probed",
                        hint: "give each tunnel inside addresses, and leave health on")))
        }
        let active = activeTunnels(of: connection, by: record.selection).first
        let states = peers(of: connection).compactMap { tunnels[$0].map { ($0.name, $0.health.state) } }
        let duration = Duration.milliseconds(Int64((request.duration ?? DrillRequest.defaultDuration) * 1000))
        drills[name] = DrillRun(
            waiter: waiter, caller: caller,
            drill: Drill(
                connection: name, tunnels: Dictionary(uniqueKeysWithValues: states), active: active,
                hasTargets: !connection.health.targets.isEmpty, duration: duration,
                objective: connection.recoveryTimeObjective, now: now),
            duration: duration, activeBefore: active,
            preliminaries: preliminaries(of: connection),
            wereTargetsSilent: record.silentTargetsSource != nil, answer: answer)
        followDrill(of: name)
    }

    /// What the drill cannot tell.
    private func preliminaries(of connection: Connection) -> [String] {
        guard !connection.health.targets.isEmpty else {
            return [
                "it was measured from gateway to gateway: only targets (health = { target = [...] }) show that "
                    + "traffic behind them was back"
            ]
        }
        guard connection.health.source == nil else { return [] }
        return [
            "targets were asked from the inside addresses: only a source in the network behind this gateway "
                + "(health = { source = ... }) shows that its traffic was back"
        ]
    }

    var drillDeadline: Instant? { drills.values.lazy.compactMap(\.drill.nextTimeout).min() }

    func handleDrillTimeouts() {
        for (name, run) in drills where run.drill.nextTimeout.map({ $0 <= now }) ?? false {
            drills[name]?.drill.handleTimeout(now: now)
            followDrill(of: name)
        }
    }

    func drillNotices(of connection: String, tunnel: String, is state: HealthState) {
        guard drills[connection] != nil else { return }
        drills[connection]?.drill.handle(.state(of: tunnel, state), now: now)
        followDrill(of: connection)
    }

    func drillNotices(of connection: String, active: String?) {
        guard drills[connection] != nil else { return }
        drills[connection]?.drill.handle(.active(active), now: now)
        followDrill(of: connection)
    }

    func drillWasAnswered(_ destination: Drill.Destination, _ sequence: UInt32, by arrival: PeerID) {
        guard let connection = tunnels[arrival]?.connection else { return }
        drills[connection]?.drill.handle(.probeAnswered(destination, sequence: sequence), now: now)
    }

    /// Somebody has other plans with it.
    func abortDrill(of name: String) {
        guard drills[name] != nil else { return }
        drills[name]?.drill.handle(.abort, now: now)
        followDrill(of: name)
    }

    func endAbandonedDrills() {
        for (name, run) in drills where run.waiter.hasLeft {
            log.notice("a drill ends, as nobody waits for it", metadata: ["connection": "\(name)"])
            abortDrill(of: name)
        }
    }

    /// At the end of a run: what is cut is put back, and who waits is told.
    func endDrills() {
        for (name, run) in drills {
            setCut(false, tunnel: run.activeBefore)
            run.answer(.failure(APIError(code: .unavailable, message: "vgwd is stopping")))
            drills[name] = nil
        }
    }

    private func followDrill(of name: String) {
        while let output = drills[name]?.drill.poll() {
            switch output {
            case .cut(let tunnel):
                setCut(true, tunnel: tunnel)
                let caller = drills[name]?.caller
                raise(
                    .drillStarted, connection: name, tunnel: tunnel, reason: HealthReason.operator.name,
                    "a drill by \(caller?.words ?? "an operator") cuts \(tunnel) of \(name)",
                    details: caller?.details() ?? [:], isDrill: true, level: .notice)
            case .probe(let destination, let sequence): sendLive(sequence, to: destination, of: name)
            case .restore(let tunnel): setCut(false, tunnel: tunnel)
            case .finished(let report): finishDrill(of: name, report)
            }
        }
    }

    private func setCut(_ isCut: Bool, tunnel: String?) {
        guard let peer = tunnel.flatMap({ tunnels.peer(named: $0) }) else { return }
        device.path(of: peer)?.setCut(isCut)
        if isCut { tunnels[peer]?.isDrilled = true }
        if let name = tunnels[peer]?.connection { connectionChanged(name) }
    }

    /// By whatever tunnel is active.
    private func sendLive(_ sequence: UInt32, to destination: Drill.Destination, of name: String) {
        guard let connection = state.connection(named: name), let record = connections[name],
            let active = activeTunnels(of: connection, by: record.selection).first,
            let peer = tunnels.peer(named: active), let inside = tunnels[peer]?.inside
        else { return }
        guard destination == .gateway else {
            for target in connection.health.targets.indices {
                ask(target, by: peer, sequence: sequence, for: .drill)
            }
            return
        }
        let packet = ProbePacket.echo(
            from: inside.local, to: inside.remote, secret: probeSecret, peer: peer, sequence: sequence,
            purpose: .drill)
        if let packet { _ = device.sendProbe(packet, to: peer, now: now) }
    }

    private func finishDrill(of name: String, _ report: DrillOutcome) {
        guard let run = drills.removeValue(forKey: name) else { return }
        if let refusal = report.refusal {
            return run.answer(
                .failure(APIError(code: .conflict, message: "no drill of \(name): \(refusal.words)")))
        }
        let recovered = report.timeToRecover.map { "\($0.wholeNanoseconds / 1_000_000) ms" }
        raise(
            .drillFinished, connection: name, tunnel: report.cut,
            recovered.map { "traffic of \(name) was back after \($0)" }
                ?? "traffic of \(name) was not back while \(report.cut ?? "its tunnel") was cut",
            details: [
                "recovered-after": recovered ?? "never", "probes-lost": "\(report.gateway.lost)",
                "measured": report.targets == nil
                    ? "to the far gateway" : "to the far gateway and to targets",
            ], isDrill: true, level: .notice)
        run.answer(.success(DrillReport(report, run)))
    }
}

extension DrillReport {
    fileprivate init(_ report: DrillOutcome, _ run: DrillRun) {
        self.init(
            connection: report.connection, tunnel: report.cut ?? "", duration: run.duration.seconds,
            timeToDetect: report.timeToDetect?.seconds,
            timeToRecover: report.gateway.timeToRecover?.seconds, probesSent: report.gateway.sent,
            probesLost: report.gateway.lost, longestGap: report.gateway.longestGap.seconds,
            targets: report.targets.map { measure in
                DrillTargets(
                    timeToRecover: measure.timeToRecover?.seconds, probesSent: measure.sent,
                    probesLost: measure.lost, longestGap: measure.longestGap.seconds)
            }, activeBefore: run.activeBefore,
            activeDuring: report.activeWhileCut, activeAfter: report.activeAfter,
            rto: report.objective?.seconds, rtoMet: report.isMet,
            notes: run.preliminaries + report.notes(wereTargetsSilent: run.wereTargetsSilent))
    }
}

extension Duration {
    var seconds: Double { Double(wholeNanoseconds) / 1e9 }
}
