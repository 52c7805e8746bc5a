package import GatewayCore
internal import Glibc
package import LinuxIO
package import Logging
package import WireGuard

/// Brings the kernel's addresses, routes and rules to the plan, and again whenever somebody changed them.
///
/// Owned by the control thread. Everything is read before it is compared, so that a call too many does no
/// harm, and what a killed daemon left is found like what an administrator removed.
package struct RouteKeeper: ~Copyable {
    private var plan: RoutePlan
    private let netlink: Netlink
    /// The TUN's index in this namespace; 0 while it is not here.
    private var interface: UInt32
    private let log: Logger
    /// Why a prefix has no route.
    package private(set) var failures: [IPPrefix: SystemError] = [:]
    /// Why an address is not on the interface.
    package private(set) var missingAddresses: [IPPrefix: SystemError] = [:]
    /// Rules, and routes of the last resort, that somebody else removed and that were put back.
    package private(set) var repairs: UInt64 = 0
    /// Every change that the kernel refused the last time: a line in the log is for what is new.
    private var refused: [KernelChange: SystemError] = [:]
    /// What was wanted the last time, and the places of its routes: what somebody else may disturb.
    private var wanted = KernelState()
    /// Nil until somebody asks.
    private var places: Set<RoutePlace>?
    /// Somebody may have taken something away: look again then.
    package private(set) var deadline: Instant?
    /// Grows while somebody else keeps undoing what we do, so that the two do not keep a processor busy.
    private var patience = Self.shortestPatience
    private var lastRepair: Instant?

    private static let shortestPatience: Duration = .milliseconds(100)
    private static let longestPatience: Duration = .seconds(10)

    package init(plan: RoutePlan, interface: UInt32, log: Logger) throws(SystemError) {
        self.plan = plan
        self.interface = interface
        self.log = log
        netlink = try Netlink()
    }

    /// The TUN was moved to another namespace (0), or is back under this index. What is wanted stays to be reconciled.
    package mutating func follow(interface index: UInt32) { interface = index }

    /// The monitor need not tell of the routes that come and go by the keeper's own doing.
    package func keepQuiet(_ monitor: borrowing NetlinkMonitor) throws(SystemError) {
        try monitor.ignoreRoutes(changedBy: netlink.routePort)
    }

    package var installsRoutes: Bool { plan.table != nil }
    package var leadsOuterPackets: Bool { plan.leadsOuterPackets }
    package var makesRules: Bool { plan.makesRules }

    // MARK: The link

    /// The MTU that every path to `endpoints` carries, less the largest outer headers (IPv6, UDP, WireGuard
    /// and its padding: 80 bytes).
    package func automaticMTU(to endpoints: [IPAddress]) -> Int {
        let mtus = endpoints.compactMap { endpoint -> Int? in
            guard let way = try? netlink.way(to: endpoint, mark: plan.mark),
                let link = try? netlink.link(index: way.interface)
            else { return nil }
            return link.mtu
        }
        return min(max((mtus.min() ?? 1500) - 80, 1280), 65_535)
    }

    /// The interface that a packet to `address` with the mark would leave by now. The mark is not always the
    /// plan's: where somebody else installs routes and rules, that has none.
    package func interface(towards address: IPAddress, mark: UInt32) -> UInt32? {
        (try? netlink.way(to: address, mark: mark))?.interface
    }

    /// The interface that outer packets to a peer leave by, from a socket that is bound to `device`, or to none for 0; nil
    /// where there is no way. Rules may be for the source; with a device none is named, as IPv6 holds to a device only for
    /// packets without a source.
    package func wayOut(_ underlay: UnderlayPath, device: UInt32, mark: UInt32) -> UInt32? {
        var packet = NetlinkPacket(
            to: underlay.endpoint.address, from: device == 0 ? underlay.source?.address : nil,
            outOf: device == 0 ? underlay.endpoint.scope : device, mark: mark)
        if let way = try? netlink.way(of: packet) { return way.interface }
        // The source may be no address of this host any more.
        guard packet.source != nil else { return nil }
        packet.source = nil
        return (try? netlink.way(of: packet))?.interface
    }

    /// Whether an address is this host's by another link than the interface.
    package func isLocal(_ address: IPAddress, elsewhereThan interface: UInt32) -> Bool {
        guard let route = try? netlink.match(of: NetlinkPacket(to: address)) else { return false }
        return route.kind == .local && route.interface != interface
    }

    /// Whether outer packets with the mark, sent to `address`, would come back to us by the TUN: where a route
    /// that is not the plan's, a routing daemon's in the main table, covers an endpoint. The data threads drop
    /// them (`DropReason.routingLoop`).
    package func leadsIntoTunnel(_ address: IPAddress, mark: UInt32) -> Bool {
        self.interface(towards: address, mark: mark) == interface
    }

    /// What `LearnedRoutes` begins with.
    package func routesIntoTunnel() throws(SystemError) -> [NetlinkRoute] {
        try netlink.routes(through: interface)
    }

    /// What `LearnedGuard` begins with: the learned prefixes that an earlier run has left a last resort for.
    package func learnedGuards() throws(SystemError) -> [IPPrefix] {
        try netlink.routes().filter(plan.isLearnedGuard).map(\.destination)
    }

    /// For `RouteTrace`: how a packet would leave.
    package func way(of packet: NetlinkPacket) throws(SystemError) -> RouteLookup {
        try netlink.way(of: packet)
    }

    /// For `RouteTrace`, as a sentence: the route that a packet takes, and the rule that leads to it, where that is known: a
    /// rule may ask for more than its table tells. Nil where there is none.
    package func match(of packet: NetlinkPacket) -> String? {
        guard let route = (try? netlink.match(of: packet)) ?? nil else { return nil }
        let rule = ((try? netlink.rules(protocol: nil)) ?? []).filter {
            $0.family == packet.destination.family && $0.table == route.table && $0.takes(packet.mark)
                && ($0.destination?.contains(packet.destination) ?? true)
                && $0.suppressedPrefixLength.map { $0 < route.destination.length } ?? true
        }.min { $0.priority < $1.priority }
        return Self.words(route, by: rule)
    }

    static func words(_ route: NetlinkRoute, by rule: NetlinkRule?) -> String {
        let table =
            switch route.table {
            case NetlinkRoute.mainTable: "main"
            case NetlinkRoute.localTable: "local"
            default: "\(route.table)"
            }
        return "That is \(route.destination) in table \(table)"
            + (rule.map { ", by rule \($0.priority) (\($0.condition)lookup \(table))." } ?? ".")
    }

    package func link() -> NetlinkLink? {
        interface == 0 ? nil : (try? netlink.link(index: interface)) ?? nil
    }

    package func setMTU(_ mtu: Int) throws(SystemError) { try netlink.setMTU(interface, mtu) }

    package func bringUp() throws(SystemError) { try netlink.setUp(interface) }

    /// As the kernel's WireGuard: a link-local address that nobody asked for makes the kernel look for routers in the
    /// tunnels. Before the interface is brought up; where the kernel has no IPv6 there is nothing to do.
    package func makeNoAddresses() { try? netlink.makeNoAddresses(interface) }

    /// Those of all interfaces; empty where the kernel does not tell.
    package func ownAddresses() -> Set<IPAddress> {
        Set(((try? netlink.addresses()) ?? []).map(\.prefix.address))
    }

    // MARK: Routes

    /// Does what is wanting. What the kernel refuses is in `failures`, and logged when it is new.
    package mutating func reconcile(_ prefixes: [WantedPrefix], now: Instant) {
        deadline = nil
        let before = wanted
        wanted = plan.wanted(for: prefixes, interface: interface)
        // The kernel takes the routes of a link that is down; when it is up again, there is an event.
        if !(link()?.isUp ?? false) {
            wanted.routes = wanted.routes.filter { $0.kind == .unreachable }
            wanted.addresses = []
        }
        places = nil
        do throws(SystemError) {
            let changes = wanted.changes(from: try found(wanted))
            noteRepairs(changes, before)
            if changes.isEmpty { patience = Self.shortestPatience }
            apply(changes)
            // An administrator's route in the way may go again.
            if !refused.isEmpty { deadline = now + Self.longestPatience }
        } catch {
            log.error("kernel routes cannot be read", metadata: ["error": "\(error)"])
            deadline = now + Self.longestPatience
        }
    }

    /// The kernel itself takes addresses, and routes into the TUN, with the link; nothing else.
    private mutating func noteRepairs(_ changes: [KernelChange], _ before: KernelState) {
        let repaired = changes.count { change in
            guard refused[change] == nil else { return false }
            switch change {
            case .addRule(let rule): return before.rules.contains(rule)
            case .addRoute(let route): return route.kind == .unreachable && before.routes.contains(route)
            case .addAddress, .replaceRoute, .removeRoute, .removeRule: return false
            }
        }
        guard repaired > 0 else { return }
        repairs += UInt64(repaired)
        log.warning(
            "somebody else removed rules or unreachable routes of ours: they are put back",
            metadata: ["count": "\(repaired)", "total": "\(repairs)"])
    }

    /// Does what is wanting, and takes nothing away.
    mutating func add(_ prefixes: [WantedPrefix]) throws(SystemError) {
        var wanted = plan.wanted(for: prefixes, interface: interface)
        wanted.addresses = []
        let found = try found(wanted)
        wanted.routes.formUnion(found.routes)
        wanted.rules.formUnion(found.rules)
        apply(wanted.changes(from: found))
    }

    private mutating func apply(_ changes: [KernelChange]) {
        let before = refused
        refused = [:]
        failures = [:]
        missingAddresses = [:]
        var news: [SystemError] = []
        for (change, error) in perform(changes) {
            refused[change] = error
            switch change {
            case .addRoute(let route), .replaceRoute(let route):
                if route.kind == .unicast { failures[route.destination] = error }
            case .addAddress(let address): missingAddresses[address] = error
            case .removeRoute, .addRule, .removeRule: break
            }
            if before[change] != error { news.append(error) }
        }
        for error in news.prefix(Self.loggedRefusals) {
            log.error("kernel refused", metadata: ["error": "\(error)"])
        }
        if news.count > Self.loggedRefusals {
            log.error("kernel refused more", metadata: ["count": "\(news.count - Self.loggedRefusals)"])
        }
    }

    private static let loggedRefusals = 10

    /// In order, and beyond what the kernel refuses. Returns that.
    private func perform(_ changes: [KernelChange]) -> [(KernelChange, SystemError)] {
        var refused: [(KernelChange, SystemError)] = []
        var rest = changes[...]
        while let change = rest.first {
            // There may be 100,000 routes: those beside each other go together.
            let routes = rest.prefix { $0.route != nil }
            do throws(SystemError) {
                if routes.isEmpty {
                    rest.removeFirst()
                    try apply(change)
                } else {
                    rest.removeFirst(routes.count)
                    let first = routes.startIndex
                    var sourceless: [NetlinkRouteChange] = []
                    try netlink.apply(routes.compactMap(\.route)) { place, error in
                        let change = changes[first + place]
                        refused.append((change, error))
                        if let route = change.withoutSource(refusedFor: error) { sourceless.append(route) }
                    }
                    // The address may have gone meanwhile: that is no reason to have no route.
                    try netlink.apply(sourceless) { _, _ in }
                }
            } catch {
                refused.append((change, error))
            }
        }
        return refused
    }

    /// Another firewall mark: its rules come first, then `mark` marks the sockets, then the old rules go. In
    /// between outer packets may be led into the tunnel, where they are dropped; the other way round inner
    /// ones would leave in clear. When `mark` throws, the new rules go instead.
    package mutating func changeMark(
        to new: UInt32, prefixes: [WantedPrefix], mark: () throws(SystemError) -> Void
    ) throws(SystemError) {
        guard plan.table != nil, new != plan.mark else { return try mark() }
        let there = Set(try netlink.rules())
        guard !there.contains(where: { $0.mark == new && $0.isInverted }) else {
            // EBUSY
            throw SystemError(call: "take firewall mark \(new), which another gateway has", code: 16)
        }
        let before = plan
        plan.mark = new
        do throws(SystemError) {
            for rule in plan.wanted(for: prefixes, interface: interface).rules.subtracting(there) {
                try netlink.addRule(rule)
            }
            try mark()
            removeRules(of: before, notOf: plan)
        } catch {
            removeRules(of: plan, notOf: before)
            plan = before
            throw error
        }
    }

    private func removeRules(of plan: RoutePlan, notOf other: RoutePlan) {
        let rules = (try? netlink.rules()) ?? []
        for rule in rules where plan.owns(rule) && !other.owns(rule) { try? netlink.removeRule(rule) }
    }

    /// Somebody touched what is ours.
    package mutating func noteDisturbance(now: Instant) {
        if let lastRepair, now - lastRepair > Self.longestPatience * 2 { patience = Self.shortestPatience }
        if let deadline, deadline <= now + patience { return }
        deadline = now + patience
        lastRepair = now
        patience = min(patience * 2, Self.longestPatience)
    }

    /// At the operator's stop: addresses first, so that nobody sends from one by another way; then rules, so that no packet
    /// is led to a table that is being emptied. Returns how many rules and routes there were, and the first refusal of
    /// the kernel.
    @discardableResult
    package mutating func removeAll() -> (count: Int, refusal: SystemError?) {
        if interface != 0 {
            for address in plan.addresses { try? netlink.removeAddress(address, from: interface) }
        }
        do throws(SystemError) {
            return remove(try found(KernelState()))
        } catch {
            return (0, error)
        }
    }

    /// What earlier runs of this gateway left under other numbers: rules with one of these marks, those of exclusive
    /// prefixes that belong to them, and the last resort in any table.
    package func removeLeftovers(marks: Set<UInt32>) -> (count: Int, refusal: SystemError?) {
        do throws(SystemError) {
            var left = KernelState()
            left.routes = Set(
                try netlink.routes().filter { plan.isLastResort($0) && !plan.owns($0, interface: interface) })
            let others = try netlink.rules().filter { !plan.owns($0) }
            let inverted = others.filter { $0.isInverted && $0.mark.map(marks.contains) ?? false }
            let earlier = inverted.filter(RoutePlan.isCarrying).map { rule in
                var earlier = plan
                (earlier.mark, earlier.table) = (rule.mark ?? 0, rule.table)
                return earlier
            }
            left.rules = Set(inverted + others.filter { rule in earlier.contains { $0.owns(rule) } })
            return remove(left)
        } catch {
            return (0, error)
        }
    }

    private func remove(_ state: KernelState) -> (count: Int, refusal: SystemError?) {
        let changes = KernelState().changes(from: state)
        return (changes.count, perform(changes).first?.1)
    }

    /// Whether the monitor's event tells of somebody else's hand on what was wanted the last time. Our own
    /// changes come back as events too, and concern nobody.
    package mutating func concerns(_ event: NetlinkEvent) -> Bool {
        switch event {
        case .addressRemoved(let address):
            address.interface == interface && plan.addresses.contains(address.prefix)
        // A family may have been turned on.
        case .addressAdded(let address): address.interface == interface && !missingAddresses.isEmpty
        case .routeRemoved(let route): wanted.routes.contains(route)
        // The kernel does not tell of a route that was replaced but by its successor.
        case .routeAdded(let route): !wanted.routes.contains(route) && isPlaceTaken(by: route)
        case .ruleRemoved(let rule): wanted.rules.contains(rule)
        case .linkChanged(let link): link.index == interface && link.isUp
        case .overflow: true
        default: false
        }
    }

    private mutating func isPlaceTaken(by route: NetlinkRoute) -> Bool {
        let places = places ?? Set(wanted.routes.lazy.map(RoutePlace.init))
        self.places = places
        return places.contains(RoutePlace(route))
    }

    private func found(_ wanted: KernelState) throws(SystemError) -> KernelState {
        var found = KernelState()
        if !wanted.addresses.isEmpty {
            found.addresses = Set(try netlink.addresses(of: interface).map(\.prefix))
        }
        found.routes = Set(try netlink.routes { plan.owns($0, interface: interface) })
        found.rules = Set(try netlink.rules().filter { plan.owns($0) })
        return found
    }

    private func apply(_ change: KernelChange) throws(SystemError) {
        switch change {
        case .addAddress(let address): try netlink.addAddress(address, to: interface)
        case .addRoute, .replaceRoute, .removeRoute: break
        case .addRule(let rule): try netlink.addRule(rule)
        case .removeRule(let rule): try netlink.removeRule(rule)
        }
    }
}

extension KernelChange {
    /// The route as the kernel takes it while the preferred source is no address of this host's (EINVAL).
    fileprivate func withoutSource(refusedFor error: SystemError) -> NetlinkRouteChange? {
        guard case .add(let route, let replacing) = self.route, route.preferredSource != nil,
            error.code == EINVAL
        else { return nil }
        return .add(
            NetlinkRoute(
                destination: route.destination, interface: route.interface, table: route.table,
                metric: route.metric), replacing: replacing)
    }

    /// Nil where it is about no route.
    fileprivate var route: NetlinkRouteChange? {
        switch self {
        // In the main table a route to the same prefix is an administrator's, and stays.
        case .addRoute(let route): .add(route, replacing: route.table != NetlinkRoute.mainTable)
        case .replaceRoute(let route): .add(route, replacing: true)
        case .removeRoute(let route): .remove(route)
        case .addAddress, .addRule, .removeRule: nil
        }
    }
}

extension RouteKeeper {
    /// The guard alone, while there is no interface yet. What is there already stays.
    package static func layGuard(_ plan: RoutePlan, _ prefixes: [WantedPrefix], log: Logger) {
        do throws(SystemError) {
            var keeper = try RouteKeeper(plan: plan, interface: 0, log: log)
            try keeper.add(prefixes)
        } catch {
            log.error("the last resort cannot be laid yet", metadata: ["error": "\(error)"])
        }
    }
}
