package import WireGuard

/// Memory for one packet as a TUN gives it, virtio header included.
///
/// Owned by the thread that reads.
@safe package struct TunBuffer: ~Copyable {
    let bytes: UnsafeMutableRawBufferPointer

    package init() {
        unsafe bytes = .allocate(byteCount: TunDevice.headerSize + Outbound.packetCapacity, alignment: 16)
    }

    deinit { unsafe bytes.deallocate() }
}

extension TunDevice {
    package enum ReadOutcome: Hashable, Sendable {
        case packet
        /// Nothing waits, or it could not be read.
        case empty
        case deleted
    }

    /// Moves one packet from the device through `outbound`, and what `outbound` has to answer back to the
    /// device.
    @inline(__always)
    package func read(into outbound: inout Outbound, by buffer: borrowing TunBuffer) -> ReadOutcome {
        guard let base = unsafe buffer.bytes.baseAddress else { return .empty }
        // The slack behind the packet is not the kernel's to fill.
        let readable = unsafe UnsafeMutableRawBufferPointer(
            rebasing: buffer.bytes[..<(Self.headerSize + 65_536)])
        let count = unsafe read(into: readable)
        guard count > (offloads.vnetHeader ? Self.headerSize : 0) else {
            return noPacket(count, &outbound)
        }
        if offloads.vnetHeader {
            unsafe outbound.add(
                base + Self.headerSize, count: count - Self.headerSize, offload: VirtioNetHeader(base))
        } else {
            unsafe outbound.add(base, count: count, offload: VirtioNetHeader())
        }
        if let reply = unsafe outbound.reply { unsafe answer(reply) }
        return .packet
    }

    /// The result of a read that brought nothing to send.
    @inline(never)
    private func noPacket(_ result: Int, _ outbound: inout Outbound) -> ReadOutcome {
        if Self.meansEmpty(result) { return .empty }
        if Self.meansDeleted(result) { return .deleted }
        guard result < 0 else {
            outbound.drops.add(.outboundMalformed)
            return .packet
        }
        outbound.drops.add(.tunReadFailed)
        // It still polls as readable where memory is short.
        System.pause(milliseconds: 1)
        return .empty
    }

    private func answer(_ reply: UnsafeRawBufferPointer) {
        var header = VirtioNetHeader()
        unsafe withUnsafeMutableBytes(of: &header) { header in
            let packet = unsafe PacketSlice(
                base: UnsafeMutableRawPointer(mutating: reply.baseAddress), count: reply.count)
            let slices = unsafe [PacketSlice(base: header.baseAddress, count: Self.headerSize), packet]
            unsafe slices.withUnsafeBytes { slices in
                guard let base = slices.baseAddress else { return }
                let skipped = offloads.vnetHeader ? 0 : 1
                _ = unsafe write(base + skipped * MemoryLayout<PacketSlice>.stride, count: 2 - skipped)
            }
        }
    }

    /// Moves one message through `inbound` to the device. False once the device is deleted.
    package func write(
        _ message: [UInt8], from underlay: UnderlayPath, tos: UInt8, through inbound: inout Inbound
    ) -> Bool {
        var message = message
        return unsafe message.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return true }
            unsafe inbound.add(
                base, count: bytes.count, segmentSize: 0, from: underlay, tos: tos)
            return write(from: &inbound)
        }
    }

    /// Writes all that `inbound` has for the device. False once the device is deleted.
    @inline(__always)
    package func write(from inbound: inout Inbound) -> Bool {
        var isPresent = true
        while let slices = unsafe inbound.nextWrite() {
            guard let base = slices.baseAddress else { continue }
            switch unsafe write(UnsafeRawPointer(base), count: slices.count) {
            case .written: break
            case .down, .refused: inbound.drops.add(.tunWriteFailed)
            case .deleted:
                inbound.drops.add(.tunWriteFailed)
                isPresent = false
            }
        }
        inbound.written()
        return isPresent
    }
}
