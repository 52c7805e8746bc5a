import Glibc
import LinuxIO
import TestSupport
import Testing
import WireGuard

@Suite struct UDPSocketGroupsTests {
    private typealias UDP = UDPSocketTests

    private let initiation: [UInt8] = [1, 0, 0, 0] + [UInt8](repeating: 5, count: 144)

    /// Transport data for the worker with that number, of two.
    private func data(_ worker: UInt8) -> [UInt8] {
        [4, 0, 0, 0, worker, 0xaa, 0xbb, 0xcc] + [UInt8](repeating: 7, count: 40)
    }

    /// Two wires between a near and a far namespace: 10.0.1.0/24 and 10.0.2.0/24, fd00:1::/64 and fd00:2::/64. Ours
    /// end in .1, in `near1` and `near2`. `body` runs in the near one.
    private func withWires(_ body: (borrowing NamespaceHandle) throws -> Void) throws {
        try inNamespace {
            let far = try NamespaceHandle.current()
            try inNamespace {
                for wire in 1...2 {
                    try shell(
                        """
                        ip link add near\(wire) type veth peer name far\(wire) netns \(far.path)
                        ip addr add 10.0.\(wire).1/24 dev near\(wire)
                        ip addr add fd00:\(wire)::1/64 dev near\(wire) nodad
                        ip link set near\(wire) up
                        """)
                    try far.enter {
                        try shell(
                            """
                            ip addr add 10.0.\(wire).2/24 dev far\(wire)
                            ip addr add fd00:\(wire)::2/64 dev far\(wire) nodad
                            ip link set far\(wire) up
                            """)
                    }
                }
                // A new link is not ready at once, nor are neighbours known.
                for wire in 1...2 {
                    for family in IPAddress.Family.allCases {
                        let address = near(wire, family).dropLast() + "2"
                        try shell("ping -q -c 1 -w 5 \(address) >/dev/null")
                    }
                }
                try body(far)
            }
        }
    }

    private func near(_ wire: Int, _ family: IPAddress.Family) -> String {
        family == .v4 ? "10.0.\(wire).1" : "fd00:\(wire)::1"
    }

    /// What arrives until `count` datagrams have: by number of group, what is for its handshakes and for each of its
    /// two workers. `strays` came by another group's socket.
    private struct Arrivals {
        var byGroup: [UInt8: [[[UInt8]]]] = [:]
        var strays = 0

        init(_ count: Int, at groups: UDPSocketGroups, _ family: IPAddress.Family) {
            let workers = (0..<2).map { groups.sources(of: $0) }
            let roles = [groups.handshakeSockets] + workers
            let sources = roles.enumerated().flatMap { role, sources in
                sources.filter { $0.family == family }.map { (role: role, source: $0) }
            }
            var poll = PollSet(sources.map(\.source.socket.fd))
            var receiver = DatagramReceiver()
            var left = count
            while left > 0, poll.wait(timeout: .seconds(2)) > 0 {
                for (position, (role, source)) in sources.enumerated() where poll.isReadable(position) {
                    for i in 0..<receiver.receive(from: source) {
                        let group = receiver.underlay(i).socket
                        byGroup[group, default: [[], [], []]][role] += receiver.segments(i)
                        left -= receiver.segments(i).count
                        strays += group == source.group ? 0 : 1
                    }
                }
            }
        }
    }

    // MARK: Several groups on one port

    /// The order in which they are bound matters to the kernel, and shall not to us.
    enum Order: CaseIterable { case ownPortFirst, ownPortLast, noOwnPort }

    @Test(arguments: [IPAddress.Family.v4, .v6], Order.allCases)
    func `groups on one port, each on its own wire, steer each for themselves`(
        family: IPAddress.Family, order: Order
    ) throws {
        try withWires { far in
            for isBoundBySource in [false, true] {
                let sender = try far.enter { try UDPSocket.bind(family: family, port: 0) }
                var groups = UDPSocketGroups()
                var port: UInt16 = 0
                for number in order == .ownPortFirst
                    ? [0, 1, 2] : order == .ownPortLast ? [1, 2, 0] : [1, 2]
                {
                    var options = UDPSocketOptions()
                    if number > 0, isBoundBySource {
                        options.source = try UDP.address(near(number, family))
                    } else if number > 0 {
                        options.device = "near\(number)"
                    }
                    groups[UInt8(number)] = try UDPSocketGroup.bind(
                        port: port, workers: 2, options: options, beside: groups)
                    port = try #require(groups[UInt8(number)]).port
                }
                #expect(groups.present.allSatisfy { $0.group.port == port })
                for wire in 1...2 {
                    let to = try UDP.path(near(wire, family), port)
                    for message in [data(0), initiation, data(1), data(0)] {
                        #expect(UDP.send(message, from: sender, to: to) == .sent)
                    }
                }
                let ofWire = [[initiation], [data(0), data(0)], [data(1)]]
                guard order != .noOwnPort else {
                    let arrivals = Arrivals(8, at: groups, family)
                    #expect(arrivals.byGroup == [1: ofWire, 2: ofWire])
                    #expect(arrivals.strays == 0)
                    continue
                }
                // And by neither wire.
                let own = try UDPSocket.bind(family: family, port: 0)
                let loopback = try UDP.path(try #require(UDP.loopback[family]), port)
                for message in [data(1), initiation] {
                    #expect(UDP.send(message, from: own, to: loopback) == .sent)
                }
                let others = [[initiation], [], [data(1)]]
                #expect(Arrivals(10, at: groups, family).byGroup == [0: others, 1: ofWire, 2: ofWire])

                // One goes, the others stay, and what it had goes to the gateway's own port.
                groups[2] = nil
                let first = try UDP.path(near(1, family), port)
                for message in [initiation, data(1)] {
                    #expect(UDP.send(message, from: sender, to: first) == .sent)
                }
                #expect(Arrivals(2, at: groups, family).byGroup == [1: others])
                let second = try UDP.path(near(2, family), port)
                let isTakenOver = eventually {
                    for message in [initiation, data(1)] {
                        _ = UDP.send(message, from: sender, to: second)
                    }
                    return Arrivals(2, at: groups, family).byGroup == [0: others]
                }
                #expect(isTakenOver)
            }
        }
    }

    @Test(arguments: [IPAddress.Family.v4, .v6])
    func `what a group sends leaves by its own device, whatever the routes say`(family: IPAddress.Family)
        throws
    {
        try withWires { far in
            let (first, second) = try far.enter {
                (
                    try UDPSocket.bind(family: family, port: 7, options: UDPSocketOptions(device: "far1")),
                    try UDPSocket.bind(family: family, port: 7, options: UDPSocketOptions(device: "far2"))
                )
            }
            // The far end is behind either wire; routes lead by the first.
            let address = family == .v4 ? "10.9.0.9" : "fd00:9::9"
            try far.enter { try shell("ip addr add \(address) dev lo && ip link set lo up") }
            let gateway = family == .v4 ? ["10.0.1.2", "10.0.2.2"] : ["fd00:1::2", "fd00:2::2"]
            let option = family == .v4 ? "-4" : "-6"
            try shell(
                """
                ip \(option) route add \(address) via \(gateway[0]) dev near1 metric 1
                ip \(option) route add \(address) via \(gateway[1]) dev near2 metric 2
                """)
            var groups = UDPSocketGroups(try UDPSocketGroup.bind(port: 0, workers: 1))
            let port = try #require(groups[0]).port
            groups[5] = try UDPSocketGroup.bind(
                port: port, workers: 1, options: UDPSocketOptions(device: "near2"), beside: groups)
            var to = try UDP.path(address, 7)
            let control = try #require(groups.controlSocket(for: to))
            #expect(UDP.send(data(0), from: control, to: to) == .sent)
            to.socket = 5
            let bound = try #require(groups.controlSocket(for: to))
            #expect(UDP.send(data(1), from: bound, to: to) == .sent)
            var receiver = DatagramReceiver()
            #expect(UDP.receive(48, by: first, into: &receiver).datagrams == [data(0)])
            #expect(UDP.receive(48, by: second, into: &receiver).datagrams == [data(1)])
            to.socket = 4
            #expect(groups.controlSocket(for: to) == nil)
        }
    }

    @Test
    func `a port that somebody else has is refused, for the first group and for one on a wire of its own`()
        throws
    {
        try withWires { _ in
            func bind(_ device: String?, port: UInt16, beside: UDPSocketGroups) throws(SystemError)
                -> UDPSocketGroup
            {
                try UDPSocketGroup.bind(
                    port: port, workers: 2, options: UDPSocketOptions(device: device), beside: beside)
            }
            let groups = UDPSocketGroups(try bind("near1", port: 0, beside: UDPSocketGroups()))
            let port = try #require(groups[0]).port
            // One that would share it.
            var sharing = UDPSocketOptions(device: "near2")
            sharing.sharesPort = true
            do {
                let other = try UDPSocket.bind(family: .v4, port: port, options: sharing)
                for device in ["near2", nil] {
                    let error = systemError { () throws(SystemError) in
                        _ = try bind(device, port: port, beside: UDPSocketGroups())
                    }
                    #expect(error?.code == EADDRINUSE)
                }
                let error = systemError { () throws(SystemError) in
                    _ = try bind("near2", port: port, beside: groups)
                }
                #expect(error?.code == EADDRINUSE)
                withExtendedLifetime(other) {}
            }
            #expect(eventually { (try? bind("near2", port: port, beside: groups))?.port == port })
        }
    }

    @Test func `two groups of the same port, device and source are refused`() throws {
        try withWires { _ in
            var groups = UDPSocketGroups(try UDPSocketGroup.bind(port: 0, workers: 1))
            let port = try #require(groups[0]).port
            let options = UDPSocketOptions(device: "near1")
            groups[1] = try UDPSocketGroup.bind(port: port, workers: 1, options: options, beside: groups)
            for again in [options, UDPSocketOptions()] {
                let error = systemError { () throws(SystemError) in
                    _ = try UDPSocketGroup.bind(port: port, workers: 1, options: again, beside: groups)
                }
                #expect(error?.code == EADDRINUSE)
            }
            // It may take the place of one that goes, and any other port is free.
            groups[1] = nil
            groups[1] = try UDPSocketGroup.bind(port: port, workers: 1, options: options, beside: groups)
            #expect(try UDPSocketGroup.bind(port: 0, workers: 1, beside: groups).port != port)
        }
    }

    // MARK: Looking at them

    @Test func `groups are found by number, with the sockets that control reads`() throws {
        try inNamespace {
            var groups = UDPSocketGroups()
            #expect(groups.present.isEmpty)
            let (own, other) = (
                try UDPSocketGroup.bind(port: 0, workers: 2), try UDPSocketGroup.bind(port: 0, workers: 2)
            )
            groups[0] = own
            groups[63] = other
            #expect(groups[0]?.port == own.port)
            #expect(groups[63]?.port == other.port)
            #expect([1, 62, 64, 255].allSatisfy { groups[$0] == nil })
            #expect(groups.present.map(\.number) == [0, 63])
            #expect(groups.sockets.count == own.sockets.count + other.sockets.count)
            let handshakes = groups.handshakeSockets
            #expect(handshakes.map(\.group) == [0, 0, 63, 63])
            #expect(handshakes.map(\.family) == [.v4, .v6, .v4, .v6])
            #expect(handshakes.map(\.socket.port) == [own.port, own.port, other.port, other.port])
            groups[0] = nil
            #expect(groups.present.map(\.number) == [63])
        }
    }

    @Test func `a receiver says by which group a datagram came`() throws {
        try inNamespace {
            let group = try UDPSocketGroup.bind(port: 0, workers: 1)
            let sender = try UDPSocket.bind(family: .v4, port: 0)
            let socket = try #require(group.workers[0].v4)
            var receiver = DatagramReceiver()
            for number in [0, 7] as [UInt8] {
                #expect(UDP.send(data(0), from: sender, to: try UDP.path("127.0.0.1", group.port)) == .sent)
                #expect(receiver.receive(from: GroupSocket(socket, group: number)) == 1)
                #expect(receiver.underlay(0).socket == number)
                #expect(receiver.underlay(0).endpoint.port == sender.port)
            }
        }
    }
}
