import Testing

@testable import WireGuard

@Suite("Flows spread over several paths")
struct BalanceTests {
    private func bundle(paths: Int) -> TunnelBundle {
        var bundle = TunnelBundle([InsideLink?](repeating: nil, count: paths))
        bundle.table = ForwardingTable(
            connections: [
                ForwardingTable.Connection(
                    prefixes: [IPPrefix("10.2.0.0/16")!, IPPrefix("fd00:2::/64")!], paths: bundle.paths,
                    isBalanced: true)
            ], mtu: 1420)
        return bundle
    }

    /// As flows are in life: neighbours in everything.
    private func flow(_ number: Int, payload: Int = 20, identification: UInt16 = 7) -> [UInt8] {
        let port = UInt16(40_000 + number / 4 * 2)
        let body = InnerPackets.payload(payload)
        return switch number % 4 {
        case 0:
            InnerPackets.tcp(payload: body, identification: identification, sourcePort: port)
        case 1: InnerPackets.udp(payload: body, sourcePort: port, identification: identification)
        case 2:
            InnerPackets.tcp(
                from: InnerPackets.left6, to: InnerPackets.right6, payload: body, sourcePort: port)
        default:
            InnerPackets.udp(
                from: InnerPackets.left6, to: InnerPackets.right6, payload: body, sourcePort: port)
        }
    }

    @Test("a flow stays on its path, and of a failed path's flows alone some move")
    func stays() {
        var bundle = bundle(paths: 3)
        let buckets = (0..<256).map { $0 % 3 }
        bundle.table.assign(buckets, of: 0)
        let before = (0..<600).map { bundle.tunnel(of: flow($0)) }
        for path in 0..<3 { #expect(before.count { $0 == path } > 120) }
        // Other packets of the same flows.
        #expect((0..<600).map { bundle.tunnel(of: flow($0, payload: 900, identification: 99)) } == before)
        bundle.table.assign(buckets.enumerated().map { $1 == 1 ? $0 / 3 % 2 * 2 : $1 }, of: 0)
        let after = (0..<600).map { bundle.tunnel(of: flow($0)) }
        for (number, path) in before.enumerated() where path != 1 { #expect(after[number] == path) }
        #expect(!after.contains(1))
        let moved = zip(before, after).filter { $0 == 1 && $1 != 1 }
        #expect(Set(moved.map(\.1)) == [0, 2])
        bundle.table.assign(buckets, of: 0)
        #expect((0..<600).map { bundle.tunnel(of: flow($0)) } == before)
    }

    @Test("all segments of a superpacket go the way of the flow's single packets", arguments: [0, 2])
    func segments(kind: Int) {
        var bundle = bundle(paths: 4)
        bundle.table.assign((0..<256).map { $0 % 4 }, of: 0)
        for number in stride(from: kind, to: 80, by: 4) {
            let whole = flow(number, payload: 5000)
            let sent = bundle.send([whole], offload: .tcp(kind == 0 ? .v4 : .v6, segment: 1000))
            #expect(sent.count == 5)
            #expect(Set(sent.map(\.tunnel)) == [bundle.tunnel(of: flow(number))])
        }
    }

    @Test("fragments of a host pair stay together, and what has no ports does too")
    func withoutPorts() {
        var bundle = bundle(paths: 256)
        bundle.table.assign(Array(0..<256), of: 0)
        var paths: Set<Int?> = []
        for number in 0..<8 {
            // The ports of the first fragment, and what stands in their place in the others.
            var first = flow(4 * number + 1)
            first[6] = 0x20
            var second = flow(4 * number + 1)
            second[6] = 0
            second[7] = 9
            paths.formUnion([bundle.tunnel(of: first), bundle.tunnel(of: second)])
        }
        #expect(paths.count == 1)
        let echoes = (0..<8).map { number in
            InnerPackets.echo(
                from: InnerPackets.left4, to: InnerPackets.right4, payload: [], identifier: UInt16(number))
        }
        #expect(Set(echoes.map { bundle.tunnel(of: $0) }).count == 1)
        // A TCP packet that ends before its ports.
        let short = InnerPackets.ip(
            from: InnerPackets.left4, to: InnerPackets.right4, transport: 6, body: [1, 2, 3])
        #expect(bundle.tunnel(of: short) != nil)
    }

    @Test("neighbouring flows fill the buckets evenly", arguments: 0..<6)
    func even(kind: Int) {
        var counts = [Int](repeating: 0, count: 256)
        for number in 0..<25_600 {
            let low = UInt32(number & 0xff)
            let high = UInt32(number >> 8)
            let source: IPAddress
            let destination: IPAddress
            var port = UInt16(40_000)
            switch kind {
            case 0:  // one host pair, every port
                (source, destination) = (InnerPackets.left4, InnerPackets.right4)
                port = UInt16(number)
            case 1:  // every second port, as Linux chooses them
                (source, destination) = (InnerPackets.left4, InnerPackets.right4)
                port = UInt16(truncatingIfNeeded: number * 2)
            case 2:  // a subnet of hosts to a subnet of hosts
                source = IPAddress(v4: 0x0a01_0000 + low)
                destination = IPAddress(v4: 0x0a02_0000 + high)
            case 3:
                (source, destination) = (InnerPackets.left6, InnerPackets.right6)
                port = UInt16(number)
            case 4:
                source = IPAddress(v6: InnerPackets.left6.bits + UInt128(low))
                destination = IPAddress(v6: InnerPackets.right6.bits + UInt128(high))
            default:  // networks, each with a host 1
                source = IPAddress(v6: InnerPackets.left6.bits + UInt128(low) << 64)
                destination = IPAddress(v6: InnerPackets.right6.bits + UInt128(high) << 64)
            }
            var packet = Self.headers(from: source, to: destination, port: port)
            let hash = try! InnerPackets.edit(&packet) { FlowHash.of($0) }
            counts[Int(hash >> 56)] += 1
        }
        // A hundred each, and a standard deviation of ten: 255 degrees of freedom, five deviations of the sum.
        let squares = counts.reduce(0) { $0 + ($1 - 100) * ($1 - 100) }
        #expect((142...368).contains(squares / 100))
    }

    /// UDP without checksums: there are many of them.
    private static func headers(from source: IPAddress, to destination: IPAddress, port: UInt16) -> [UInt8] {
        let datagram = InnerPackets.bigEndian(port) + [0, 53, 0, 8, 0, 0]
        return source.family == .v4
            ? [0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0] + source.bytes + destination.bytes + datagram
            : [0x60, 0, 0, 0, 0, 8, 17, 64] + source.bytes + destination.bytes + datagram
    }

    @Test("a bucket without a path is no route for its flows, and for no others")
    func holes() {
        var bundle = bundle(paths: 1)
        bundle.table.assign((0..<256).map { $0 < 128 ? 0 : -1 }, of: 0)
        let sent = (0..<200).count { bundle.tunnel(of: flow($0)) == 0 }
        #expect((50...150).contains(sent))
        #expect(bundle.drops.snapshot == [.noRoute: UInt64(200 - sent)])
    }

    @Test("buckets are not for a connection that fails over, nor is the active path for one that balances")
    func policies() {
        var bundle = bundle(paths: 2)
        bundle.table.activate(1, of: 0)
        #expect(bundle.tunnel(of: flow(0)) == nil)
        bundle.table.assign([Int](repeating: 0, count: 256), of: 0)
        bundle.table.activate(1, of: 0)
        #expect(bundle.tunnel(of: flow(0)) == 0)
        bundle.table = ForwardingTable(
            connections: [
                ForwardingTable.Connection(prefixes: [IPPrefix("10.2.0.0/16")!], paths: bundle.paths)
            ], mtu: 1420)
        bundle.table.assign([Int](repeating: 1, count: 256), of: 0)
        #expect(bundle.tunnel(of: flow(0)) == 0)
    }
}
