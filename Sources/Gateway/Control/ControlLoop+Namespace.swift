internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// The TUN that is moved to another network namespace, where it works on over the sockets of this one, and back.
///
/// 1. It leaves: its addresses and routes go with it, and are somebody else's there. Here the guard stays, so that
///    nothing that belongs in a tunnel leaves in clear.
/// 2. It is back, maybe under another index, without addresses and routes, and down: all of it is set again.
extension ControlLoop {
    /// The kernel says so of a deleted link, of one that was moved, and of one that was moved and is back already.
    func tunHasLeft() {
        let presence = tun.presence
        guard presence != .deleted else { return tunIsGone() }
        isTunHere = false
        isLinkUp = false
        // Its number may be another link's here.
        followTun(0)
        returnPath = nil
        reconcileRoutes()
        raise(
            .interfaceMoved, reason: "other-namespace",
            "interface \(settings.interface) was moved to another network namespace: \(elsewhere)",
            details: ["interface": "\(settings.interface)"], level: .warning)
        if presence == .here { tunHasReturned() }
    }

    func tunHasReturned() {
        guard let link = (try? (try? Netlink())?.link(tun.name)) ?? nil else { return }
        isTunHere = true
        followTun(link.index)
        do throws(SystemError) {
            keeper.makeNoAddresses()
            if settings.managesLink {
                try keeper.setMTU(mtu)
                try keeper.bringUp()
            }
            try makeReturnPath()
        } catch {
            log.error("kernel refused", metadata: ["error": "\(error)"])
        }
        tunChanged()
        reconcileRoutes()
        learnRoutes()
        lookAtForeignRoutes()
        raise(
            .interfaceReturned, reason: "this-namespace",
            "interface \(link.name) is back in this network namespace"
                + (settings.managesLink ? ": its addresses and routes are set" : ""),
            details: ["interface": "\(link.name)"], level: .notice)
    }

    /// After events that were lost.
    func lookForTun() {
        let isHere = tun.presence == .here
        if isTunHere, !isHere { tunHasLeft() }
        if !isTunHere, isHere { tunHasReturned() }
    }

    /// The interface's index in this namespace; 0 while it is in another one.
    private func followTun(_ index: UInt32) {
        tunIndex = index
        keeper.follow(interface: index)
        foreign = ForeignRoutes(tun: index)
        if learned != nil { learned = LearnedRoutes(interface: index) }
    }

    private var elsewhere: String {
        "its addresses and routes are managed there"
            + (keeper.installsRoutes ? ", and its prefixes are unreachable here until it is back" : "")
    }

    /// For the status; nil while it is here.
    var namespaceNotice: String? {
        isTunHere
            ? nil
            : "interface \(settings.interface) is in another network namespace: \(elsewhere)"
    }

    /// What the kernel of this namespace shall route. While the interface is in another one, nothing is led into it, and
    /// nothing past it.
    func wantedPrefixes() -> [RoutePlan.Prefix] { isTunHere ? routePrefixes() : guardedOnly() }

    /// The guard alone.
    func guardedOnly() -> [RoutePlan.Prefix] {
        state.guardPrefixes(metric: settings.plan.metric, learned: guarded.prefixes, localNetworks)
    }
}
