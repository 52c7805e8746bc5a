package import WireGuard

/// The real data path of one worker, with arrays in place of TUN and sockets.
package final class SimulatedDatapath {
    package let keypairs: KeypairTable
    package let drops: DropCounters
    package var table = ForwardingTable.empty
    private let outboundEvents = EventRing(capacity: 1 << 17)
    private let inboundEvents = EventRing(capacity: 1 << 16)
    private var outbound: Outbound
    private var inbound: Inbound

    package init(keypairs capacity: Int, drops: DropCounters) {
        keypairs = KeypairTable(capacity: capacity)
        self.drops = drops
        outbound = Outbound(events: outboundEvents, drops: drops)
        inbound = Inbound(
            keypairs: keypairs, events: inboundEvents, drops: drops, vnetHeader: true, tcpOffload: false,
            udpOffload: false)
    }

    /// From the TUN. `put` gets each datagram for the network.
    package func send(_ packets: [[UInt8]], now: Instant, put: ([UInt8], UnderlayPath) -> Void) {
        outbound.begin(table: table, now: now)
        for packet in packets {
            var buffer = packet + [UInt8](repeating: 0, count: 16)
            unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe outbound.add(bytes.baseAddress!, count: packet.count, offload: VirtioNetHeader())
            }
        }
        for index in 0..<outbound.runCount {
            let run = outbound.run(index)
            let bytes = unsafe Array(outbound.bytes(of: run))
            for start in stride(from: 0, to: bytes.count, by: run.segmentSize) {
                put(Array(bytes[start..<min(start + run.segmentSize, bytes.count)]), run.underlay)
            }
        }
        outbound.sent()
        outbound.finish()
    }

    /// From the network. Returns the packets for the TUN; `put` gets the replies to probes.
    package func receive(
        _ datagram: [UInt8], from underlay: UnderlayPath, now: Instant, put: ([UInt8], UnderlayPath) -> Void
    ) -> [[UInt8]] {
        var delivered: [[UInt8]] = []
        inbound.begin(table: table, now: now)
        var buffer = datagram + [0]
        unsafe buffer.withUnsafeMutableBytes { bytes in
            unsafe inbound.add(
                bytes.baseAddress!, count: datagram.count, segmentSize: 0, from: underlay)
            while let slices = unsafe inbound.nextWrite() {
                var packet: [UInt8] = []
                for index in 0..<slices.count {
                    let slice = unsafe slices[index]
                    unsafe packet += UnsafeRawBufferPointer(start: slice.base, count: slice.count)
                }
                delivered.append(Array(packet.dropFirst(VirtioNetHeader.size)))
            }
        }
        inbound.written()
        for index in 0..<inbound.runCount {
            let run = inbound.run(index)
            put(unsafe Array(inbound.bytes(of: run)), run.underlay)
        }
        inbound.sent()
        inbound.finish()
        return delivered
    }

    /// What control must know, in the order in which it came.
    package func takeEvents() -> [DatapathEvent] {
        var events: [DatapathEvent] = []
        _ = inboundEvents.drain { events.append($0) }
        _ = outboundEvents.drain { events.append($0) }
        return events
    }
}
