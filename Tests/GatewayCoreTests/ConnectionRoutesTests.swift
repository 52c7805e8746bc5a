import Testing
import WireGuard

@testable import GatewayCore

@Suite struct ConnectionRoutesTests {
    private func route(_ number: Int, _ origin: ConnectionSpec.Route.Origin = .configured)
        -> ConnectionSpec.Route
    {
        let address = IPAddress(v4: 0x0a00_0000 + UInt32(number) * 256)
        return ConnectionSpec.Route(IPPrefix(address: address, length: 24)!, origin: origin)
    }

    @Test("each prefix is there once, in the order in which they came, whatever was removed between")
    func order() {
        var routes = ConnectionRoutes((0..<200).map { route($0) })
        routes.append(route(7, .runtime))
        #expect(routes.count == 200 && routes[route(7).prefix]?.origin == .configured)
        for number in 0..<200 where number % 5 != 0 {
            routes.remove(route(number).prefix)
            routes.remove(route(number).prefix)
        }
        routes.append(route(1, .kept))
        let left = stride(from: 0, to: 200, by: 5).map { route($0) } + [route(1, .kept)]
        #expect(Array(routes) == left && routes.count == left.count)
        #expect(routes[route(2).prefix] == nil && routes[route(195).prefix] == route(195))
        for route in left { routes.remove(route.prefix) }
        #expect(routes.isEmpty && Array(routes).isEmpty && routes == ConnectionRoutes())
    }
}
