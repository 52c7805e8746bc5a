import ControlAPI
import TestSupport
import Testing
import WireGuard

@testable import GatewayCore

/// Two whole gateways on virtual time: which tunnel is used, what is said of it, and what operators do.
@Suite struct GatewayTests {
    private static func up(
        wires: Int = 2, health: HealthSettings = HealthSettings(),
        edit: (inout ConnectionSpec) -> Void = { _ in }
    ) -> SimulatedInternet {
        let internet = SimulatedInternet(wires: wires, health: health, edit: edit)
        internet.run(for: .seconds(5))
        return internet
    }

    private static let caller = Caller(name: "alice")

    @Test("two gateways come up by themselves, by the tunnel of the lowest priority, and packets pass")
    func comesUp() {
        let internet = Self.up()
        for gateway in [internet.near, internet.far] {
            #expect(gateway.gateway.connections[0].activeTunnels == ["a"])
            #expect(gateway.tunnel("a")?.health.state == .up && gateway.tunnel("b")?.health.state == .up)
            #expect(gateway.events(.connectionUp).count == 1 && gateway.events(.failover).isEmpty)
            #expect(internet.passes(from: gateway))
        }
        #expect(internet.near.routes?[internet.far.site] == .carried)
    }

    @Test("a silent cut is failed over within 0.7 s, told once, and what comes back is used again")
    func failover() throws {
        let internet = Self.up()
        internet.near.forgetHistory()
        internet.cut(0)
        internet.run(for: .milliseconds(700))
        #expect(internet.near.gateway.connections[0].activeTunnels == ["b"])
        #expect(internet.passes(from: internet.near) && internet.passes(from: internet.far))
        internet.run(for: .seconds(10))
        let told = try #require(internet.near.events(.failover).first)
        #expect(internet.near.events(.failover).count == 1)
        #expect(told.from == "a" && told.to == "b" && told.reason == "probe-timeout" && told.drill == nil)
        #expect(internet.near.events(.connectionDown, .routeUnreachable).isEmpty)
        internet.mend()
        internet.run(for: .seconds(30))
        #expect(internet.near.gateway.connections[0].activeTunnels == ["a"])
        #expect(internet.near.events(.failover).count == 2)
    }

    @Test("with all tunnels cut the prefix is unreachable, and carried again once one is back")
    func allCut() {
        let internet = Self.up()
        internet.near.forgetHistory()
        for wire in 0..<2 { internet.cut(wire) }
        internet.run(for: .seconds(5))
        #expect(internet.near.routes?[internet.far.site] == .unreachable)
        #expect(internet.near.events(.connectionDown).count == 1)
        #expect(internet.near.events(.routeUnreachable).map(\.reason) == ["on-down"])
        internet.cut(1, false)
        internet.run(for: .seconds(2))
        #expect(internet.near.routes?[internet.far.site] == .carried)
        #expect(
            internet.near.events(.connectionUp).count == 1 && internet.near.events(.routeRestored).count == 1)
        #expect(internet.passes(from: internet.near))
    }

    @Test("a drill cuts the tunnel in use, measures, puts it back, and says who ordered it")
    func drill() throws {
        let internet = Self.up { $0.recoveryTimeObjective = .seconds(1) }
        internet.near.forgetHistory()
        try internet.tell(internet.near) { (gateway, now) throws(APIError) in
            try gateway.startDrill("vpc", DrillRequest(duration: 5), by: Self.caller, now: now)
        }
        #expect(throws: APIError.self) {
            try internet.tell(internet.near) { (gateway, now) throws(APIError) in
                try gateway.startDrill("vpc", DrillRequest(duration: 5), by: Self.caller, now: now)
            }
        }
        internet.run(for: .seconds(30))
        let report = try #require(internet.near.drills.first).result.get()
        #expect(report.tunnel == "a" && report.activeDuring == "b" && report.rtoMet == true)
        #expect(try #require(report.timeToRecover) <= 0.7 && report.probesLost > 0)
        // What it made happen is a drill's, the far end's part of it too, which does not know.
        #expect(internet.near.events(.failover).first?.drill == true)
        #expect(internet.near.events(.drillStarted).first?.details["user"] == "alice")
        #expect(internet.near.events(.drillFinished).count == 1)
        #expect(internet.near.gateway.connections[0].activeTunnels == ["a"])
    }

    @Test("a drill that cannot be is refused with the reason, and one that nobody waits for ends")
    func drillRefused() throws {
        let single = Self.up(wires: 1)
        try single.tell(single.near) { (gateway, now) throws(APIError) in
            try gateway.startDrill("vpc", DrillRequest(duration: 5), by: Self.caller, now: now)
        }
        guard case .failure(let error)? = single.near.drills.first?.result else {
            Issue.record("\(single.near.drills)")
            return
        }
        #expect(
            error.message == "no drill of vpc: there is only one tunnel, so there is nothing to fail over to")

        let internet = Self.up()
        try internet.tell(internet.near) { (gateway, now) throws(APIError) in
            try gateway.startDrill("vpc", DrillRequest(duration: 60), by: Self.caller, now: now)
        }
        internet.run(for: .seconds(2))
        internet.tell(internet.near) { $0.handle(.drillAbandoned("vpc"), now: $1) }
        internet.run(for: .seconds(12))
        #expect(internet.near.drills.count == 1)
        #expect(internet.near.gateway.connections[0].activeTunnels == ["a"])
    }

    @Test("a drill that a removal or the end of the run breaks off is answered with the reason")
    func drillBrokenOff() throws {
        for isEnding in [false, true] {
            let internet = Self.up()
            try internet.tell(internet.near) { (gateway, now) throws(APIError) in
                try gateway.startDrill("vpc", DrillRequest(duration: 5), by: Self.caller, now: now)
            }
            internet.run(for: .seconds(1))
            internet.tell(internet.near) { gateway, _ in
                if isEnding { gateway.end() } else { gateway.remove(connection: 0) }
            }
            guard case .failure(let error)? = internet.near.drills.first?.result else {
                Issue.record("\(internet.near.drills)")
                continue
            }
            #expect(error.message == (isEnding ? "vgwd is stopping" : "the connection was removed"))
        }
    }

    @Test("a source that was left is not learned again for 3 s, and the far end hears of it at once")
    func wayOutMoved() throws {
        let internet = Self.up()
        let peer = try #require(internet.near.tunnel("a")).peer
        let found = internet.near.gateway.context.device.path(of: peer)
        let path = try #require(found)
        let source = try #require(path.underlay?.source)
        internet.cut(0, toFar: true)
        internet.tell(internet.near) {
            $0.handle(.wayOut(peer, WayOut(isThere: true, left: source.interface)), now: $1)
        }
        #expect(path.lastSent == internet.now)
        internet.cut(0, toFar: true, false)
        internet.run(for: .milliseconds(2900))
        #expect(path.underlay?.source == nil)
        internet.run(for: .seconds(1))
        #expect(path.underlay?.source == source)
        internet.tell(internet.near) { $0.handle(.wayOut(peer, WayOut(isThere: false)), now: $1) }
        #expect(path.underlay?.source == nil)
    }

    @Test("a send error is shown, and ends with the first message that leaves again")
    func sendErrors() throws {
        let internet = Self.up()
        internet.near.forgetHistory()
        let peer = try #require(internet.near.tunnel("a")).peer
        internet.tell(internet.near) { $0.handle(.transmitted(peer, .failed(1)), now: $1) }
        let status = internet.near.gateway.tunnelStatus(named: "a", Gateway.HostFacts())
        #expect(status?.reason == "sending to 192.0.2.2:51820 fails: error 1")
        // The next probe leaves, and so does the one after it.
        internet.run(for: .seconds(2))
        #expect(internet.near.gateway.tunnelStatus(named: "a", Gateway.HostFacts())?.reason == nil)
    }

    @Test("an operator takes a tunnel down, up and prefers one: followed at once, and told as his")
    func orders() throws {
        let internet = Self.up()
        internet.near.forgetHistory()
        func order(_ order: TunnelOrder, _ tunnel: String) throws {
            try internet.tell(internet.near) { (gateway, now) throws(APIError) in
                try gateway.order(order, tunnel: tunnel, by: Self.caller, now: now)
            }
        }
        try order(.down, "a")
        #expect(internet.near.gateway.connections[0].activeTunnels == ["b"])
        let failover = try #require(internet.near.events(.failover).first)
        #expect(failover.reason == "operator" && failover.details["user"] == "alice")
        #expect(internet.near.events(.tunnelDisabled).first?.message == "a is disabled: alice said so")
        try order(.up, "a")
        internet.run(for: .seconds(5))
        #expect(internet.near.gateway.connections[0].activeTunnels == ["a"])
        try order(.prefer, "b")
        #expect(internet.near.gateway.connections[0].activeTunnels == ["b"])
        try order(.unprefer, "b")
        #expect(internet.near.gateway.connections[0].activeTunnels == ["a"])
        #expect(internet.near.events(.tunnelPreferred, .tunnelUnpreferred).count == 2)
        #expect(throws: APIError.self) { try order(.down, "nobody") }
    }

    @Test("a wire that goes down takes its tunnel along with its problem as the reason, and back")
    func underlay() {
        let internet = Self.up()
        internet.near.forgetHistory()
        var underlays = internet.near.gateway.underlays
        underlays[1].isUp = false
        underlays[1].problem = "interface wan1 is down"
        internet.tell(internet.near) { $0.handle(.underlays(underlays), now: $1) }
        #expect(internet.near.tunnel("b")?.health.state == .down)
        #expect(internet.near.events(.tunnelDown).first?.message == "b is down: interface wan1 is down")
        let status = internet.near.gateway.tunnelStatus(named: "b", Gateway.HostFacts())
        #expect(status?.reason == "interface wan1 is down" && status?.reasonCode == "interface-down")
        underlays[1].isUp = true
        underlays[1].problem = nil
        internet.tell(internet.near) { $0.handle(.underlays(underlays), now: $1) }
        internet.run(for: .seconds(3))
        #expect(internet.near.tunnel("b")?.health.state == .up)
    }

    @Test(
        "a route of an operator is carried at once, refused where it cannot be, and given back by the spec before it"
    )
    func routes() throws {
        let internet = Self.up()
        let prefix = try #require(IPPrefix("10.99.0.0/16"))
        let before = internet.near.gateway.spec
        func add(_ text: String, to connection: String) throws {
            try internet.tell(internet.near) { (gateway, now) throws(APIError) in
                _ = try gateway.addRoute(RouteRequest(prefix: text, connection: connection), now: now)
            }
        }
        try add("10.99.0.0/16", to: "vpc")
        #expect(internet.near.routes?[prefix] == .carried)
        for (text, connection) in [
            ("10.99.0.0/16", "vpc"), ("10.99.0.1/16", "vpc"), ("nonsense", "vpc"), ("10.98.0.0/16", "nobody"),
        ] {
            #expect(throws: APIError.self) { try add(text, to: connection) }
        }
        internet.tell(internet.near) { gateway, _ in gateway.restore(before) }
        #expect(internet.near.routes?[prefix] == nil)
        #expect(internet.near.routes?[internet.far.site] == .carried)
    }

    @Test("a prefix that is also a local network is left out while the link is there, and said so")
    func leftOut() {
        let internet = Self.up()
        internet.near.forgetHistory()
        let local = LocalNetwork(interface: "lan0", network: internet.far.site)
        internet.tell(internet.near) { $0.handle(.localNetworks([local], sources: [:]), now: $1) }
        #expect(internet.near.routes?[internet.far.site] == .unreachable)
        #expect(internet.near.events(.routeRemoved).map(\.reason) == ["local-network"])
        #expect(internet.near.gateway.connectionStatuses(Gateway.HostFacts())[0].notices?.count == 1)
        internet.tell(internet.near) { $0.handle(.localNetworks([], sources: [:]), now: $1) }
        #expect(internet.near.routes?[internet.far.site] == .carried)
    }

    @Test("a peer that is killed and started again is back within a second, and no nonce is used twice")
    func killed() {
        let internet = Self.up()
        for _ in 0..<3 {
            internet.restart(internet.far)
            internet.run(for: .seconds(1))
            #expect(internet.passes(from: internet.far) && internet.passes(from: internet.near))
        }
        #expect(internet.reusedNonces == 0)
    }
}
