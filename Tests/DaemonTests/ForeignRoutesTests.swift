import LinuxIO
import Testing
import WireGuard

@testable import Daemon

@Suite struct ForeignRoutesTests {
    private static let tun: UInt32 = 5
    private static let dhcp: UInt8 = 16

    private static func route(
        _ prefix: String, by interface: UInt32 = 2, protocol maker: UInt8 = dhcp,
        table: UInt32 = NetlinkRoute.mainTable
    ) -> NetlinkRoute {
        NetlinkRoute(destination: IPPrefix(prefix)!, interface: interface, table: table, protocol: maker)
    }

    /// A route, what is carried, whether the route takes packets past the tunnel.
    private static let rows: [(route: NetlinkRoute, carried: [String], isPast: Bool)] = [
        (route("10.20.0.0/17"), ["10.20.0.0/16"], true),
        (route("10.20.0.0/17", protocol: 3), ["10.20.0.0/16"], true),
        (route("2001:db8:20:1::/64", protocol: 9), ["2001:db8:20::/48"], true),
        (route("10.0.0.0/8"), ["0.0.0.0/0"], true),
        // Among equal ones the tunnel's wins, and shorter ones lose.
        (route("10.20.0.0/16"), ["10.20.0.0/16"], false),
        (route("10.0.0.0/8"), ["10.20.0.0/16"], false),
        (route("0.0.0.0/0"), ["0.0.0.0/0"], false),
        // The kernel's own, a routing daemon's, into the tunnel, of another table.
        (route("10.20.0.0/17", protocol: 2), ["10.20.0.0/16"], false),
        (route("10.20.0.0/17", protocol: 12), ["10.20.0.0/16"], false),
        (route("10.20.0.0/17", by: tun), ["10.20.0.0/16"], false),
        (route("10.20.0.0/17", table: 100), ["10.20.0.0/16"], false),
        (route("10.30.0.0/17"), ["10.20.0.0/16"], false),
    ]

    @Test(arguments: rows)
    func `a longer route of others is found, in the list and by its event`(
        route: NetlinkRoute, carried: [String], isPast: Bool
    ) {
        let carried = Set(carried.map { IPPrefix($0)! })
        var listed = ForeignRoutes(tun: Self.tun)
        #expect(listed.needsDump)
        listed.replace([route])
        #expect(!listed.needsDump)
        #expect(listed.inside(carried) == (isPast ? [route] : []))
        var told = ForeignRoutes(tun: Self.tun)
        told.replace([])
        _ = told.handle(.routeAdded(route))
        #expect(told.inside(carried) == (isPast ? [route] : []))
        _ = told.handle(.routeRemoved(route))
        #expect(told.inside(carried).isEmpty)
    }

    @Test func `after a link has changed the list is read again: its routes go without an event`() {
        var routes = ForeignRoutes(tun: Self.tun)
        routes.replace([])
        let link = NetlinkLink(index: 2, name: "eth0", mtu: 1500, isUp: false)
        #expect(routes.handle(.linkChanged(link)) && routes.needsDump)
    }
}
