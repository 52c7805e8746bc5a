internal import GatewayCore
import Glibc
import LinuxIO
import Logging
import Synchronization
import TestSupport
import Testing
import WireGuard

@testable import Daemon

/// What the kernel makes of the plan, in network namespaces.
@Suite struct RouteKeeperTests {
    /// Addresses of one family for the same set-up.
    struct Site: Sendable, CustomTestStringConvertible {
        let ip: String
        let underlay: String
        let router: String
        /// A prefix of 16 bits, one around and one in it, and an address in each but the next.
        let wide: String
        let prefix: String
        let long: String
        let inPrefix: String
        let inLong: String
        let inWide: String
        let far: String
        let everything: String
        var testDescription: String { ip }
    }

    static let sites = [
        Site(
            ip: "ip -4", underlay: "198.51.100.1/24", router: "198.51.100.254", wide: "10.0.0.0/8",
            prefix: "10.20.0.0/16", long: "10.20.7.0/24", inPrefix: "10.20.1.1", inLong: "10.20.7.1",
            inWide: "10.99.0.1", far: "203.0.113.9", everything: "0.0.0.0/0"),
        Site(
            ip: "ip -6", underlay: "2001:db8:ffff::1/64", router: "2001:db8:ffff::fe", wide: "fd00::/8",
            prefix: "fd20::/16", long: "fd20:7::/32", inPrefix: "fd20:1::1", inLong: "fd20:7::1",
            inWide: "fd99::1", far: "2001:db8::9", everything: "::/0"),
    ]

    private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    private let now = Instant(nanoseconds: 0)

    enum Way: Equatable {
        case tun
        case underlay
        case other(UInt32)
        case failed(String)
    }

    /// A namespace with a default route by an underlay, a way to another gateway, and a TUN.
    private final class Lab {
        let site: Site
        let netlink: Netlink
        let tun: TunDevice
        let underlay: UInt32
        let neighbour: UInt32

        init(_ site: Site) throws {
            self.site = site
            try shell(
                """
                for link in under near; do
                    ip link add $link type veth peer name $link-end
                    ip link set $link up; ip link set $link-end up
                done
                \(site.ip) addr add \(site.underlay) dev under $([ '\(site.ip)' = 'ip -6' ] && echo nodad)
                \(site.ip) route add default via \(site.router) dev under
                """)
            netlink = try Netlink()
            tun = try TunDevice.open(name: "vgw0")
            try netlink.setUp(tun.index)
            underlay = try #require(try netlink.link("under")).index
            neighbour = try #require(try netlink.link("near")).index
        }

        func way(_ address: String, mark: UInt32 = 0) throws -> Way {
            let address = try #require(IPAddress(address))
            do {
                let way = try netlink.way(to: address, mark: mark)
                return way.interface == tun.index
                    ? .tun : way.interface == underlay ? .underlay : .other(way.interface)
            } catch {
                return .failed(SystemError.name(error.code))
            }
        }

        func ours() throws -> (routes: [NetlinkRoute], rules: [NetlinkRule]) {
            (try netlink.routes(), try netlink.rules())
        }
    }

    private func withLab(_ site: Site, _ body: (Lab) throws -> Void) throws {
        try inNamespace { try body(Lab(site)) }
    }

    private let plan = RoutePlan(table: 51820, mark: 51820, addresses: [])

    private func prefix(_ text: String, _ state: WantedPrefix.State = .carried) -> WantedPrefix {
        WantedPrefix(IPPrefix(text)!, state: state)
    }

    private let unreachable = Way.failed("EHOSTUNREACH")

    @Test(
        "a carried prefix goes into the TUN before an equal one, and outer packets never do", arguments: sites
    )
    func carried(_ site: Site) throws {
        try withLab(site) { lab in
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            keeper.reconcile([prefix(site.prefix)], now: now)
            let failures = keeper.failures
            #expect(failures.isEmpty)
            #expect(try lab.way(site.inPrefix) == .tun)
            #expect(try lab.way(site.inPrefix, mark: 51820) == .underlay)
            #expect(try lab.way(site.inWide) == .underlay)
            try shell("\(site.ip) route add \(site.prefix) dev near")
            #expect(try lab.way(site.inPrefix) == .tun)
            try shell("\(site.ip) route add \(site.long) dev near")
            #expect(try lab.way(site.inLong) == .other(lab.neighbour))
        }
    }

    @Test("a way out is by the route, by a rule for its source, and by its device", arguments: sites)
    func wayOut(_ site: Site) throws {
        try withLab(site) { lab in
            let keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            let endpoint = Endpoint(address: try #require(IPAddress(site.far)), port: 51820)
            let own = try #require(IPAddress(String(site.underlay.prefix { $0 != "/" })))
            func way(from address: IPAddress?, device: UInt32 = 0) -> UInt32? {
                let source = address.map { LocalSource(address: $0, interface: lab.underlay) }
                return keeper.wayOut(
                    UnderlayPath(endpoint: endpoint, source: source), device: device, mark: 0)
            }
            let stranger = try #require(IPAddress(site.inWide))
            #expect(way(from: own) == lab.underlay && way(from: stranger) == lab.underlay)
            // A better route by another device.
            try shell("\(site.ip) route add \(site.far) dev near metric 1")
            #expect(way(from: own) == lab.neighbour && way(from: nil) == lab.neighbour)
            #expect(way(from: own, device: lab.underlay) == lab.underlay)
            try shell("\(site.ip) rule add from \(own) lookup 7")
            try shell("\(site.ip) route add default via \(site.router) dev under table 7")
            #expect(way(from: own) == lab.underlay && way(from: nil) == lab.neighbour)
            try shell("\(site.ip) rule del from \(own)")
            try shell("\(site.ip) route del default; \(site.ip) route del \(site.far)")
            #expect(way(from: own) == nil)

            try shell("\(site.ip) route add local \(site.prefix) dev lo")
            let anycast = try #require(IPAddress(site.inPrefix))
            let areElsewhere = [own, anycast, stranger].map {
                keeper.isLocal($0, elsewhereThan: lab.underlay)
            }
            #expect(areElsewhere == [false, true, false])
        }
    }

    @Test("the route that takes a packet is named with its table and the rule that leads there")
    func words() throws {
        let route = NetlinkRoute(destination: try #require(IPPrefix("10.20.0.0/17")), interface: 2)
        let rule = NetlinkRule(
            family: .v4, priority: 32_064, mark: 0xca6c, isInverted: true, table: NetlinkRoute.mainTable,
            suppressedPrefixLength: 16)
        #expect(
            RouteKeeper.words(route, by: rule)
                == "That is 10.20.0.0/17 in table main, by rule 32064 (not fwmark 0xca6c lookup main).")
        #expect(RouteKeeper.words(route, by: nil) == "That is 10.20.0.0/17 in table main.")
        #expect(rule.takes(0) && !rule.takes(0xca6c))
    }

    @Test("a dead connection's prefix is unreachable, but for an equal or longer route", arguments: sites)
    func unreachable(_ site: Site) throws {
        try withLab(site) { lab in
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            keeper.reconcile([prefix(site.prefix)], now: now)
            keeper.reconcile([prefix(site.prefix, .unreachable)], now: now)
            #expect(try lab.way(site.inPrefix) == unreachable)
            #expect(try lab.way(site.inPrefix, mark: 51820) == .underlay)
            try shell("\(site.ip) route add \(site.wide) dev near")
            #expect(try lab.way(site.inPrefix) == unreachable)
            #expect(try lab.way(site.inWide) == .other(lab.neighbour))
            try shell("\(site.ip) route add \(site.long) dev near")
            #expect(try lab.way(site.inLong) == .other(lab.neighbour))
            #expect(try lab.way(site.inPrefix) == unreachable)
            try shell("\(site.ip) route add \(site.prefix) dev near")
            #expect(try lab.way(site.inPrefix) == .other(lab.neighbour))
            // It returns.
            keeper.reconcile([prefix(site.prefix)], now: now)
            #expect(try lab.way(site.inPrefix) == .tun)
        }
    }

    @Test("the tunnel that covers everything does not give way to the default route", arguments: sites)
    func everything(_ site: Site) throws {
        try withLab(site) { lab in
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            keeper.reconcile([prefix(site.everything)], now: now)
            #expect(try lab.way(site.far) == .tun)
            keeper.reconcile([prefix(site.everything, .unreachable)], now: now)
            #expect(try lab.way(site.far) == unreachable)
            #expect(try lab.way(site.far, mark: 51820) == .underlay)
            keeper.reconcile([prefix(site.everything, .withdrawn)], now: now)
            #expect(try lab.way(site.far) == .underlay)
        }
    }

    @Test("a shorter prefix in the TUN, dead or alive, hides nothing longer", arguments: sites)
    func nested(_ site: Site) throws {
        try withLab(site) { lab in
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            keeper.reconcile([prefix(site.wide, .unreachable), prefix(site.long)], now: now)
            try shell("\(site.ip) route add \(site.prefix) dev near")
            #expect(try lab.way(site.inWide) == unreachable)
            #expect(try lab.way(site.inPrefix) == .other(lab.neighbour))
            #expect(try lab.way(site.inLong) == .tun)
            // A live shorter one takes the packets of a dead longer one, before shorter ones of others, and
            // behind equal ones.
            keeper.reconcile([prefix(site.wide), prefix(site.long, .covered)], now: now)
            #expect(try lab.way(site.inLong) == .tun)
            #expect(try lab.way(site.inPrefix) == .other(lab.neighbour))
            try shell("\(site.ip) route add \(site.long) dev near")
            #expect(try lab.way(site.inLong) == .other(lab.neighbour))
            try shell("\(site.ip) route del \(site.long) dev near")
            keeper.reconcile([prefix(site.wide), prefix(site.long, .withdrawn)], now: now)
            #expect(try lab.way(site.inLong) == .other(lab.neighbour), "that of \(site.prefix)")
        }
    }

    @Test("when the TUN is down or gone, everything of ours is unreachable", arguments: sites)
    func killed(_ site: Site) throws {
        try withLab(site) { lab in
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            let all = [prefix(site.wide), prefix(site.prefix, .covered), prefix(site.everything)]
            keeper.reconcile(all, now: now)
            for address in [site.inWide, site.inPrefix, site.far] { #expect(try lab.way(address) == .tun) }
            try shell("ip link set vgw0 down")
            for address in [site.inWide, site.inPrefix, site.far] {
                #expect(try lab.way(address) == unreachable)
            }
            keeper.reconcile(all, now: now)
            let failures = keeper.failures
            #expect(failures.isEmpty)
            try shell("ip link set vgw0 up")
            keeper.reconcile(all, now: now)
            for address in [site.inWide, site.inPrefix, site.far] { #expect(try lab.way(address) == .tun) }
            try shell("ip link del vgw0")
            for address in [site.inWide, site.inPrefix, site.far] {
                #expect(try lab.way(address) == unreachable)
                #expect(try lab.way(address, mark: 51820) == .underlay)
            }
            // The next run has another link and finds what the killed one left.
            let tun = try TunDevice.open(name: "vgw1")
            try lab.netlink.setUp(tun.index)
            var next = try RouteKeeper(plan: plan, interface: tun.index, log: quiet)
            next.reconcile([prefix(site.long)], now: now)
            #expect(try lab.way(site.inLong) == .other(tun.index))
            #expect(try lab.way(site.inWide) == .underlay)
            next.removeAll()
            #expect(try lab.ours().routes.isEmpty && lab.ours().rules.isEmpty)
        }
    }

    @Test(
        "of two gateways on one host the live one takes over, whichever came first", arguments: sites,
        [true, false])
    func twoGateways(_ site: Site, isFirst: Bool) throws {
        try withLab(site) { lab in
            let tun = try TunDevice.open(name: "vgw1")
            try lab.netlink.setUp(tun.index)
            let otherPlan = RoutePlan(table: 7, mark: 7, addresses: [])
            var keeper = try RouteKeeper(
                plan: isFirst ? plan : otherPlan, interface: lab.tun.index, log: quiet)
            var other = try RouteKeeper(plan: isFirst ? otherPlan : plan, interface: tun.index, log: quiet)
            keeper.reconcile([prefix(site.prefix)], now: now)
            other.reconcile([prefix(site.prefix)], now: now)
            keeper.reconcile([prefix(site.prefix, .unreachable)], now: now)
            #expect(try lab.way(site.inPrefix) == .other(tun.index))
            other.reconcile([prefix(site.prefix, .unreachable)], now: now)
            #expect(try lab.way(site.inPrefix) == unreachable)
            keeper.reconcile([prefix(site.prefix)], now: now)
            #expect(try lab.way(site.inPrefix) == .tun)
            // A killed one's last resort is in nobody's way.
            try shell("ip link del vgw0")
            other.reconcile([prefix(site.prefix)], now: now)
            #expect(try lab.way(site.inPrefix) == .other(tun.index))
            // Each removes its own.
            keeper.removeAll()
            #expect(try lab.way(site.inPrefix) == .other(tun.index))
            other.removeAll()
            #expect(try lab.ours().routes.isEmpty && lab.ours().rules.isEmpty)
        }
    }

    @Test("in the main table an equal route takes over, and without one it is unreachable", arguments: sites)
    func mainTable(_ site: Site) throws {
        try withLab(site) { lab in
            let plan = RoutePlan(
                table: NetlinkRoute.mainTable, mark: 0, addresses: [], interfaceName: "vgw0")
            let other = RoutePlan(
                table: NetlinkRoute.mainTable, mark: 0, addresses: [], interfaceName: "vgw1")
            let tun = try TunDevice.open(name: "vgw1")
            try lab.netlink.setUp(tun.index)
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            var second = try RouteKeeper(plan: other, interface: tun.index, log: quiet)
            second.reconcile([prefix(site.prefix, .unreachable)], now: now)
            #expect(try lab.way(site.inPrefix) == unreachable)
            keeper.reconcile([prefix(site.prefix)], now: now)
            let failures = keeper.failures
            #expect(failures.isEmpty)
            #expect(try lab.way(site.inPrefix) == .tun)
            keeper.reconcile([prefix(site.prefix, .covered), prefix(site.wide)], now: now)
            #expect(try lab.way(site.inPrefix) == .tun)
            keeper.reconcile([prefix(site.prefix, .unreachable)], now: now)
            #expect(try lab.way(site.inPrefix) == unreachable)
            #expect(try lab.way(site.inWide) == .underlay)
            try shell("\(site.ip) route add \(site.prefix) dev near metric 9999")
            #expect(try lab.way(site.inPrefix) == .other(lab.neighbour))
            try shell("\(site.ip) route del \(site.prefix) dev near metric 9999")
            keeper.reconcile([prefix(site.prefix)], now: now)
            try shell("ip link set vgw0 down")
            #expect(try lab.way(site.inPrefix) == unreachable)
            keeper.removeAll()
            #expect(try lab.way(site.inPrefix) == unreachable, "the second gateway's is still there")
            second.removeAll()
            #expect(try lab.way(site.inPrefix) == .underlay)
            #expect(try lab.ours().routes.isEmpty)
        }
    }

    @Test("what an earlier version left is replaced and not left behind", arguments: sites)
    func upgrade(_ site: Site) throws {
        try withLab(site) { lab in
            let family = try #require(IPPrefix(site.prefix)).family
            let width = UInt32(family.width) - 16
            let old = [
                NetlinkRoute(
                    destination: IPPrefix(site.prefix)!, interface: lab.tun.index, table: 51820),
                NetlinkRoute(
                    destination: IPPrefix(site.prefix)!, interface: 0, table: 51820, metric: .max - 1,
                    kind: .unreachable),
                NetlinkRoute(
                    destination: IPPrefix(site.long)!, interface: 0, table: 51820, metric: .max - 1,
                    kind: .unreachable),
            ]
            try lab.netlink.apply(old.map { .add($0, replacing: true) }) { Issue.record("\(old[$0]): \($1)") }
            for rule in [
                NetlinkRule(
                    family: family, priority: 32_000 + 2 * width, mark: 51820, isInverted: true, table: 254,
                    suppressedPrefixLength: 16),
                NetlinkRule(
                    family: family, priority: 32_001 + 2 * width, mark: 51820, isInverted: true,
                    table: 51820, suppressedPrefixLength: 15),
            ] { try lab.netlink.addRule(rule) }
            #expect(try lab.way(site.inPrefix) == .tun)
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            keeper.reconcile([prefix(site.prefix)], now: now)
            let wanted = plan.wanted(for: [prefix(site.prefix)], interface: lab.tun.index)
            #expect(Set(try lab.ours().routes) == wanted.routes)
            #expect(Set(try lab.ours().rules) == wanted.rules)
            #expect(try lab.way(site.inPrefix) == .tun)
            #expect(try lab.way(site.inLong) == .tun)
        }
    }

    /// Looks up the address again and again while `body` runs, and counts where it is sent.
    private func watching(_ lab: Lab, _ address: String, _ body: () throws -> Void) throws -> Watch {
        let (underlay, tun) = (lab.underlay, lab.tun.index)
        let address = try #require(IPAddress(address))
        let watch = Watch()
        let thread = try Thread.spawn(name: "watch") {
            guard let netlink = try? Netlink() else { return }
            while !watch.isOver.load(ordering: .relaxed) {
                do throws(SystemError) {
                    switch try netlink.way(to: address).interface {
                    case tun: watch.inTun.add(1, ordering: .relaxed)
                    case underlay: watch.inClear.add(1, ordering: .relaxed)
                    default: watch.nowhere.add(1, ordering: .relaxed)
                    }
                } catch {
                    // Linux says so, and does not look on, when an IPv6 route goes between being found and being
                    // used. It is no state of ours: this host has a default route.
                    if error.code == ENETUNREACH { continue }
                    watch.nowhere.add(1, ordering: .relaxed)
                }
            }
        }
        defer {
            watch.isOver.store(true, ordering: .relaxed)
            thread.join()
        }
        try body()
        return watch
    }

    @Test("at no moment of any change does a packet leave in clear", arguments: sites)
    func neverInClear(_ site: Site) throws {
        try withLab(site) { lab in
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            keeper.reconcile([prefix(site.wide)], now: now)
            let states: [WantedPrefix.State] = [.carried, .covered, .unreachable]
            let watch = try watching(lab, site.inLong) {
                for round in 0..<100 {
                    for long in states + [.withdrawn] {
                        keeper.reconcile(
                            [prefix(site.long, long), prefix(site.wide, states[round % 3])], now: now)
                    }
                    keeper.reconcile([prefix(site.wide)], now: now)
                }
            }
            #expect(watch.inTun.load(ordering: .relaxed) > 0)
            #expect(watch.nowhere.load(ordering: .relaxed) > 0)
            #expect(watch.inClear.load(ordering: .relaxed) == 0)
        }
    }

    @Test("no change around a prefix that something of ours carries holds a packet up", arguments: sites)
    func neverNowhere(_ site: Site) throws {
        try withLab(site) { lab in
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            let wide = prefix(site.wide)
            keeper.reconcile([wide], now: now)
            let watch = try watching(lab, site.inLong) {
                for _ in 0..<200 {
                    keeper.reconcile([prefix(site.long), wide], now: now)
                    keeper.reconcile([prefix(site.long, .covered), wide], now: now)
                    keeper.reconcile([prefix(site.long), wide, prefix(site.everything)], now: now)
                    keeper.reconcile([prefix(site.long, .withdrawn), wide], now: now)
                    keeper.reconcile([wide], now: now)
                }
                for mark in UInt32(1)..<50 {
                    try keeper.changeMark(to: mark, prefixes: [wide]) { () throws(SystemError) in }
                }
            }
            #expect(watch.inTun.load(ordering: .relaxed) > 0)
            #expect(watch.nowhere.load(ordering: .relaxed) == 0)
            #expect(watch.inClear.load(ordering: .relaxed) == 0)
        }
    }

    @Test("an unreachable aggregate in the main table hides the tunnel, and nothing leaves in clear")
    func aggregate() throws {
        for site in Self.sites {
            try withLab(site) { lab in
                var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
                keeper.reconcile([prefix(site.prefix)], now: now)
                try shell("\(site.ip) route add unreachable \(site.wide)")
                #expect(try lab.way(site.inPrefix) == unreachable)
                try shell("\(site.ip) route del unreachable \(site.wide)")
                #expect(try lab.way(site.inPrefix) == .tun)
            }
        }
    }

    @Test("another mark takes the rules along; when the sockets cannot follow, everything is as before")
    func marks() throws {
        try withLab(Self.sites[0]) { lab in
            let site = lab.site
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            let prefixes = [prefix(site.prefix)]
            keeper.reconcile(prefixes, now: now)
            let error = systemError { () throws(SystemError) in
                try keeper.changeMark(to: 9, prefixes: prefixes) { () throws(SystemError) in
                    throw SystemError(call: "set mark", code: EPERM)
                }
            }
            #expect(error?.code == EPERM)
            #expect(try lab.way(site.inPrefix, mark: 51820) == .underlay)
            try keeper.changeMark(to: 9, prefixes: prefixes) { () throws(SystemError) in }
            #expect(try lab.way(site.inPrefix) == .tun)
            #expect(try lab.way(site.inPrefix, mark: 9) == .underlay)
            #expect(try lab.way(site.inPrefix, mark: 51820) == .tun)
            #expect(try lab.ours().rules.allSatisfy { $0.mark == 9 })
            keeper.removeAll()
            #expect(try lab.ours().routes.isEmpty && lab.ours().rules.isEmpty)
        }
    }

    @Test(
        "a source comes to a route, changes and goes; a source that is not there leaves the route without one"
    )
    func sources() throws {
        for site in Self.sites {
            // In a table of our own, and in the main one, where nobody else's route is replaced.
            for table in [UInt32(51820), NetlinkRoute.mainTable] {
                try withLab(site) { lab in
                    let plan = RoutePlan(table: table, mark: table == 51820 ? 51820 : 0, addresses: [])
                    let (one, two) = (site.ip == "ip -4" ? ("10.1.0.1", "10.2.0.1") : ("fd01::1", "fd02::1"))
                    for address in [one, two] {
                        // Without duplicate address detection, until the end of which no route takes it.
                        try shell(
                            "\(site.ip) addr add \(address)/\(site.ip == "ip -4" ? "16" : "64 nodad") dev near"
                        )
                    }
                    var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
                    for source in [nil, one, two, nil, "\(one)99", two] as [String?] {
                        var prefix = prefix(site.prefix)
                        prefix.source = source.flatMap { IPAddress($0) }
                        keeper.reconcile([prefix], now: now)
                        let routes = try lab.ours().routes.filter { $0.kind == .unicast }
                        let isThere = source != "\(one)99"
                        #expect(
                            routes.map(\.preferredSource) == [isThere ? prefix.source : nil],
                            "\(site.ip) table \(table) \(source ?? "none")")
                        #expect((keeper.deadline != nil) == !isThere)
                    }
                    try shell("\(site.ip) addr flush dev near")
                    keeper.reconcile([prefix(site.prefix)], now: now)
                    #expect(try lab.ours().routes.count { $0.kind == .unicast } == 1)
                }
            }
        }
    }

    @Test("our own changes disturb nobody; what others take away or put in its place comes back")
    func disturbance() throws {
        try withLab(Self.sites[0]) { lab in
            let site = lab.site
            var monitor = try NetlinkMonitor()
            func disturbances(_ keeper: inout RouteKeeper) throws -> [NetlinkEvent] {
                var poll = PollSet(monitor.fd)
                var found: [NetlinkEvent] = []
                while poll.wait(timeout: .milliseconds(100)) > 0 {
                    for event in try monitor.next() where keeper.concerns(event) { found.append(event) }
                }
                return found
            }
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            _ = try disturbances(&keeper)
            for state in [WantedPrefix.State.carried, .unreachable, .withdrawn, .covered, .carried] {
                keeper.reconcile([prefix(site.prefix, state)], now: now)
                let found = try disturbances(&keeper)
                #expect(found.isEmpty, "\(state)")
            }
            for command in [
                "ip route del \(site.prefix) table 51820",
                "ip route del unreachable \(site.prefix) table \(RoutePlan.backstopTable(of: 51820, length: 16))",
                "ip route replace \(site.prefix) dev near table 51820",
                "ip rule del priority 32064",
            ] {
                try shell(command)
                let found = try disturbances(&keeper)
                #expect(found.count == 1, "\(command)")
                keeper.reconcile([prefix(site.prefix)], now: now)
                let wanted = plan.wanted(for: [prefix(site.prefix)], interface: lab.tun.index)
                #expect(try Set(lab.ours().routes) == wanted.routes, "\(command)")
                #expect(try Set(lab.ours().rules) == wanted.rules, "\(command)")
                _ = try disturbances(&keeper)
            }
        }
    }

    @Test(
        "what an earlier run left under other numbers goes, once the guard is there under those of this one")
    func otherNumbers() throws {
        for site in Self.sites {
            try withLab(site) { lab in
                func named(_ number: UInt32, _ name: String) -> RoutePlan {
                    RoutePlan(table: number, mark: number, addresses: [], interfaceName: name)
                }
                func ownMarks(_ plan: RoutePlan) throws -> Set<UInt32> {
                    RoutingSurvey(
                        rules: try lab.netlink.rules(protocol: nil), routes: try lab.netlink.routes(),
                        plan: plan, interface: lab.tun.index
                    ).ownMarks
                }
                let tun = try TunDevice.open(name: "vgw1")
                try lab.netlink.setUp(tun.index)
                var other = try RouteKeeper(plan: named(9, "vgw1"), interface: tun.index, log: quiet)
                other.reconcile([prefix(site.wide)], now: now)
                let others = try lab.ours()
                var before = try RouteKeeper(plan: named(5, "vgw0"), interface: lab.tun.index, log: quiet)
                var exclusive = prefix(site.long)
                exclusive.isExclusive = true
                before.reconcile([prefix(site.everything), exclusive], now: now)

                let plan = named(6, "vgw0")
                #expect(try ownMarks(plan) == [5])
                var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
                keeper.reconcile([prefix(site.everything)], now: now)
                #expect(try lab.way(site.far, mark: 6) != .underlay, "the old rules lead marked packets")
                let (count, refusal) = keeper.removeLeftovers(marks: try ownMarks(plan))
                #expect(count > 0 && refusal == nil)
                #expect(try lab.way(site.far, mark: 6) == .underlay)
                #expect(try lab.way(site.far) == .tun)
                #expect(try lab.way(site.inWide) == .other(tun.index))
                let wanted = plan.wanted(for: [prefix(site.everything)], interface: lab.tun.index)
                #expect(Set(try lab.ours().routes) == wanted.routes.union(others.routes))
                #expect(Set(try lab.ours().rules) == wanted.rules.union(others.rules))
                // Not another gateway's either, by hand.
                #expect(throws: SystemError.self) {
                    try keeper.changeMark(to: 9, prefixes: []) { () throws(SystemError) in }
                }
            }
        }
    }

    @Test("rules and unreachable routes that somebody removed are put back and counted")
    func repairs() throws {
        try withLab(Self.sites[0]) { lab in
            let prefixes = [prefix(lab.site.prefix)]
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            for _ in 0..<2 { keeper.reconcile(prefixes, now: now) }
            let none = keeper.repairs
            #expect(none == 0)
            // As systemd-networkd does when it starts.
            try shell("ip rule flush protocol 153; ip route flush table all type unreachable proto 153")
            keeper.reconcile(prefixes, now: now)
            let all = keeper.repairs
            #expect(all == 6, "four rules, the last resort, the sign")
            #expect(try lab.way(lab.site.inPrefix) == .tun)
            // The kernel takes what leads into a link with the link.
            try shell("ip link set vgw0 down; ip link set vgw0 up")
            keeper.reconcile(prefixes, now: now)
            let after = keeper.repairs
            #expect(after == all)
        }
    }

    @Test("without IPv6 on the interface IPv4 is whole, and what is missing comes when it can")
    func oneFamily() throws {
        try withLab(Self.sites[0]) { lab in
            let (v4, v6) = (IPPrefix("10.9.0.1/30")!, IPPrefix("fd09::1/64")!)
            let plan = RoutePlan(table: 51820, mark: 51820, addresses: [v6, v4])
            let prefixes = [prefix(Self.sites[0].prefix), prefix(Self.sites[1].prefix)]
            try shell("echo 1 >/proc/sys/net/ipv6/conf/vgw0/disable_ipv6")
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            keeper.reconcile(prefixes, now: now)
            #expect(try lab.netlink.addresses(of: lab.tun.index).map(\.prefix) == [v4])
            #expect(try lab.way(lab.site.inPrefix) == .tun)
            let missing = keeper.missingAddresses.mapValues(\.code)
            #expect(missing == [v6: EACCES])
            let failures = keeper.failures
            #expect(failures.keys.map(\.self) == [prefixes[1].prefix])
            let deadline = keeper.deadline
            #expect(deadline != nil)

            try shell("echo 0 >/proc/sys/net/ipv6/conf/vgw0/disable_ipv6")
            keeper.reconcile(prefixes, now: now)
            #expect(try lab.netlink.addresses(of: lab.tun.index).map(\.prefix).contains(v6))
            let isWhole = keeper.missingAddresses.isEmpty && keeper.failures.isEmpty
            #expect(isWhole)
        }
    }

    @Test("thousands of prefixes fail and return as a whole")
    func thousands() throws {
        try withLab(Self.sites[0]) { lab in
            func prefixes(_ state: WantedPrefix.State) -> [WantedPrefix] {
                (0..<5000).map { prefix("10.\($0 >> 8).\($0 & 255).0/24", state) }
            }
            var keeper = try RouteKeeper(plan: plan, interface: lab.tun.index, log: quiet)
            for state in [WantedPrefix.State.carried, .carried, .unreachable, .carried] {
                keeper.reconcile(prefixes(state), now: now)
            }
            let failures = keeper.failures
            #expect(failures.isEmpty)
            #expect(try lab.ours().routes.count == 10_001)
            keeper.removeAll()
            #expect(try lab.ours().routes.isEmpty)
        }
    }
}

private final class Watch: Sendable {
    let isOver = Atomic(false)
    let inTun = Atomic(0)
    let inClear = Atomic(0)
    let nowhere = Atomic(0)
}
