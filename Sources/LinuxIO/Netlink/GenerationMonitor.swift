internal import CLinux
internal import Glibc

/// Tells when this virtual machine goes on from a snapshot, or as a clone of another. The hypervisor then changes the
/// machine's generation ID, and the kernel's vmgenid driver sends a uevent of it.
///
/// Concurrency: immutable; one thread reads.
package final class GenerationMonitor: Sendable {
    /// NETLINK_KOBJECT_UEVENT of linux/netlink.h.
    private static let kobjectUevent: Int32 = 15
    /// Messages of one call.
    private static let readLimit = 64

    private let descriptor: FileDescriptor

    package var fd: Int32 { descriptor.rawValue }

    package init() throws(SystemError) {
        let descriptor = try System.socket(
            AF_NETLINK, SOCK_RAW, protocol: Self.kobjectUevent, "open netlink socket for uevents")
        try System.bindNetlink(descriptor.rawValue, groups: 1, "subscribe to uevents")
        self.descriptor = descriptor
    }

    /// Returns true if the kernel has told of a new generation since the last call, or if events were lost: that one may
    /// have been among them. Reads a bounded number; the descriptor stays readable while there are more.
    package func next() -> Bool {
        var isNew = false
        for _ in 0..<Self.readLimit {
            switch System.receiveNetlink(fd) {
            case .message(let bytes, let sender):
                // Another process may send to the group too: it has a number of its own.
                if sender == 0, Self.isNewGeneration(bytes) { isNew = true }
            case .overflow: isNew = true
            case .nothing: return isNew
            }
        }
        return isNew
    }

    /// `message` is "ACTION@DEVPATH", then KEY=VALUE texts, each ended by a zero.
    static func isNewGeneration(_ message: [UInt8]) -> Bool {
        message.split(separator: 0).dropFirst().contains { $0.elementsEqual("NEW_VMGENID=1".utf8) }
    }
}
