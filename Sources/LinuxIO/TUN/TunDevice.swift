internal import CLinux
internal import Glibc

/// A TUN device (layer 3, no packet information), attached through one descriptor; it goes with the last
/// reference.
///
/// With `offloads.vnetHeader` each packet, either way, has the 10 bytes of virtio_net_hdr before it.
///
/// Concurrency: any thread may call anything; by convention one reads and one writes. All state is constant:
/// the name and the namespace can change under us and are asked for each time.
package final class TunDevice: Sendable {
    package struct Offloads: Hashable, Sendable {
        package var vnetHeader: Bool
        package var tso: Bool
        package var uso: Bool

        package init(vnetHeader: Bool, tso: Bool, uso: Bool) {
            self.vnetHeader = vnetHeader
            self.tso = tso
            self.uso = uso
        }

        package static let none = Offloads(vnetHeader: false, tso: false, uso: false)
    }

    /// What became of the device, as seen from the calling thread's network namespace.
    package enum Presence: Hashable, Sendable {
        case here
        /// Moved to another network namespace, where it works on. Netlink here has reported RTM_DELLINK.
        case elsewhere
        case deleted
    }

    package enum ReadResult: Hashable, Sendable {
        /// Bytes of it, with its header.
        case packet(count: Int)
        /// EAGAIN: none waits.
        case empty
        /// EBADFD: the device was deleted.
        case deleted
        /// errno. The next one may be read.
        case failed(Int32)
    }

    package enum WriteResult: Hashable, Sendable {
        case written
        /// EIO: the interface is down. The packet is lost; the next may go through.
        case down
        /// EBADFD: the device was deleted.
        case deleted
        /// errno: EINVAL for a header or a packet that the kernel does not take, EAGAIN or ENOMEM for want of
        /// memory.
        case refused(Int32)
    }

    package static let headerSize = 10

    /// Packets that wait to be read: as many as Linux's own WireGuard holds for an interface (MAX_QUEUED_PACKETS). The
    /// kernel's usual 500 for a TUN device are fewer than the replies to one batch that was received.
    private static let queueLength = 1024

    private let descriptor: FileDescriptor
    package let offloads: Offloads
    /// In the namespace that the device was opened or adopted in; 0 if it was not there.
    package let index: UInt32
    private let nameAtStart: String

    package var fd: Int32 { descriptor.rawValue }

    private init(_ descriptor: consuming FileDescriptor, name: String, offloads: Offloads) {
        self.descriptor = descriptor
        self.offloads = offloads
        nameAtStart = name
        index = unsafe if_nametoindex(name)
    }

    /// Makes the device `name` (`%d` in it is replaced by a free number), or attaches to a persistent one.
    /// EBUSY when another process has it. `offload` false, or a kernel without offloads, gives a device
    /// without the header.
    package static func open(
        name: String, offload: Bool = true, multiQueue: Bool = false
    ) throws(SystemError) -> TunDevice {
        guard (1..<16).contains(name.utf8.count), !name.contains("/") else {
            throw SystemError(call: "make TUN device \(name)", code: EINVAL)
        }
        let plain = CL_IFF_TUN | CL_IFF_NO_PI | (multiQueue ? CL_IFF_MULTI_QUEUE : 0)
        let descriptor = try System.open("/dev/net/tun", O_RDWR | O_NONBLOCK)
        let fd = descriptor.rawValue
        if offload {
            do throws(SystemError) {
                let given = try System.attachTun(fd, name, flags: plain | CL_IFF_VNET_HDR)
                let offloads = try enableOffloads(fd)
                return TunDevice(descriptor, name: given, offloads: offloads).withLongQueue()
            } catch {
                guard error.code == EINVAL else { throw error }
            }
            // A kernel, or a persistent device, without the header.
            return try open(name: name, offload: false, multiQueue: multiQueue)
        }
        let given = try System.attachTun(fd, name, flags: plain)
        return TunDevice(descriptor, name: given, offloads: .none).withLongQueue()
    }

    /// Where it cannot be set, the device works with the usual one.
    private func withLongQueue() -> TunDevice {
        try? Netlink().setQueueLength(index, packets: Self.queueLength)
        return self
    }

    /// Takes over a descriptor that another program attached (WG_TUN_FD), with the header if it asked for
    /// one.
    package static func adopt(fd: Int32) throws(SystemError) -> TunDevice {
        let descriptor = FileDescriptor(owning: fd)
        let (name, flags) = try System.inspectTun(fd)
        guard flags & CL_IFF_TUN != 0, flags & CL_IFF_NO_PI != 0 else {
            throw SystemError(call: "adopt descriptor \(fd) as TUN without packet information", code: EINVAL)
        }
        try System.setNonblocking(fd)
        try System.setCloseOnExec(fd)
        let offloads = flags & CL_IFF_VNET_HDR != 0 ? try enableOffloads(fd) : .none
        return TunDevice(descriptor, name: name, offloads: offloads)
    }

    /// Tries what the kernel may have, most first. USO came with Linux 6.2, apart from the others.
    private static func enableOffloads(_ fd: Int32) throws(SystemError) -> Offloads {
        try System.setTunHeaderSize(fd, Int32(headerSize))
        let tso = UInt32(CL_TUN_F_CSUM | CL_TUN_F_TSO4 | CL_TUN_F_TSO6 | CL_TUN_F_TSO_ECN)
        guard System.setTunOffload(fd, tso) else { return Offloads(vnetHeader: true, tso: false, uso: false) }
        let uso = System.setTunOffload(fd, tso | UInt32(CL_TUN_F_USO4 | CL_TUN_F_USO6))
        return Offloads(vnetHeader: true, tso: true, uso: uso)
    }

    /// As the kernel has it now; the name at the start once the device is deleted.
    package var name: String { (try? System.inspectTun(fd))?.name ?? nameAtStart }

    /// Tells deletion from a move to another namespace: the descriptor stays with the device.
    package var presence: Presence {
        do throws(SystemError) {
            let name = try System.inspectTun(fd).name
            guard let device = System.tunNamespace(fd), let own = System.ownNamespace() else {
                // Before Linux 5.2 only the name and index here can tell.
                return unsafe if_nametoindex(name) == index ? .here : .elsewhere
            }
            return device == own ? .here : .elsewhere
        } catch {
            return .deleted
        }
    }

    /// One packet with its header, cut to the buffer: 65,536 bytes and the header are always enough. An interface that
    /// is down has no packets.
    package func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult {
        guard let base = buffer.baseAddress else { return .failed(EINVAL) }
        let result = unsafe System.read(descriptor.rawValue, base, buffer.count)
        if result >= 0 { return .packet(count: result) }
        switch Int32(truncatingIfNeeded: -result) {
        case EAGAIN: return .empty
        case EBADFD: return .deleted
        case let code:
            // It still polls as readable where memory is short.
            System.pause(milliseconds: 1)
            return .failed(code)
        }
    }

    /// One packet with its header, in slices: `slices` points at `count` pairs of address and length, laid out as struct
    /// iovec.
    package func write(_ slices: UnsafeRawPointer, count: Int) -> WriteResult {
        let result = unsafe System.writev(
            descriptor.rawValue, slices.assumingMemoryBound(to: iovec.self), count)
        if result >= 0 { return .written }
        switch Int32(truncatingIfNeeded: -result) {
        case EIO: return .down
        case EBADFD: return .deleted
        case let code: return .refused(code)
        }
    }
}
