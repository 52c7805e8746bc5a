/// `struct virtio_net_hdr` (linux/virtio_net.h): how a TUN device with IFF_VNET_HDR tells of superpackets and
/// unfinished checksums. Ten bytes, in the machine's byte order, before each packet.
package struct VirtioNetHeader: BitwiseCopyable, Sendable {
    package static let size = 10

    package enum Flag {
        /// The field at `checksumStart + checksumOffset` holds the pseudo-header sum; the rest is to be
        /// added.
        package static let needsChecksum: UInt8 = 1
        /// The checksum has been verified.
        package static let dataValid: UInt8 = 2
    }

    package enum Segmentation {
        package static let none: UInt8 = 0
        package static let tcp4: UInt8 = 1
        package static let tcp6: UInt8 = 4
        package static let udp: UInt8 = 5
        /// Or'ed in: TCP with ECN.
        package static let ecn: UInt8 = 0x80
    }

    package var flags: UInt8 = 0
    package var segmentation: UInt8 = Segmentation.none
    package var headerLength: UInt16 = 0
    /// Payload bytes of a segment.
    package var segmentSize: UInt16 = 0
    package var checksumStart: UInt16 = 0
    package var checksumOffset: UInt16 = 0

    /// A packet that is whole and finished.
    package init() {}

    package init(_ bytes: UnsafeRawPointer) {
        unsafe self = bytes.loadUnaligned(as: VirtioNetHeader.self)
    }
}

/// `struct iovec`, for a packet that is gathered where it lies.
@unsafe package struct PacketSlice: BitwiseCopyable {
    package var base: UnsafeMutableRawPointer?
    package var count: Int

    package init(base: UnsafeMutableRawPointer?, count: Int) {
        unsafe self.base = base
        unsafe self.count = count
    }
}
