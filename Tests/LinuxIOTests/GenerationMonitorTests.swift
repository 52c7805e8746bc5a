import CLinux
import Glibc
import TestSupport
import Testing

@testable import LinuxIO

@Suite struct GenerationMonitorTests {
    @Test(
        "of uevents only that of a new generation ID counts",
        arguments: [
            (
                "change@/devices/LNXSYSTM:00/LNXSYBUS:00/VMGENCTR:00|ACTION=change|DEVPATH=/devices/VMGENCTR:00|SUBSYSTEM=acpi|NEW_VMGENID=1|SEQNUM=4711|",
                true
            ), ("change@/devices/virtual/mem/null|ACTION=change|SEQNUM=1|SYNTH_ARG_NEW_VMGENID=1|", false),
            ("add@NEW_VMGENID=1|ACTION=add|", false), ("NEW_VMGENID=1", false), ("", false), ("|||", false),
            ("change@/x|NEW_VMGENID=10|", false), ("change@/x|NEW_VMGENID=1", true),
        ])
    func parsing(text: String, isNew: Bool) {
        let message = text.utf8.map { $0 == UInt8(ascii: "|") ? 0 : $0 }
        #expect(GenerationMonitor.isNewGeneration(message) == isNew)
    }

    @Test("the kernel's other events are read and pass, and another process is not believed")
    func socket() throws {
        try inNamespace {
            let monitor = try GenerationMonitor()
            #expect(!monitor.next())
            var ready = PollSet(monitor.fd)
            try shell("ip link add vgwd0 type veth peer name vgwd1")
            #expect(ready.wait(timeout: .seconds(5)) == 1, "the kernel tells of the link")
            while ready.wait(timeout: .milliseconds(100)) > 0 { #expect(!monitor.next()) }

            try send("change@/x\0NEW_VMGENID=1\0")
            #expect(ready.wait(timeout: .seconds(5)) == 1, "the message has come")
            #expect(!monitor.next())
            #expect(ready.wait(timeout: .zero) == 0)
        }
    }

    @Test("where events were lost, that one may have been among them")
    func overflow() throws {
        try inNamespace {
            let monitor = try GenerationMonitor()
            try System.setOption(monitor.fd, SOL_SOCKET, SO_RCVBUF, 1, "SO_RCVBUF")
            for _ in 0..<64 { try send("change@/x\0" + String(repeating: "A=B\0", count: 200)) }
            #expect(monitor.next())
            #expect(!monitor.next())
        }
    }

    /// To all who listen for uevents in this namespace.
    private func send(_ text: String) throws {
        let socket = try System.socket(AF_NETLINK, SOCK_DGRAM, protocol: 15, "socket")
        // struct sockaddr_nl: family, padding, port ID, groups.
        var name: [UInt8] = [UInt8(AF_NETLINK), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
        let bytes = Array(text.utf8)
        let sent = unsafe name.withUnsafeMutableBytes { name in
            unsafe sendto(
                socket.rawValue, bytes, bytes.count, 0,
                name.baseAddress?.assumingMemoryBound(to: sockaddr.self),
                12)
        }
        guard sent == bytes.count || errno == ENOBUFS else {
            throw TestFailure(description: "no message sent: errno \(errno)")
        }
    }
}
