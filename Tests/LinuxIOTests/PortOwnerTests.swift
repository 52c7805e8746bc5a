import Glibc
import TestSupport
import Testing
import WireGuard

@testable import LinuxIO

@Suite struct PortOwnerTests {
    /// As /proc/net/udp and udp6 have it.
    private static let table = """
          sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
          12: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0
         345: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 815 2 0000000000000000 0
          12: 00000000000000000000000000000000:CA6C 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4712 2 0000000000000000 0
          99: 00000000:CA6C
        """

    @Test(arguments: [(51820, [4711, 4712]), (53, [815]), (1, [])] as [(UInt16, [UInt64])])
    func `sockets are found by their local port, and half a line is none`(_ port: UInt16, _ inodes: [UInt64])
    {
        #expect(PortOwner.inodes(ofPort: port, in: Self.table) == inodes)
        #expect(PortOwner.inodes(ofPort: port, in: "").isEmpty)
    }

    @Test func `whoever has a port is named, but for this process itself`() throws {
        try inNamespace {
            let own = try UDPSocketGroup.bind(port: 5557, workers: 1, options: UDPSocketOptions())
            #expect(PortOwner.all(ofUDPPort: 5557).isEmpty)
            withExtendedLifetime(own) {}
            let other = try ChildProcess(
                ["/usr/bin/socat", "-u", "UDP4-RECV:5555", "STDOUT"], environment: [])
            defer {
                other.signal(.kill)
                _ = other.wait()
            }
            var owners: [PortOwner] = []
            for _ in 0..<500 where owners.isEmpty {
                usleep(10_000)
                owners = PortOwner.all(ofUDPPort: 5555)
            }
            #expect(owners.map(\.name) == ["socat"])
            #expect(PortOwner.all(ofUDPPort: 5556).isEmpty)
        }
    }
}
