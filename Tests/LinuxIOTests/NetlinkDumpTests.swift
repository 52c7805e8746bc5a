import Glibc
import TestSupport
import Testing

@testable import LinuxIO

@Suite struct NetlinkDumpTests {
    /// The kernel begins a dump of a link that is not there, and ends it with ENODEV.
    @Test func `a dump that the kernel breaks off is an error, and not the end of a whole one`() throws {
        try inNamespace {
            let socket = try NetlinkSocket()
            func dump(addressesOf link: UInt8) throws(SystemError) -> Int {
                // RTM_GETADDR with NLM_F_REQUEST and NLM_F_DUMP, and a struct ifaddrmsg.
                let message = try NetlinkMessage(type: 22, flags: 0x301, header: [0, 0, 0, 0, link, 0, 0, 0])
                var count = 0
                try unsafe socket.query("list addresses", message, isDump: true) { _ in count += 1 }
                return count
            }
            let gone = systemError { () throws(SystemError) in _ = try dump(addressesOf: 99) }
            #expect(gone?.code == ENODEV)
            // The next one is as good as ever.
            #expect(try dump(addressesOf: 1) > 0)
        }
    }

    @Test func `a link that is gone has no address, and routes through it cannot be told`() throws {
        try inNamespace {
            let netlink = try Netlink()
            #expect(try netlink.addresses(of: 99) == [])
            let error = systemError { () throws(SystemError) in _ = try netlink.routes(through: 99) }
            #expect(error?.code == ENODEV)
        }
    }
}
