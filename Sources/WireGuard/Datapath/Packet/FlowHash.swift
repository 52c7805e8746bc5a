/// A number for the flow that a packet belongs to, the same for every packet of it: addresses and protocol, and
/// the ports of TCP and UDP where they can be seen. Of a fragment they cannot: all fragments of a host pair and
/// protocol are one flow.
///
/// Mixed by multiplying to 128 bits and folding, twice, so that neighbours among addresses and ports, which real
/// flows are, spread evenly.
enum FlowHash {
    // The first digits of pi, of e, and of the square roots of 2 and 3, odd.
    private static let pi: UInt64 = 0x243f_6a88_85a3_08d3
    private static let e: UInt64 = 0xb7e1_5162_8aed_2a6b
    private static let root2: UInt64 = 0x6a09_e667_f3bc_c909
    private static let root3: UInt64 = 0xbb67_ae85_84ca_a73b

    static func of(_ packet: borrowing IPPacket) -> UInt64 {
        var rest = UInt64(packet.transport) << 32
        if packet.transport == IPProtocol.tcp || packet.transport == IPProtocol.udp, !packet.isFragment,
            packet.bodyLength >= 4
        {
            // Both ports.
            rest |= UInt64(unsafe packet.body.bigEndian32(at: TCPField.sourcePort))
        }
        let bytes = unsafe packet.bytes + packet.offset(of: .source)
        let addresses: UInt64
        switch packet.family {
        case .v4: addresses = unsafe bytes.loadUnaligned(as: UInt64.self)
        case .v6:
            let source = unsafe mix(
                bytes.loadUnaligned(as: UInt64.self) ^ pi,
                bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self) ^ e)
            let destination = unsafe mix(
                bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self) ^ root2,
                bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self) ^ root3)
            addresses = source &+ destination
        }
        return mix(mix(addresses ^ pi, rest ^ e) ^ root2, root3)
    }

    @inline(__always)
    private static func mix(_ a: UInt64, _ b: UInt64) -> UInt64 {
        let product = a.multipliedFullWidth(by: b)
        return product.high ^ product.low
    }
}
