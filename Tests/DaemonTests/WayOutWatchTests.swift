import GatewayCore
import Testing
import WireGuard

@testable import Daemon

@Suite struct WayOutWatchTests {
    private let peer = PeerID(1)

    private func path(_ interface: UInt32?, to endpoint: String = "203.0.113.9") -> UnderlayPath {
        UnderlayPath(
            endpoint: Endpoint(address: IPAddress(endpoint)!, port: 51820),
            source: interface.map { LocalSource(address: IPAddress("198.51.100.1")!, interface: $0) })
    }

    private func look(_ watch: inout WayOutWatch, _ path: UnderlayPath, by interface: UInt32?) -> WayOut {
        watch.look(at: peer, path, leavesBy: interface)
    }

    @Test("a source is left when the way leaves its link, once")
    func left() {
        var watch = WayOutWatch()
        #expect(look(&watch, path(2), by: 2) == WayOut(isThere: true))
        #expect(look(&watch, path(2), by: 3) == WayOut(isThere: true, left: 2))
        #expect(look(&watch, path(nil), by: 3) == WayOut(isThere: true))
        #expect(look(&watch, path(3), by: 3) == WayOut(isThere: true))
        #expect(look(&watch, path(3), by: 2) == WayOut(isThere: true, left: 3))
    }

    @Test("the first look takes the link that the source came by for the way before")
    func first() {
        var watch = WayOutWatch()
        #expect(look(&watch, path(2), by: 3) == WayOut(isThere: true, left: 2))
        // It is heard by the old link for good: packets come by another link than they leave by.
        #expect(look(&watch, path(2), by: 3) == WayOut(isThere: true))
        #expect(look(&watch, path(2), by: 4) == WayOut(isThere: true))
        // Another endpoint has another way.
        #expect(look(&watch, path(2, to: "203.0.113.10"), by: 3) == WayOut(isThere: true, left: 2))
    }

    @Test("without a way nothing is left, and the way before it is remembered")
    func gone() {
        var watch = WayOutWatch()
        #expect(look(&watch, path(2), by: 2) == WayOut(isThere: true))
        #expect(look(&watch, path(2), by: nil) == WayOut(isThere: false))
        #expect(look(&watch, path(2), by: 2) == WayOut(isThere: true))
        #expect(look(&watch, path(2), by: nil) == WayOut(isThere: false))
        #expect(look(&watch, path(2), by: 3) == WayOut(isThere: true, left: 2))
    }

    @Test("what is no more is forgotten")
    func forgotten() {
        var watch = WayOutWatch()
        #expect(look(&watch, path(2), by: 3) == WayOut(isThere: true, left: 2))
        watch.forget(allBut: [])
        #expect(look(&watch, path(2), by: 3) == WayOut(isThere: true, left: 2))
    }
}
