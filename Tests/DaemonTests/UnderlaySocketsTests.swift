internal import GatewayCore
import Glibc
import LinuxIO
import TestSupport
import Testing
import WireGuard

@testable import Daemon

/// Real sockets, without the control loop.
@Suite struct UnderlaySocketsTests {
    /// As `ControlLoop.use` does it; the number of the generation stands for what the data threads do.
    private static func move(
        _ underlays: inout UnderlaySockets, to port: UInt16, mark: UInt32 = 0, generation: UInt64
    ) throws {
        var next = underlays
        try next.move(toPort: port, mark: mark)
        underlays.replace(by: next)
        underlays.keepLeaving(until: generation)
    }

    private static func isFree(_ port: UInt16) -> Bool {
        (try? UDPSocketGroup.bind(port: port, workers: 1)) != nil
    }

    @Test func `a port that was just left can be had again, whatever the data threads do`() throws {
        try inNamespace {
            try shell("ip link add near type veth peer name far; ip link set near up")
            let binding = UnderlayBinding(device: "near")
            var underlays = try UnderlaySockets(
                port: 1111, workers: 2, options: UDPSocketOptions(), bindings: [binding])
            let first = underlays.groups.sockets.map(\.fd)
            #expect(underlays.groups[1] != nil)
            try Self.move(&underlays, to: 2222, generation: 2)
            #expect(Set(underlays.groups.sockets.map(\.fd)).isDisjoint(with: first))
            #expect(!Self.isFree(1111))
            // No thread has gone over to the second port.
            underlays.letGo(upTo: 1)
            try Self.move(&underlays, to: 1111, generation: 3)
            #expect(underlays.port == 1111 && underlays.groups.sockets.map(\.fd) == first)
            #expect(!Self.isFree(2222))
            // One that took its time has.
            underlays.letGo(upTo: 2)
            #expect(!Self.isFree(2222) && !Self.isFree(1111))
            underlays.letGo(upTo: 3)
            #expect(eventually { Self.isFree(2222) })
            #expect(!Self.isFree(1111))
            #expect(underlays.groups.sockets.map(\.fd) == first)
        }
    }

    @Test func `what comes back has the mark and the DF of now`() throws {
        try inNamespace {
            var underlays = try UnderlaySockets(
                port: 1111, workers: 1, options: UDPSocketOptions(), bindings: [])
            try Self.move(&underlays, to: 2222, generation: 2)
            try underlays.setDontFragment(true, of: 0)
            try Self.move(&underlays, to: 1111, mark: 7, generation: 3)
            for socket in underlays.groups.sockets {
                #expect(Self.option(SOL_SOCKET, SO_MARK, of: socket.fd) == 7)
                // IP_MTU_DISCOVER and IPV6_MTU_DISCOVER; both have 3 for PROBE.
                let (level, option) = socket.family == .v4 ? (IPPROTO_IP, 10) : (IPPROTO_IPV6, 23)
                #expect(Self.option(Int32(level), Int32(option), of: socket.fd) == 3)
            }
        }
    }

    private static func option(_ level: Int32, _ option: Int32, of fd: Int32) -> Int32? {
        var value: Int32 = -1
        var size = socklen_t(MemoryLayout<Int32>.size)
        let code = unsafe getsockopt(fd, level, option, &value, &size)
        return code == 0 ? value : nil
    }
}
