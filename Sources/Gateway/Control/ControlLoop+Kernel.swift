internal import ControlAPI
internal import LinuxIO
internal import Logging
internal import WireGuard

/// What the kernel says of links, addresses and routes.
extension ControlLoop {
    private static let routesSettleTime: Duration = .milliseconds(250)
    /// Events that one change of routes makes: what is more is one event for all.
    static let routeEventLimit = 20

    /// What has come so far, up to some dozens: the descriptor stays readable while there is more, and a burst must not
    /// keep the timers waiting.
    func readNetlink() {
        var mayHaveMoved = false
        var hasLearned = false
        do throws(SystemError) {
            for event in try monitor.next() {
                if keeper.concerns(event) { keeper.noteDisturbance(now: now) }
                if learned?.handle(event) ?? false { hasLearned = true }
                if foreign.handle(event) { mayHaveMoved = true }
                mayHaveMoved = handle(event) || mayHaveMoved
            }
        } catch {
            log.error("kernel events are lost", metadata: ["error": "\(error)"])
            keeper.noteDisturbance(now: now)
            mayHaveMoved = true
        }
        if areUnderlaysStale { followUnderlays() }
        if areLocalNetworksStale { lookAtLocalNetworks() }
        if hasLearned || learned?.needsDump ?? false { learnAt = learnAt ?? now + learnInterval }
        // Once for all of a burst: a routing daemon may change thousands.
        if mayHaveMoved, routesCheckAt == nil { routesCheckAt = now + Self.routesSettleTime }
    }

    /// True when outer packets may leave by another way from now on.
    private func handle(_ event: NetlinkEvent) -> Bool {
        switch event {
        case .linkChanged(let link) where link.index == tunIndex && isTunHere: tunChanged()
        case .linkRemoved(let index, _) where index == tunIndex && isTunHere: tunHasLeft()
        case .linkChanged where !isTunHere && tun.presence == .here: tunHasReturned()
        // The kernel does not tell of the routes that an IPv4 link takes along when it goes down.
        case .linkChanged, .linkRemoved:
            areUnderlaysStale = true
            areLocalNetworksStale = true
            return true
        case .addressRemoved(let address):
            areLocalNetworksStale = true
            forgetSource(address.prefix.address)
        case .addressAdded:
            areUnderlaysStale = true
            areLocalNetworksStale = true
        case .routeAdded(let route), .routeRemoved(let route):
            // By its own route an address is of this host, or no longer: the event of the address itself may come before.
            // The kernel tells of an IPv4 route before it takes it out: so sources are looked for once more when the
            // routes have settled.
            if route.kind == .local, underlays.isBound(to: route.destination.address) {
                areUnderlaysStale = true
                return true
            }
            return route.protocol != NetlinkRoute.ownProtocol && route.table != NetlinkRoute.localTable
        case .ruleAdded(let rule), .ruleRemoved(let rule): return rule.protocol != NetlinkRoute.ownProtocol
        case .overflow:
            areLocalNetworksStale = true
            lookForTun()
            return true
        }
        return false
    }

    /// Looks anew: the event may tell of a state that was left since.
    func tunChanged() {
        guard let link = keeper.link() else { return }
        if link.isUp != isLinkUp {
            isLinkUp = link.isUp
            log.notice(
                link.isUp ? "interface is up" : "interface is down", metadata: ["interface": "\(link.name)"])
        }
        if link.mtu != mtu {
            mtu = link.mtu
            device.mtu = mtu
            for peer in tunnels.peers {
                tunnels[peer]?.pathMTU?.maximumChanged(to: mtu, now: now)
                follow(peer)
            }
            publishForwarding()
            log.info("interface MTU changed", metadata: ["interface": "\(link.name)", "mtu": "\(mtu)"])
        }
    }

    // MARK: Wires

    /// A link or an address came or went: tunnels that are bound to it follow at once.
    private func followUnderlays() {
        areUnderlaysStale = false
        guard underlays.bindings.count > 1 else { return }
        var next = underlays
        if next.followLinks() {
            do throws(SystemError) {
                try use(next)
            } catch {
                log.error("sockets cannot be watched", metadata: ["error": "\(error)"])
            }
        } else {
            underlays = next
        }
        for peer in tunnels.peers {
            noteUnderlay(of: peer)
            follow(peer)
        }
    }

    // MARK: Sticky sources

    /// An address that has left us.
    private func forgetSource(_ address: IPAddress) {
        for peer in device.peers {
            guard let path = device.path(of: peer), path.underlay?.source?.address == address else {
                continue
            }
            path.forgetSource()
        }
    }

    /// Routes have changed: a source is forgotten where the way to a peer is by another interface now, or
    /// none; and who was given up while there was no way is asked again.
    func underlayHasChanged() {
        routesCheckAt = nil
        followUnderlays()
        surveyForwardingSoon()
        openReturnPath()
        lookAtForeignRoutes()
        lookAtLocalNetworks()
        for peer in device.peers {
            guard let path = device.path(of: peer), let underlay = path.underlay else { continue }
            let hasGivenUp = tunnels[peer]?.hasGivenUp == true && device.status(of: peer)?.state == .idle
            guard hasGivenUp || underlay.source != nil else { continue }
            let interface = keeper.interface(towards: underlay.endpoint.address, mark: state.firewallMark)
            if let source = underlay.source, source.interface != 0, source.interface != interface {
                path.forgetSource()
            }
            if hasGivenUp, interface != nil { askAhead(peer) }
        }
    }
}
