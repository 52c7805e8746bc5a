import Glibc
import LinuxIO
import TestSupport
import Testing
import WireGuard

@Suite struct NetlinkTests {
    static func prefix(_ text: String) throws -> IPPrefix { try #require(IPPrefix(text)) }
    static func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    /// In a namespace with a TUN that is up.
    func withTun(_ body: (borrowing Netlink, TunDevice) throws -> Void) throws {
        try inNamespace {
            let tun = try TunDevice.open(name: "linuxio0")
            let netlink = try Netlink()
            try netlink.setUp(tun.index)
            try body(netlink, tun)
        }
    }

    @Test func `links are found by name and index, set up and down, and their MTU changed`() throws {
        try withTun { netlink, tun in
            #expect(try netlink.link("linuxio0")?.isUp == true)
            try netlink.setMTU(tun.index, 1420)
            try shell("ip link set linuxio0 down")
            let link = try netlink.link(index: tun.index)
            #expect(
                link
                    == NetlinkLink(
                        index: tun.index, name: "linuxio0", mtu: 1420, isUp: false, hasCarrier: false,
                        isPointToPoint: true, kind: "tun"))
            #expect(try netlink.link("nothere") == nil)
            #expect(try netlink.link(index: 4242) == nil)
            let error = systemError { () throws(SystemError) in try netlink.setMTU(tun.index, 1) }
            #expect(error == SystemError(call: "set link \(tun.index) mtu 1", code: EINVAL))
            #expect(systemError { () throws(SystemError) in try netlink.setUp(4242) }?.code == ENODEV)
        }
    }

    @Test func `addresses are added twice without harm, listed and removed`() throws {
        try withTun { netlink, tun in
            let texts = ["10.9.0.1/24", "169.254.100.2/30", "fd09::1/64", "192.0.2.7/32"]
            let prefixes = try texts.map { try Self.prefix($0) }
            for prefix in prefixes + prefixes { try netlink.addAddress(prefix, to: tun.index) }
            var listed = try netlink.addresses(of: tun.index).filter {
                !$0.prefix.address.isLinkLocal || $0.prefix.family == .v4
            }
            #expect(Set(listed.map(\.prefix)) == Set(prefixes))
            #expect(listed.allSatisfy { $0.peer == nil && $0.interface == tun.index })
            for prefix in prefixes + prefixes { try netlink.removeAddress(prefix, from: tun.index) }
            listed = try netlink.addresses(of: tun.index).filter { $0.prefix.family == .v4 }
            #expect(listed.isEmpty)
            #expect(try netlink.addresses(of: 1).map(\.prefix).contains(try Self.prefix("127.0.0.1/8")))
        }
    }

    @Test
    func `many routes go in batches, and what the kernel refuses among them holds up none of the others`()
        throws
    {
        try withTun { netlink, tun in
            let routes = try (0..<500).map { number in
                NetlinkRoute(
                    destination: try Self.prefix("10.\(number / 250).\(number % 250).0/24"),
                    interface: tun.index,
                    table: 4000)
            }
            let refusedPlaces = [0, 63, 64, 130, 499]
            var changes = routes.map { NetlinkRouteChange.add($0, replacing: false) }
            for place in refusedPlaces {
                // By a link that is not there.
                changes[place] = .add(
                    NetlinkRoute(destination: routes[place].destination, interface: 4242, table: 4000),
                    replacing: false)
            }
            var refused: [Int: SystemError] = [:]
            try netlink.apply(changes) { refused[$0] = $1 }
            #expect(refused.keys.sorted() == refusedPlaces)
            #expect(refused[63]?.code == ENODEV)
            #expect(refused[63]?.call == "add route 10.0.63.0/24 on link 4242 table 4000 metric 0")
            let there = Set(try netlink.routes(table: 4000).map(\.destination))
            #expect(
                there
                    == Set(
                        routes.indices.filter { !refusedPlaces.contains($0) }.map { routes[$0].destination }))

            // All of them, though some are not there, and one is there no more.
            try netlink.apply(routes.map { .remove($0) }) { _, error in Issue.record("\(error)") }
            #expect(try netlink.routes(table: 4000).isEmpty)
        }
    }

    @Test func `an address with a peer keeps it`() throws {
        try withTun { netlink, tun in
            for (local, peer) in [("10.9.1.1/32", "10.9.1.2"), ("fd09:1::1/128", "fd09:1::2")] {
                let address = NetlinkAddress(
                    prefix: try Self.prefix(local), peer: try Self.address(peer), interface: tun.index)
                try shell("ip addr add \(local.prefix { $0 != "/" }) peer \(peer) dev linuxio0")
                #expect(try netlink.addresses(of: tun.index).contains(address))
                try netlink.removeAddress(address)
                #expect(try !netlink.addresses(of: tun.index).contains(address))
            }
        }
    }

    @Test func `routes are added, replaced, listed by protocol and removed`() throws {
        try withTun { netlink, tun in
            try shell("ip route add 203.0.113.0/24 dev linuxio0 proto static")
            let routes = [
                NetlinkRoute(destination: try Self.prefix("10.20.0.0/16"), interface: tun.index),
                NetlinkRoute(destination: try Self.prefix("0.0.0.0/0"), interface: tun.index, table: 51820),
                NetlinkRoute(destination: try Self.prefix("10.30.0.0/16"), interface: tun.index, metric: 77),
                NetlinkRoute(destination: try Self.prefix("10.40.0.0/16"), interface: 0, kind: .unreachable),
                NetlinkRoute(
                    destination: try Self.prefix("10.20.0.0/16"), interface: 0, metric: 9999,
                    kind: .unreachable),
                NetlinkRoute(destination: try Self.prefix("2001:db8:20::/48"), interface: tun.index),
                NetlinkRoute(
                    destination: try Self.prefix("::/0"), interface: tun.index, table: 51820, metric: 5),
                NetlinkRoute(
                    destination: try Self.prefix("2001:db8:30::/48"), interface: 0, kind: .unreachable),
            ]
            for route in routes + routes { try netlink.addRoute(route) }
            #expect(Set(try netlink.routes()) == Set(routes))
            #expect(try netlink.routes(protocol: 4).count == 1)
            let error = systemError { () throws(SystemError) in
                try netlink.addRoute(routes[0], replacing: false)
            }
            #expect(error?.code == EEXIST)
            #expect(error?.call.contains("add route 10.20.0.0/16") == true)
            for route in routes + routes { try netlink.removeRoute(route) }
            #expect(try netlink.routes() == [])
            #expect(try netlink.routes(protocol: 4).count == 1)
        }
    }

    @Test func `a route to a link that is not there is an error that says so`() throws {
        try withTun { netlink, _ in
            let route = NetlinkRoute(destination: try Self.prefix("10.20.0.0/16"), interface: 4242)
            let error = systemError { () throws(SystemError) in try netlink.addRoute(route) }
            #expect(error?.code == ENODEV)
            #expect(
                "\(try #require(error))".hasPrefix("add route 10.20.0.0/16 on link 4242 table 254 metric 0: ")
            )
        }
    }

    @Test(arguments: [IPAddress.Family.v4, .v6])
    func `rules on the mark are added, listed by protocol and removed`(family: IPAddress.Family) throws {
        try withTun { netlink, _ in
            let rules =
                [
                    NetlinkRule(family: family, priority: 100, mark: 0xca6c, isInverted: true, table: 51820),
                    NetlinkRule(
                        family: family, priority: 99, mark: nil, table: 254, suppressedPrefixLength: 0),
                    NetlinkRule(family: family, priority: 98, mark: 1, mask: 0xff, table: 7),
                ]
                + [family == .v4 ? "10.20.0.0/16" : "2001:db8:20::/48"].map {
                    NetlinkRule(
                        family: family, priority: 99, mark: 7, destination: IPPrefix($0)!, table: 254)
                }
            for rule in rules + rules { try netlink.addRule(rule) }
            #expect(Set(try netlink.rules()) == Set(rules))
            for rule in rules + rules { try netlink.removeRule(rule) }
            #expect(try netlink.rules() == [])
        }
    }

    @Test func `the mark keeps outer packets out of a tunnel that covers everything`() throws {
        try withTun { netlink, tun in
            try shell(
                "ip link add under0 type veth peer name under1; ip link set under0 up; ip link set under1 up")
            try shell("ip addr add 198.51.100.1/24 dev under0; ip route add default via 198.51.100.254")
            try netlink.addAddress(try Self.prefix("10.9.0.1/24"), to: tun.index)
            try netlink.addRoute(
                NetlinkRoute(destination: try Self.prefix("0.0.0.0/0"), interface: tun.index, table: 51820))
            try netlink.addRule(
                NetlinkRule(family: .v4, priority: 100, mark: 5, isInverted: true, table: 51820))
            let far = try Self.address("203.0.113.9")
            let under = try #require(try netlink.link("under0"))
            #expect(try netlink.way(to: far).interface == tun.index)
            let outer = try netlink.way(to: far, mark: 5)
            #expect(
                outer
                    == RouteLookup(
                        interface: under.index, gateway: try Self.address("198.51.100.254"),
                        source: try Self.address("198.51.100.1")))
        }
    }

    @Test func `there is no way to an address without a route`() throws {
        try withTun { netlink, _ in
            for text in ["203.0.113.9", "2001:db8::9"] {
                let far = try Self.address(text)
                let error = systemError { () throws(SystemError) in _ = try netlink.way(to: far) }
                #expect(error == SystemError(call: "look up way to \(text)", code: ENETUNREACH))
            }
        }
    }

    @Test func `the monitor tells of links, addresses, routes and rules`() throws {
        try withTun { netlink, tun in
            var monitor = try NetlinkMonitor()
            _ = try monitor.next()
            let local = try Self.prefix("10.9.0.1/24")
            let route = NetlinkRoute(destination: try Self.prefix("10.20.0.0/16"), interface: tun.index)
            let rule = NetlinkRule(family: .v6, priority: 100, mark: 5, isInverted: true, table: 51820)
            try netlink.setMTU(tun.index, 1300)
            try netlink.addAddress(local, to: tun.index)
            try netlink.addRoute(route)
            try netlink.addRule(rule)
            try netlink.removeRule(rule)
            try netlink.removeRoute(route)
            try netlink.removeAddress(local, from: tun.index)
            try shell("ip link del linuxio0")
            var poll = PollSet(monitor.fd)
            var events: [NetlinkEvent] = []
            while poll.wait(timeout: .milliseconds(200)) > 0 { events += try monitor.next() }
            let address = NetlinkAddress(prefix: local, interface: tun.index)
            let expected: [NetlinkEvent] = [
                .linkChanged(
                    NetlinkLink(
                        index: tun.index, name: "linuxio0", mtu: 1300, isUp: true, isPointToPoint: true,
                        kind: "tun")),
                .addressAdded(address), .routeAdded(route), .ruleAdded(rule), .ruleRemoved(rule),
                .routeRemoved(route),
                .addressRemoved(address), .linkRemoved(index: tun.index, name: "linuxio0"),
            ]
            #expect(events.filter { expected.contains($0) } == expected)
        }
    }

    @Test func `the monitor can be told whose routes to keep quiet about, and tells of all others`() throws {
        try withTun { netlink, tun in
            var monitor = try NetlinkMonitor()
            _ = try monitor.next()
            try monitor.ignoreRoutes(changedBy: netlink.routePort)
            let other = try Netlink()
            var expected: Set<NetlinkEvent> = []
            for family in ["10.20.0.0/16", "fd20::/64"] {
                let route = NetlinkRoute(destination: try Self.prefix(family), interface: tun.index)
                try netlink.addRoute(route)
                try other.removeRoute(route)
                try other.addRoute(route)
                try netlink.removeRoute(route)
                expected.formUnion([.routeAdded(route), .routeRemoved(route)])
            }
            let rule = NetlinkRule(family: .v4, priority: 100, mark: 5, table: 51820)
            try netlink.addRule(rule)
            try netlink.removeRule(rule)
            var poll = PollSet(monitor.fd)
            var events: [NetlinkEvent] = []
            while poll.wait(timeout: .milliseconds(200)) > 0 { events += try monitor.next() }
            let ours = events.filter { event in
                switch event {
                case .routeAdded(let route), .routeRemoved(let route):
                    route.protocol == NetlinkRoute.ownProtocol
                default: false
                }
            }
            // Each once: the one of two that somebody else made.
            #expect(ours.count == 4 && Set(ours) == expected)
            #expect(events.filter { [.ruleAdded(rule), .ruleRemoved(rule)].contains($0) }.count == 2)
        }
    }

    @Test func `a flood of events comes in parts or as an overflow, and the monitor works on`() throws {
        try withTun { netlink, tun in
            var monitor = try NetlinkMonitor()
            try shell(
                "for i in $(seq 0 120); do for j in $(seq 0 255); do "
                    + "echo route add 10.$i.$j.0/24 dev linuxio0; done; done | ip -batch -")
            var events: [NetlinkEvent] = []
            var poll = PollSet(monitor.fd)
            while poll.wait(timeout: .milliseconds(200)) > 0 {
                // Timers must have their turn in between.
                let some = try monitor.next()
                try #require(some.count <= 65)
                events += some
            }
            #expect(events.contains(.overflow) || events.count >= 121 * 256)
            let route = NetlinkRoute(destination: try Self.prefix("192.0.2.0/24"), interface: tun.index)
            try netlink.addRoute(route)
            #expect(try netlink.routes() == [route], "the kernel gives only ours")
            #expect(poll.wait(timeout: .milliseconds(500)) == 1)
            #expect(try monitor.next().contains(.routeAdded(route)))
        }
    }
}
