internal import GatewayCore
import LinuxIO
import Logging
import TestSupport
import Testing
import WireGuard

@testable import Daemon

@Suite struct LearnedRoutesTests {
    private let near = IPAddress("169.254.101.1")!
    private let far = IPAddress("169.254.102.1")!

    /// The macros of the tests take no `inout`.
    private final class Learner {
        var routes: LearnedRoutes

        init(interface: UInt32 = 5, limit: Int = LearnedGuard.limit) {
            routes = LearnedRoutes(interface: interface, limit: limit)
        }

        var needsDump: Bool { routes.needsDump }
        var isEmpty: Bool { routes.isEmpty }
        func prefixes(via remotes: [IPAddress]) -> [LearnedRoute] { routes.prefixes(via: remotes) }
        func handle(_ event: NetlinkEvent) -> Bool { routes.handle(event) }
        @discardableResult func replace(_ dump: [NetlinkRoute]) -> Bool { routes.replace(dump) }
    }

    private func route(
        _ prefix: String, via gateway: IPAddress?, interface: UInt32 = 5, others: [NetlinkHop] = [],
        table: UInt32 = 254, protocol: UInt8 = 12, metric: UInt32 = 32
    ) -> NetlinkRoute {
        NetlinkRoute(
            destination: IPPrefix(prefix)!, interface: interface, gateway: gateway, otherHops: others,
            table: table, protocol: `protocol`, metric: metric)
    }

    private func learned(_ prefix: String, metric: UInt32 = 32) -> LearnedRoute {
        LearnedRoute(IPPrefix(prefix)!, metric: metric)
    }

    @Test("routes by a far inside address belong to it, whoever made them but us and the kernel itself")
    func selection() {
        let routes = Learner(interface: 5)
        #expect(routes.needsDump)
        #expect(
            routes.replace([
                route("10.1.0.0/16", via: near), route("10.2.0.0/16", via: far),
                route("10.3.0.0/16", via: near, protocol: 3), route("10.4.0.0/16", via: near, protocol: 186),
                route("10.5.0.0/16", via: near, protocol: NetlinkRoute.ownProtocol),
                route("10.6.0.0/16", via: near, protocol: NetlinkRoute.kernelProtocol),
                route("10.7.0.0/16", via: near, interface: 6), route("10.8.0.0/16", via: nil),
                route("10.9.0.0/16", via: near, table: 100),
                route("10.1.0.0/16", via: near, table: 100, metric: 7), route("224.0.0.0/4", via: near),
            ]))
        #expect(!routes.needsDump)
        #expect(
            routes.prefixes(via: [near]) == [
                learned("10.1.0.0/16", metric: 7), learned("10.3.0.0/16"), learned("10.4.0.0/16"),
                LearnedRoute(IPPrefix("10.9.0.0/16")!, metric: 32, isInMainTable: false),
            ])
        #expect(routes.prefixes(via: [far]) == [learned("10.2.0.0/16")])
        #expect(routes.prefixes(via: [near, far]).count == 5)
        #expect(routes.prefixes(via: []).isEmpty)
    }

    @Test("of a multipath route every hop counts, and a hop may go alone")
    func multipath() {
        let routes = Learner(interface: 5)
        let both = route(
            "fd01::/16", via: IPAddress("fd00::1")!,
            others: [NetlinkHop(interface: 5, gateway: IPAddress("fd00::2")!), NetlinkHop(interface: 9)])
        #expect(routes.handle(.routeAdded(both)))
        #expect(!routes.handle(.routeAdded(both)))
        #expect(routes.prefixes(via: [IPAddress("fd00::1")!]).count == 1)
        #expect(routes.prefixes(via: [IPAddress("fd00::2")!]).count == 1)
        #expect(routes.handle(.routeRemoved(route("fd01::/16", via: IPAddress("fd00::1")!))))
        #expect(routes.prefixes(via: [IPAddress("fd00::1")!]).isEmpty)
        #expect(routes.prefixes(via: [IPAddress("fd00::2")!]).count == 1)
        #expect(routes.handle(.routeRemoved(both)))
        #expect(routes.isEmpty)
        #expect(!routes.handle(.routeRemoved(both)))
    }

    @Test("a prefix is learned from each of its routes, with the metric of each, and not only from the best")
    func alternatives() {
        let routes = Learner(interface: 5)
        routes.replace([
            route("10.1.0.0/16", via: near), route("10.1.0.0/16", via: far, metric: 64),
            route("10.2.0.0/16", via: near), route("10.2.0.0/16", via: near, table: 1001, metric: 64),
            route("10.2.0.0/16", via: far, table: 1002, metric: 64),
        ])
        #expect(routes.prefixes(via: [near]) == [learned("10.1.0.0/16"), learned("10.2.0.0/16")])
        #expect(
            routes.prefixes(via: [far]) == [
                learned("10.1.0.0/16", metric: 64),
                LearnedRoute(IPPrefix("10.2.0.0/16")!, metric: 64, isInMainTable: false),
            ])
    }

    @Test("events: another way, a foreign route in its place, and what the kernel does not tell")
    func events() {
        let routes = Learner(interface: 5)
        routes.replace([route("10.1.0.0/16", via: near)])
        #expect(routes.handle(.routeAdded(route("10.1.0.0/16", via: far))))
        #expect(routes.prefixes(via: [near]).isEmpty)
        #expect(!routes.handle(.routeAdded(route("10.9.0.0/16", via: near, interface: 6))))
        #expect(!routes.needsDump)
        #expect(!routes.handle(.routeAdded(route("10.1.0.0/16", via: near, interface: 6))))
        #expect(routes.needsDump)
        #expect(!routes.replace([route("10.1.0.0/16", via: far)]))
        let address = NetlinkAddress(prefix: IPPrefix("169.254.101.2/30")!, interface: 5)
        #expect(!routes.handle(.addressRemoved(address)) && routes.needsDump)
        routes.replace([route("10.1.0.0/16", via: far)])
        #expect(!routes.handle(.overflow) && routes.needsDump)
        #expect(routes.handle(.linkChanged(NetlinkLink(index: 5, name: "t", mtu: 1420, isUp: false))))
        #expect(routes.isEmpty && !routes.needsDump)
        #expect(!routes.handle(.linkChanged(NetlinkLink(index: 5, name: "t", mtu: 1420, isUp: true))))
        #expect(routes.needsDump)
    }

    @Test("there is a limit, and room is used again")
    func limit() {
        let routes = Learner(interface: 5, limit: 8)
        let all = (0..<20).map { route("10.\($0).0.0/16", via: near) }
        routes.replace(all)
        #expect(routes.prefixes(via: [near]).count == 8)
        #expect(routes.routes.isTruncated && !routes.needsDump)
        #expect(!routes.handle(.routeAdded(route("10.99.0.0/16", via: near))))
        for route in all[..<8] { _ = routes.handle(.routeRemoved(route)) }
        #expect(routes.needsDump)
        routes.replace(Array(all[8..<12]))
        #expect(!routes.routes.isTruncated && routes.prefixes(via: [near]).count == 4)
    }

    @Test("the kernel's routes of a routing daemon, of both families, are learned and forgotten")
    func kernel() throws {
        try inNamespace {
            let netlink = try Netlink()
            let tun = try TunDevice.open(name: "vgw0")
            try netlink.setUp(tun.index)
            try shell(
                "ip link add near type veth peer name near-end; ip link set near up; ip link set near-end up")
            try shell("ip addr add 169.254.101.2/30 dev vgw0; ip addr add 169.254.102.2/30 dev vgw0")
            try shell("ip addr add fd00::2/64 dev vgw0; ip addr add 192.0.2.1/24 dev near")
            var monitor = try NetlinkMonitor()
            try shell(
                """
                ip route add 10.1.0.0/16 via 169.254.101.1 proto bird
                ip route add 10.2.0.0/16 proto bird nexthop via 169.254.101.1 nexthop via 169.254.102.1
                ip route add 10.3.0.0/16 proto bird nexthop via 192.0.2.2 nexthop via 169.254.102.1
                ip route add 10.4.0.0/16 via inet6 fd00::1 dev vgw0 proto bird
                ip route add 10.5.0.0/16 dev vgw0 proto bird
                ip route add 10.6.0.0/16 via 192.0.2.2 proto bird
                ip -6 route add fd01::/16 proto bird nexthop via fd00::1 nexthop via fd00::3
                ip -6 route add default via fd00::1 proto bird metric 7
                ip route add 10.7.0.0/16 via 169.254.101.1 proto bird table 100
                """)
            let v6 = IPAddress("fd00::1")!
            func check(_ routes: LearnedRoutes) {
                #expect(
                    routes.prefixes(via: [near]).map(\.prefix.description)
                        == ["10.1.0.0/16", "10.2.0.0/16", "10.7.0.0/16"])
                #expect(
                    routes.prefixes(via: [far]).map(\.prefix.description) == ["10.2.0.0/16", "10.3.0.0/16"])
                #expect(
                    routes.prefixes(via: [v6]) == [
                        learned("10.4.0.0/16", metric: 0), learned("::/0", metric: 7),
                        learned("fd01::/16", metric: 1024),
                    ])
            }
            var dumped = LearnedRoutes(interface: tun.index)
            dumped.replace(try netlink.routes(through: tun.index))
            check(dumped)

            // The same by events.
            var told = LearnedRoutes(interface: tun.index)
            told.replace([])
            var poll = PollSet(monitor.fd)
            func listen() throws {
                while poll.wait(timeout: .milliseconds(100)) > 0 {
                    for event in try monitor.next() {
                        _ = told.handle(event)
                        _ = dumped.handle(event)
                    }
                }
            }
            try listen()
            check(told)
            #expect(!told.needsDump)
            try shell(
                """
                ip route del 10.1.0.0/16; ip route replace 10.2.0.0/16 via 169.254.102.1 proto bird
                ip -6 route del fd01::/16 via fd00::1 proto bird
                """)
            try listen()
            #expect(told.prefixes(via: [near]).map(\.prefix.description) == ["10.7.0.0/16"])
            #expect(told.prefixes(via: [v6]).map(\.prefix.description) == ["10.4.0.0/16", "::/0"])
            #expect(told.prefixes(via: [IPAddress("fd00::3")!]).map(\.prefix.description) == ["fd01::/16"])
            try shell("ip link set vgw0 down")
            try listen()
            #expect(told.isEmpty && dumped.isEmpty)
            #expect(try netlink.routes(through: tun.index).filter { $0.protocol == 12 }.isEmpty)
        }
    }

    @Test("the plan's rules let learned routes pass by, and a learned route over an endpoint is found out")
    func besideThePlan() throws {
        try inNamespace {
            let netlink = try Netlink()
            let tun = try TunDevice.open(name: "vgw0")
            try netlink.setUp(tun.index)
            try shell("ip link add under type veth peer name end; ip link set under up; ip link set end up")
            try shell("ip addr add 198.51.100.1/24 dev under; ip route add default via 198.51.100.254")
            try shell("ip addr add 169.254.101.2/30 dev vgw0")
            let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            var keeper = try RouteKeeper(
                plan: RoutePlan(table: 51820, mark: 51820, addresses: []), interface: tun.index, log: quiet)
            // The aggregate is what holds when the learned routes are gone.
            keeper.reconcile(
                [WantedPrefix(IPPrefix("10.0.0.0/8")!), WantedPrefix(IPPrefix("172.16.9.0/24")!)],
                now: Instant(nanoseconds: 0))
            try shell(
                "for p in 10.1.0.0/16 172.16.0.0/12 203.0.113.0/24; do ip route add $p via 169.254.101.1 proto bird; done"
            )
            for address in ["10.1.0.1", "10.2.0.1", "172.16.1.1", "172.16.9.1", "203.0.113.7"] {
                let way = try keeper.way(of: NetlinkPacket(to: IPAddress(address)!))
                #expect(way.interface == tun.index)
            }
            var loops: [Bool] = []
            for address in ["203.0.113.7", "198.51.100.77", "10.2.0.1"] {
                loops.append(keeper.leadsIntoTunnel(IPAddress(address)!, mark: 51820))
            }
            #expect(loops == [true, false, false])
            try shell("ip link set vgw0 down")
            for (address, code) in [("10.1.0.1", "EHOSTUNREACH"), ("172.16.9.1", "EHOSTUNREACH")] {
                let error = systemError { () throws(SystemError) in
                    _ = try keeper.way(of: NetlinkPacket(to: IPAddress(address)!))
                }
                #expect(error.map { SystemError.name($0.code) } == code)
            }
            // Nothing of ours stands behind this one: it goes by the default route.
            let way = try keeper.way(of: NetlinkPacket(to: IPAddress("172.16.1.1")!))
            #expect(way.interface != tun.index)
        }
    }

    enum Way: Equatable {
        case tun
        case elsewhere
        case unreachable
    }

    private final class Kernel {
        var keeper: RouteKeeper

        init(keeper: consuming RouteKeeper) { self.keeper = keeper }
    }

    @Test("a learned prefix that is withdrawn, or whose TUN is gone, does not leave in clear")
    func guarded() throws {
        try inNamespace {
            let netlink = try Netlink()
            var tun: TunDevice? = try TunDevice.open(name: "vgw0")
            let index = tun?.index ?? 0
            try netlink.setUp(index)
            try shell("ip link add under type veth peer name end; ip link set under up; ip link set end up")
            try shell("ip addr add 198.51.100.1/24 dev under; ip route add default via 198.51.100.254")
            try shell("ip addr add 169.254.101.2/30 dev vgw0")
            let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let plan = RoutePlan(table: 51820, mark: 51820, addresses: [])
            let kernel = Kernel(keeper: try RouteKeeper(plan: plan, interface: index, log: quiet))
            func way(_ address: String = "10.20.0.1") throws -> Way {
                do throws(SystemError) {
                    return try netlink.way(to: IPAddress(address)!).interface == index ? .tun : .elsewhere
                } catch {
                    guard SystemError.name(error.code) == "EHOSTUNREACH" else { throw error }
                    return .unreachable
                }
            }
            func reconcile(_ state: WantedPrefix.State, _ prefix: String = "10.20.0.0/16") {
                kernel.keeper.reconcile(
                    [WantedPrefix(IPPrefix(prefix)!, state: state, isLearned: true)],
                    now: Instant(nanoseconds: 0))
            }
            func learned() throws -> [String] { try kernel.keeper.learnedGuards().map(\.description) }
            let announce = "ip route add 10.20.0.0/16 via 169.254.101.1 proto bird metric 32"

            try shell(announce)
            reconcile(.carried)
            #expect(try way() == .tun)
            try shell("ip route del 10.20.0.0/16 metric 32")
            #expect(try way() == .unreachable)
            reconcile(.unreachable)
            #expect(try way() == .unreachable && learned() == ["10.20.0.0/16"])
            #expect(try way("10.21.0.1") == .elsewhere)
            // The far site has the aggregate now.
            try shell("ip route add 10.0.0.0/8 via 169.254.101.1 proto bird metric 32")
            #expect(try way() == .unreachable)
            reconcile(.covered)
            #expect(try way() == .tun && learned() == ["10.20.0.0/16"])
            try shell("ip route del 10.0.0.0/8 metric 32")
            reconcile(.unreachable)
            // It is back; or it has moved, and somebody else has an equal or a longer route.
            for there in [announce, "ip route add 10.20.0.0/16 via 198.51.100.9"] {
                try shell(there)
                #expect(try way() == (there == announce ? .tun : .elsewhere))
                try shell(there.replacing("add", with: "del"))
            }
            try shell("ip route add 10.20.0.0/24 via 198.51.100.9")
            #expect(try way() == .elsewhere && way("10.20.1.1") == .unreachable)
            try shell("ip route del 10.20.0.0/24")

            // Who learns the default route has one of ours, as the main table's is let past by nobody.
            reconcile(.carried, "0.0.0.0/0")
            #expect(try way() == .tun)
            reconcile(.unreachable, "0.0.0.0/0")
            #expect(try way("192.0.2.9") == .unreachable && way("198.51.100.9") == .elsewhere)
            reconcile(.carried)
            try shell(announce)
            tun = nil
            try shell("while ip link show vgw0 2>/dev/null; do sleep 0.05; done")
            #expect(try way() == .unreachable)
            // The next run knows it again; a configured prefix is none of these.
            #expect(try learned() == ["10.20.0.0/16"])
            kernel.keeper.reconcile(
                [WantedPrefix(IPPrefix("10.20.0.0/16")!)], now: Instant(nanoseconds: 0))
            #expect(try learned().isEmpty)
            reconcile(.withdrawn)
            #expect(try way() == .elsewhere)
        }
    }
}
