import Testing

@testable import WireGuard

@Suite("Where packets go, and who may send which")
struct ForwardingTests {
    private typealias Connection = ForwardingTable.Connection

    private func prefixes(_ texts: String...) -> [IPPrefix] { texts.map { IPPrefix($0)! } }

    private func link(_ local: String, _ remote: String) -> InsideLink {
        InsideLink(local: IPAddress(local)!, remote: IPAddress(remote)!)
    }

    private func packet(from source: String = "10.1.0.1", to destination: String) -> [UInt8] {
        InnerPackets.udp(from: IPAddress(source)!, to: IPAddress(destination)!, payload: [1, 2, 3])
    }

    // MARK: Outbound

    @Test("the next batch takes the path that was activated")
    func failover() {
        var bundle = TunnelBundle([nil, nil])
        bundle.table = ForwardingTable(
            connections: [Connection(prefixes: prefixes("10.2.0.0/16"), paths: bundle.paths)], mtu: 1420)
        for path in [0, 1, 0] {
            bundle.table.activate(path, of: 0)
            #expect(bundle.tunnel(of: packet(to: "10.2.0.1")) == path)
        }
        #expect(bundle.drops.snapshot.isEmpty)
    }

    @Test(
        "a connection without a path, or with none active, answers as a router that has no way",
        arguments: [4, 6])
    func noPath(version: Int) {
        let (source, destination) = version == 4 ? ("10.1.0.1", "10.2.0.1") : ("fd00:1::1", "fd00:2::1")
        let routes = prefixes("10.2.0.0/16", "fd00:2::/64")
        var bundle = TunnelBundle([nil, nil])
        let tables = [
            [Connection(prefixes: routes, paths: [])],
            [Connection(prefixes: routes, paths: bundle.paths, active: nil)],
            [Connection(prefixes: routes, paths: bundle.paths, active: 2)],
            [Connection(prefixes: routes, paths: bundle.paths, isBalanced: true)],
        ]
        for (number, connections) in tables.enumerated() {
            bundle.table = ForwardingTable(connections: connections, mtu: 1420)
            #expect(bundle.tunnel(of: packet(from: source, to: destination)) == nil)
            #expect(bundle.replies.count == 1)
            #expect(bundle.drops.snapshot == [.noRoute: UInt64(number + 1)])
        }
        bundle.table = ForwardingTable(connections: tables[1], mtu: 1420)
        bundle.table.activate(1, of: 0)
        #expect(bundle.tunnel(of: packet(from: source, to: destination)) == 1)
        bundle.table.activate(nil, of: 0)
        #expect(bundle.tunnel(of: packet(from: source, to: destination)) == nil)
    }

    @Test(
        "what is for the neighbours on a link is dropped under a name of its own, unless it has a route",
        arguments: [
            ("224.0.0.22", true), ("224.0.0.251", true), ("224.0.1.1", false), ("239.1.1.1", false),
            ("10.9.0.1", false), ("ff02::2", true), ("ff12::16", true), ("ff05::2", false),
            ("fd00:9::1", false),
        ])
    func neighbours(destination: String, staysOnLink: Bool) {
        var bundle = TunnelBundle([nil])
        let source = destination.contains(":") ? "fd00:1::1" : "10.1.0.1"
        bundle.table = ForwardingTable(
            connections: [Connection(prefixes: prefixes("10.2.0.0/16"), paths: bundle.paths, active: 0)],
            mtu: 1420)
        #expect(bundle.tunnel(of: packet(from: source, to: destination)) == nil)
        #expect(bundle.drops.snapshot == [staysOnLink ? .linkLocalMulticast : .noRoute: 1])
        let routes = prefixes(destination.contains(":") ? "\(destination)/128" : "\(destination)/32")
        bundle.table = ForwardingTable(
            connections: [Connection(prefixes: routes, paths: bundle.paths, active: 0)], mtu: 1420)
        #expect(bundle.tunnel(of: packet(from: source, to: destination)) == 0)
    }

    @Test("the inside address of a far gateway is reached by its own tunnel, whichever is active")
    func pinned() {
        let links = [
            link("169.254.1.2", "169.254.1.1"), link("169.254.2.2", "169.254.2.1"),
            link("fe80::2", "fe80::1"),
        ]
        var bundle = TunnelBundle(links)
        // Also where a route covers it.
        bundle.table = ForwardingTable(
            connections: [
                Connection(prefixes: prefixes("169.254.1.1/32", "0.0.0.0/0"), paths: bundle.paths, active: 1)
            ], mtu: 1420)
        for active in [0, 1, 2, nil] {
            bundle.table.activate(active, of: 0)
            #expect(bundle.tunnel(of: packet(to: "169.254.1.1")) == 0)
            #expect(bundle.tunnel(of: packet(to: "169.254.2.1")) == 1)
            #expect(bundle.tunnel(of: packet(from: "fe80::2", to: "fe80::1")) == 2)
            #expect(bundle.tunnel(of: packet(to: "169.254.2.3")) == active)
        }
        #expect(bundle.table.connection(for: IPAddress("169.254.2.1")!) == 0)
    }

    @Test("watching an address leads nothing to it elsewhere")
    func watched() {
        var bundle = TunnelBundle([nil, nil, nil])
        let watched = ["10.2.0.9", "10.3.0.9", "10.4.0.9", "10.9.0.9"].map { IPAddress($0)! }
        bundle.table = ForwardingTable(
            connections: [
                Connection(prefixes: prefixes("10.2.0.0/16"), paths: [bundle.paths[0]], watched: watched),
                Connection(
                    prefixes: prefixes("10.3.0.0/16"), paths: [bundle.paths[1]], watched: [watched[1]]),
                Connection(prefixes: prefixes("10.4.0.0/16"), paths: [bundle.paths[2]], isBalanced: true),
            ], mtu: 1420)
        bundle.table.assign([Int](repeating: 0, count: 256), of: 2)
        #expect(watched.map { bundle.table.connection(for: $0) } == [0, 1, 2, nil])
        #expect(watched.map { bundle.tunnel(of: packet(to: "\($0)")) } == [0, 1, 2, nil])
        #expect(bundle.drops.snapshot == [.noRoute: 1])
    }

    // MARK: Inbound

    /// Which tunnels a packet from `source` is taken from.
    private func believed(
        _ bundle: inout TunnelBundle, _ source: String, to destination: String = "10.1.0.1"
    ) -> [Int] {
        bundle.tunnels.indices.filter { tunnel in
            let packet = packet(from: source, to: destination)
            return bundle.receive([packet], by: tunnel) == [packet]
        }
    }

    @Test("a packet comes from the connection that the longest prefix names, by any of its tunnels")
    func strict() {
        var bundle = TunnelBundle([nil, nil, nil])
        bundle.table = ForwardingTable(
            connections: [
                Connection(prefixes: prefixes("10.0.0.0/8", "fd00::/16"), paths: Array(bundle.paths[..<2])),
                Connection(prefixes: prefixes("10.2.0.0/16", "fd00:2::/64"), paths: [bundle.paths[2]]),
            ], mtu: 1420)
        #expect(believed(&bundle, "10.3.0.1") == [0, 1])
        #expect(believed(&bundle, "10.2.0.1") == [2])
        #expect(believed(&bundle, "192.0.2.1") == [])
        #expect(believed(&bundle, "fd00:3::1", to: "fd00:1::1") == [0, 1])
        #expect(believed(&bundle, "fd00:2::1", to: "fd00:1::1") == [2])
        #expect(bundle.drops.snapshot == [.innerSourceNotAllowed: 1 + 2 + 3 + 1 + 2])
    }

    @Test("a connection that stands by may still send, and so may one that stands in")
    func sources() {
        var bundle = TunnelBundle([nil, nil, nil])
        let nested = prefixes("10.2.0.0/16")
        let wide = prefixes("10.0.0.0/8")
        bundle.table = ForwardingTable(
            connections: [
                // Dead: its prefix falls through to the next, while its far end may still be sending.
                Connection(prefixes: [], paths: [bundle.paths[0]], sources: nested),
                Connection(prefixes: wide, paths: [bundle.paths[1]], sources: wide),
                // Carries the same, and is not the best.
                Connection(prefixes: [], paths: [bundle.paths[2]], sources: wide),
            ], mtu: 1420)
        #expect(believed(&bundle, "10.2.0.1") == [0, 1])
        #expect(believed(&bundle, "10.3.0.1") == [1, 2])
        // Allowed by control to send what is another's.
        bundle.table = ForwardingTable(
            connections: [
                Connection(prefixes: nested, paths: [bundle.paths[0]]),
                Connection(prefixes: wide, paths: [bundle.paths[1]], sources: wide + nested),
                Connection(prefixes: [], paths: [bundle.paths[2]], sources: wide),
            ], mtu: 1420)
        #expect(believed(&bundle, "10.2.0.1") == [0, 1])
        #expect(believed(&bundle, "10.3.0.1") == [1, 2])
    }

    @Test("nobody but its own connection sends from the inside address of a far gateway")
    func spoofedInside() {
        let links = [link("169.254.1.2", "169.254.1.1"), link("169.254.2.2", "169.254.2.1")]
        var bundle = TunnelBundle(links + [nil])
        let all = prefixes("0.0.0.0/0")
        bundle.table = ForwardingTable(
            connections: [
                Connection(prefixes: prefixes("10.2.0.0/16"), paths: Array(bundle.paths[..<2])),
                Connection(
                    prefixes: all, paths: [bundle.paths[2]], sources: all + prefixes("169.254.1.1/32")),
            ], mtu: 1420)
        #expect(believed(&bundle, "169.254.1.1", to: "10.1.0.1") == [0, 1])
        #expect(believed(&bundle, "169.254.2.1", to: "10.1.0.1") == [0, 1])
        #expect(believed(&bundle, "169.254.3.1", to: "10.1.0.1") == [2])
        // A probe is no exception.
        let probe = InnerPackets.echo(from: links[0].remote, to: links[0].local, payload: [1])
        #expect(bundle.receive([probe], by: 2).isEmpty)
        #expect(bundle.answers.isEmpty)
        #expect(bundle.drops.snapshot == [.innerSourceNotAllowed: 1 + 1 + 2 + 1])
    }

    @Test("an inside address that two tunnels share is believed of both")
    func sharedInside() {
        let same = link("fe80::2", "fe80::1")
        var bundle = TunnelBundle([same, same])
        bundle.table = ForwardingTable(
            connections: bundle.paths.map { Connection(prefixes: [], paths: [$0]) }, mtu: 1420)
        #expect(believed(&bundle, "fe80::1", to: "ff02::5") == [0, 1])
        #expect(bundle.tunnel(of: packet(from: "fe80::2", to: "fe80::1")) == 0)
    }

    @Test("a watched address is believed of those that it is behind")
    func watchedSource() {
        var bundle = TunnelBundle([nil, nil, nil])
        let target = IPAddress("10.2.0.9")!
        bundle.table = ForwardingTable(
            connections: [
                Connection(prefixes: prefixes("10.2.0.0/16"), paths: [bundle.paths[0]], watched: [target]),
                Connection(
                    prefixes: [], paths: [bundle.paths[1]], watched: [target],
                    sources: prefixes("10.2.0.0/16")),
                Connection(prefixes: prefixes("10.3.0.0/16"), paths: [bundle.paths[2]], watched: [target]),
            ], mtu: 1420)
        #expect(believed(&bundle, "10.2.0.9") == [0, 1])
    }

    @Test("a peer that the table does not have is not believed")
    func strangerPath() {
        let inside = link("169.254.1.2", "169.254.1.1")
        var bundle = TunnelBundle([nil, inside])
        bundle.table = ForwardingTable(
            connections: [Connection(prefixes: prefixes("10.2.0.0/16"), paths: [bundle.paths[0]])], mtu: 1420)
        #expect(believed(&bundle, "10.2.0.1") == [0])
        #expect(believed(&bundle, "169.254.1.1") == [])
    }

    // MARK: Sockets

    @Test("a peer roams within its socket group only")
    func roaming() {
        var bundle = TunnelBundle([nil], sockets: [3])
        bundle.table = ForwardingTable(
            connections: [Connection(prefixes: prefixes("10.2.0.0/16"), paths: bundle.paths)], mtu: 1420)
        let data = packet(from: "10.2.0.1", to: "10.1.0.1")
        let path = bundle.paths[0]
        let known = path.underlay
        #expect(known?.socket == 3)
        var elsewhere = UnderlayPath(
            endpoint: Endpoint(address: IPAddress("198.51.100.7")!, port: 9),
            source: LocalSource(address: IPAddress("192.0.2.2")!, interface: 3))
        #expect(bundle.receive([data], by: 0, from: elsewhere) == [data])
        #expect(path.underlay == known)
        #expect(path.receivedPackets == 1)
        elsewhere.socket = 3
        #expect(bundle.receive([data], by: 0, from: elsewhere) == [data])
        #expect(path.underlay == elsewhere)
        #expect(bundle.send([packet(to: "10.2.0.1")]).map(\.underlay) == [elsewhere])
        let roamed = bundle.events(bundle.inboundEvents).filter {
            if case .roamed = $0 { true } else { false }
        }
        #expect(roamed.count == 1)
    }

    @Test("a path leaves by its own group whatever it is told, and only from a source learned there")
    func ownGroup() {
        let path = TunnelPath(peer: PeerID(0), socket: 2)
        let source = LocalSource(address: IPAddress("192.0.2.2")!, interface: 3)
        let endpoint = Endpoint(address: IPAddress("198.51.100.7")!, port: 9)
        path.setUnderlay(UnderlayPath(endpoint: endpoint, source: source))
        #expect(path.underlay == UnderlayPath(endpoint: endpoint, socket: 2))
        path.setUnderlay(UnderlayPath(endpoint: endpoint, source: source, socket: 2))
        #expect(path.underlay == UnderlayPath(endpoint: endpoint, source: source, socket: 2))
    }
}
