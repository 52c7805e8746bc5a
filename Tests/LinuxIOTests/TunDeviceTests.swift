import Glibc
import LinuxIO
import TestSupport
import Testing
import WireGuard

@Suite struct TunDeviceTests {
    /// RFC 791 and 792: an echo request from 10.9.0.2 to 10.9.0.1.
    static let echo: [UInt8] = {
        var packet: [UInt8] = [
            0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1,
            8, 0, 0, 0, 0x12, 0x34, 0, 1,
        ]
        func sum(_ range: Range<Int>) -> UInt16 {
            var total: UInt32 = 0
            for i in stride(from: range.lowerBound, to: range.upperBound, by: 2) {
                total += UInt32(packet[i]) << 8 | UInt32(packet[i + 1])
            }
            while total >> 16 != 0 { total = total & 0xffff + total >> 16 }
            return ~UInt16(total)
        }
        let header = sum(0..<20)
        packet[10] = UInt8(header >> 8)
        packet[11] = UInt8(header & 0xff)
        let message = sum(20..<28)
        packet[22] = UInt8(message >> 8)
        packet[23] = UInt8(message & 0xff)
        return packet
    }()

    static func write(_ bytes: [UInt8], to tun: TunDevice) -> TunDevice.WriteResult {
        var bytes = bytes
        return unsafe bytes.withUnsafeMutableBytes { bytes in
            var slice = unsafe iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
            return unsafe withUnsafePointer(to: &slice) { unsafe tun.write($0, count: 1) }
        }
    }

    /// The next packet that `matches`, without its header; others (router solicitations) are passed over.
    static func read(_ tun: TunDevice, matching matches: ([UInt8]) -> Bool) -> [UInt8]? {
        var poll = PollSet(tun.fd)
        var buffer = [UInt8](repeating: 0, count: 66_000)
        for _ in 0..<50 where poll.wait(timeout: .milliseconds(500)) > 0 {
            guard
                case .packet(let count) = unsafe buffer.withUnsafeMutableBytes({ unsafe tun.read(into: $0) })
            else { continue }
            let packet = Array(buffer[(tun.offloads.vnetHeader ? TunDevice.headerSize : 0)..<count])
            if matches(packet) { return packet }
        }
        return nil
    }

    static func expectEcho(through tun: TunDevice) {
        let header = [UInt8](repeating: 0, count: tun.offloads.vnetHeader ? TunDevice.headerSize : 0)
        #expect(write(header + echo, to: tun) == .written)
        let reply = read(tun) { $0[0] == 0x45 && $0[9] == 1 }
        #expect(reply?.prefix(20).suffix(8) == [10, 9, 0, 1, 10, 9, 0, 2])
        #expect(reply?.dropFirst(20).first == 0, "an echo reply")
        #expect(reply?.suffix(4) == [0x12, 0x34, 0, 1])
    }

    @Test func `the replies to a batch wait in the device, also more than a TUN device usually holds`() throws
    {
        try inNamespace {
            let tun = try TunDevice.open(name: "linuxio%d")
            // Or the kernel would say something of its own.
            try shell("sysctl -qw net.ipv6.conf.linuxio0.disable_ipv6=1")
            try shell("ip addr add 10.9.0.1/24 dev linuxio0; ip link set linuxio0 up")
            let header = [UInt8](repeating: 0, count: tun.offloads.vnetHeader ? TunDevice.headerSize : 0)
            for _ in 0..<1000 { #expect(Self.write(header + Self.echo, to: tun) == .written) }
            var replies = 0
            while replies < 1000, Self.read(tun, matching: { $0[9] == 1 }) != nil { replies += 1 }
            #expect(replies == 1000)
        }
    }

    @Test(arguments: [true, false]) func `packets go both ways`(offload: Bool) throws {
        try inNamespace {
            let tun = try TunDevice.open(name: "linuxio%d", offload: offload)
            #expect(tun.name == "linuxio0")
            #expect(tun.index != 0)
            let hasUSO = try Self.kernelHasUSO()
            #expect(tun.offloads == .init(vnetHeader: offload, tso: offload, uso: offload && hasUSO))
            #expect(tun.presence == .here)
            try shell("ip addr add 10.9.0.1/24 dev linuxio0; ip link set linuxio0 up")
            Self.expectEcho(through: tun)
        }
    }

    /// By its number: the device is what is tested.
    private static func kernelHasUSO() throws -> Bool {
        var name = utsname()
        guard unsafe uname(&name) == 0 else { throw TestFailure(description: "uname: errno \(errno)") }
        let release = unsafe withUnsafeBytes(of: name.release) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        let numbers = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
        try #require(numbers.count == 2, "no release in \(release)")
        return (numbers[0], numbers[1]) >= (6, 2)
    }

    @Test func `slices are one packet`() throws {
        try inNamespace {
            let tun = try TunDevice.open(name: "linuxio0")
            try shell("ip addr add 10.9.0.1/24 dev linuxio0; ip link set linuxio0 up")
            var header = [UInt8](repeating: 0, count: TunDevice.headerSize)
            var packet = Self.echo
            let result = unsafe header.withUnsafeMutableBytes { header in
                unsafe packet.withUnsafeMutableBytes { packet in
                    let slices = unsafe [
                        iovec(iov_base: header.baseAddress, iov_len: header.count),
                        iovec(iov_base: packet.baseAddress, iov_len: packet.count),
                    ]
                    return unsafe slices.withUnsafeBytes { slices in
                        guard let base = slices.baseAddress else {
                            return TunDevice.WriteResult.refused(EINVAL)
                        }
                        return unsafe tun.write(base, count: 2)
                    }
                }
            }
            #expect(result == .written)
            #expect(Self.read(tun) { $0[0] == 0x45 && $0[9] == 1 && $0[20] == 0 } != nil)
        }
    }

    @Test func `a superpacket with a lying header is refused, and the next packet taken`() throws {
        try inNamespace {
            let tun = try TunDevice.open(name: "linuxio0")
            try shell("ip addr add 10.9.0.1/24 dev linuxio0; ip link set linuxio0 up")
            // gso_type TCPV4 with a checksum start beyond the packet.
            let lying: [UInt8] = [1, 1, 40, 0, 100, 0, 0xff, 0xff, 16, 0]
            #expect(Self.write(lying + Self.echo, to: tun) == .refused(EINVAL))
            Self.expectEcho(through: tun)
        }
    }

    @Test func `a TCP superpacket written is split by the kernel where the way on takes none`() throws {
        try inNamespace {
            let tun = try TunDevice.open(name: "linuxio0")
            let plain = try TunDevice.open(name: "linuxio1", offload: false)
            try shell(
                "sysctl -qw net.ipv4.ip_forward=1; ip addr add 10.9.0.1/24 dev linuxio0; "
                    + "ip addr add 10.8.0.1/24 dev linuxio1; ip link set linuxio0 up; ip link set linuxio1 up"
            )
            let payload = UDPSocketTests.pattern(2500)
            // The sum of the pseudo header, which the kernel goes on from.
            let sum: UInt32 = 0x0a09 + 2 + 0x0a08 + 2 + 6 + 20 + 2500
            var packet: [UInt8] = [0x45, 0, 0x09, 0xec, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 2, 10, 8, 0, 2]
            let words = stride(from: 0, to: 20, by: 2).map {
                UInt32(packet[$0]) << 8 | UInt32(packet[$0 + 1])
            }
            let total = words.reduce(0, +)
            let checksum = ~UInt16(truncatingIfNeeded: total & 0xffff + total >> 16)
            packet[10] = UInt8(checksum >> 8)
            packet[11] = UInt8(checksum & 0xff)
            packet += [0x1f, 0x90, 0x1f, 0x91, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff]
            packet += [UInt8(sum >> 8 & 0xff), UInt8(sum & 0xff), 0, 0]
            // NEEDS_CSUM, TCPV4, header of 40, segments of 1000, the checksum at 20 + 16.
            let header: [UInt8] = [1, 1, 40, 0, 0xe8, 3, 20, 0, 16, 0]
            #expect(Self.write(header + packet + payload, to: tun) == .written)
            var segments: [[UInt8]] = []
            while segments.count < 3 {
                segments.append(try #require(Self.read(plain) { $0[0] == 0x45 && $0[9] == 6 }))
            }
            #expect(segments.map(\.count) == [1040, 1040, 540])
            #expect(segments.flatMap { $0[40...] } == payload)
            let sequence = segments.map { Array($0[24..<28]) }
            #expect(sequence == [[0, 0, 0, 1], [0, 0, 0x03, 0xe9], [0, 0, 0x07, 0xd1]])
        }
    }

    @Test func `a device that is down refuses packets and comes back`() throws {
        try inNamespace {
            let tun = try TunDevice.open(name: "linuxio0")
            try shell("ip addr add 10.9.0.1/24 dev linuxio0")
            let header = [UInt8](repeating: 0, count: TunDevice.headerSize)
            #expect(Self.write(header + Self.echo, to: tun) == .down)
            var buffer = [UInt8](repeating: 0, count: 2000)
            let result = unsafe buffer.withUnsafeMutableBytes { unsafe tun.read(into: $0) }
            #expect(result == .empty)
            #expect(tun.presence == .here)
            try shell("ip link set linuxio0 up")
            Self.expectEcho(through: tun)
        }
    }

    @Test func `deletion is told by every call, and wakes who waits`() throws {
        try inNamespace {
            let tun = try TunDevice.open(name: "linuxio0")
            try shell("ip link set linuxio0 up; sleep 0.2; ip link del linuxio0")
            var poll = PollSet(tun.fd)
            #expect(poll.wait(timeout: .seconds(5)) == 1)
            var buffer = [UInt8](repeating: 0, count: 2000)
            let result = unsafe buffer.withUnsafeMutableBytes { unsafe tun.read(into: $0) }
            #expect(result == .deleted)
            #expect(Self.write([UInt8](repeating: 0, count: 10) + Self.echo, to: tun) == .deleted)
            #expect(tun.presence == .deleted)
            #expect(tun.name == "linuxio0")
        }
    }

    @Test func `a device moved to another namespace works on, under another name too`() throws {
        let name = "linuxio-\(getpid())-moved"
        try shell("ip netns add \(name)")
        defer { try? shell("ip netns del \(name)") }
        try inNamespace {
            var monitor = try NetlinkMonitor()
            let tun = try TunDevice.open(name: "linuxio0")
            try shell("ip link set linuxio0 netns \(name)")
            var poll = PollSet(monitor.fd)
            var events: [NetlinkEvent] = []
            while poll.wait(timeout: .milliseconds(300)) > 0 { events += try monitor.next() }
            #expect(
                events.contains(.linkRemoved(index: tun.index, name: "linuxio0")),
                "netlink reports a deletion")
            #expect(tun.presence == .elsewhere)
            try shell("ip -n \(name) link set linuxio0 name moved0")
            #expect(tun.name == "moved0")
            try shell("ip -n \(name) addr add 10.9.0.1/24 dev moved0; ip -n \(name) link set moved0 up")
            Self.expectEcho(through: tun)
            try shell("ip -n \(name) link del moved0")
            #expect(tun.presence == .deleted)
        }
    }

    @Test func `a name in use or no name is refused`() throws {
        try inNamespace {
            let tun = try TunDevice.open(name: "linuxio0")
            let second = systemError { () throws(SystemError) in _ = try TunDevice.open(name: "linuxio0") }
            #expect(second == SystemError(call: "make TUN device linuxio0", code: EBUSY))
            for name in ["", "a/b", "sixteen-bytes-ab"] {
                #expect(
                    systemError { () throws(SystemError) in _ = try TunDevice.open(name: name) }?.code
                        == EINVAL)
            }
            #expect(tun.presence == .here)
        }
    }

    @Test func `a descriptor from another program is adopted as it is`() throws {
        try inNamespace {
            for offload in [true, false] {
                let name = offload ? "linuxio0" : "linuxio1"
                let tun = try TunDevice.open(name: name, offload: offload)
                let adopted = try TunDevice.adopt(fd: dup(tun.fd))
                #expect(adopted.name == name)
                #expect(adopted.offloads == tun.offloads)
            }
            #expect(systemError { () throws(SystemError) in _ = try TunDevice.adopt(fd: dup(0)) } != nil)
        }
    }

    @Test func `several queues share a device`() throws {
        try inNamespace {
            let first = try TunDevice.open(name: "linuxio0", multiQueue: true)
            let second = try TunDevice.open(name: "linuxio0", multiQueue: true)
            #expect(first.index == second.index)
        }
    }
}
