internal import ControlAPI
internal import DataPlane
internal import GatewayCore
internal import LinuxIO
internal import WireGuard

/// The daemon in the words of the control API: the gateway's own, and what only the shell knows.
extension ControlLoop {
    var hostFacts: Gateway.HostFacts {
        var facts = Gateway.HostFacts()
        facts.returnProblem = { [self] in host.returnProblem(of: $0, gateway, underlays) }
        facts.routeProblem = { [self] in host.routeProblem($0) }
        facts.foreignNotices = { [self] in host.foreignNotices(of: $0, gateway.spec) }
        return facts
    }

    func gatewayStatus() -> GatewayStatus {
        var drops: [String: UInt64] = [:]
        for counted in [gateway.drops, dataPlane.drops, requestDrops.snapshot] {
            for (reason, count) in counted { drops[reason.name, default: 0] += count }
        }
        let overflow = underlays.queueDrops
        if overflow > 0 { drops[DropReason.receiveQueueFull.name, default: 0] += overflow }
        let udp = underlays.groups.present.flatMap(\.group.workers).flatMap(\.sockets).map(\.offloads)
        let spec = gateway.spec
        var status = GatewayStatus(
            version: Daemon.version, name: settings.name,
            interface: gateway.interface.isHere ? host.tun.name : settings.interface,
            isInterfaceUp: gateway.isInterfaceUp, mtu: gateway.interface.mtu,
            addresses: settings.plan.addresses.map(\.description), listenPort: underlays.port,
            publicKey: spec.privateKey?.publicKey.base64,
            firewallMark: spec.firewallMark == 0 ? nil : spec.firewallMark,
            uptime: (now - startedAt).seconds,
            offloads: OffloadStatus(
                udpGSO: udp.contains { $0.gso }, udpGRO: udp.contains { $0.gro },
                tunTSO: host.tun.offloads.tso, tunUSO: host.tun.offloads.uso),
            workers: underlays.workers, isSingleThreaded: dataPlane.isSingleThreaded,
            connections: gateway.connectionStatuses(hostFacts), drops: drops)
        let notices = [wgChanges.notice].compactMap(\.self) + host.notices(gateway) + gateway.troubleNotices
        if !notices.isEmpty { status.notices = notices }
        status.hooks = journal.hooks?.counts
        if host.learns { status.guarded = gateway.guardedPrefixes.map(\.description) }
        status.routeTable = settings.plan.table
        if host.routes.repairs > 0 { status.repairs = host.routes.repairs }
        let missing = host.missingAddresses
        if !missing.isEmpty { status.missingAddresses = missing }
        return status
    }
}
