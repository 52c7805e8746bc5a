internal import CLinux
internal import Glibc
internal import WireGuard

/// Socket addresses and packet information, written to and read from raw memory: sockaddr_in, sockaddr_in6,
/// in_pktinfo and in6_pktinfo, at the offsets that CLinux.c asserts.
enum DatagramAddress {
    /// Bytes of sockaddr_in6, rounded up.
    static let capacity = 32

    /// Writes `capacity` bytes at most; returns the length that the kernel wants, which depends on the
    /// family.
    @inline(__always)
    static func write(_ endpoint: Endpoint, to memory: UnsafeMutableRawPointer) -> Int {
        let bits = endpoint.address.bits
        unsafe memory.storeBytes(of: endpoint.port.bigEndian, toByteOffset: 2, as: UInt16.self)
        switch endpoint.address.family {
        case .v4:
            unsafe memory.storeBytes(of: UInt16(AF_INET), as: UInt16.self)
            unsafe memory.storeBytes(
                of: UInt32(truncatingIfNeeded: bits).bigEndian, toByteOffset: 4, as: UInt32.self)
            unsafe memory.storeBytes(of: 0, toByteOffset: 8, as: UInt64.self)
            return 16
        case .v6:
            unsafe memory.storeBytes(of: UInt16(AF_INET6), as: UInt16.self)
            unsafe memory.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
            unsafe memory.storeBytes(of: bits.bigEndian, toByteOffset: 8, as: UInt128.self)
            unsafe memory.storeBytes(of: endpoint.scope, toByteOffset: 24, as: UInt32.self)
            return 28
        }
    }

    @inline(__always)
    static func read(_ memory: UnsafeRawPointer) -> Endpoint {
        let port = unsafe UInt16(bigEndian: memory.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
        if unsafe memory.loadUnaligned(as: UInt16.self) == UInt16(AF_INET6) {
            let bits = unsafe UInt128(bigEndian: memory.loadUnaligned(fromByteOffset: 8, as: UInt128.self))
            let scope = unsafe memory.loadUnaligned(fromByteOffset: 24, as: UInt32.self)
            return Endpoint(address: IPAddress(v6: bits), port: port, scope: scope)
        }
        let bits = unsafe UInt32(bigEndian: memory.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        return Endpoint(address: IPAddress(v4: bits), port: port)
    }

    /// Appends the control message that sends from `source`; returns the offset after it.
    ///
    /// The interface is named only for a link-local source. Elsewhere naming it would override the routing
    /// table: when the route has moved, IPv4 would take the far end to be on the old link and ask for it
    /// there by ARP.
    @inline(__always)
    static func putSource(_ source: LocalSource, into control: UnsafeMutableRawPointer, at offset: Int) -> Int
    {
        let interface = source.address.family == .v6 && source.address.isLinkLocal ? source.interface : 0
        switch source.address.family {
        case .v4:
            let bits = UInt32(truncatingIfNeeded: source.address.bits).bigEndian
            return unsafe withUnsafeBytes(of: (interface, bits, UInt32(0))) { info in
                unsafe cl_control_put(control, offset, Int32(IPPROTO_IP), CL_IP_PKTINFO, info.baseAddress, 12)
            }
        case .v6:
            let bits = source.address.bits
            let words = (
                UInt64(truncatingIfNeeded: bits >> 64).bigEndian, UInt64(truncatingIfNeeded: bits).bigEndian,
                interface
            )
            return unsafe withUnsafeBytes(of: words) { info in
                unsafe cl_control_put(
                    control, offset, Int32(IPPROTO_IPV6), CL_IPV6_PKTINFO, info.baseAddress, 20)
            }
        }
    }

    @inline(__always)
    static func readSourceV4(_ info: UnsafeRawPointer) -> LocalSource {
        unsafe LocalSource(
            address: IPAddress(v4: UInt32(bigEndian: info.loadUnaligned(fromByteOffset: 4, as: UInt32.self))),
            interface: info.loadUnaligned(as: UInt32.self))
    }

    @inline(__always)
    static func readSourceV6(_ info: UnsafeRawPointer) -> LocalSource {
        unsafe LocalSource(
            address: IPAddress(v6: UInt128(bigEndian: info.loadUnaligned(as: UInt128.self))),
            interface: info.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
    }
}
