package import WireGuard

extension UDPSocketPair {
    /// Sends all runs of `outbound`. What cannot be sent is counted; nothing is final.
    @inline(__always)
    package func send(from outbound: inout Outbound) {
        for index in 0..<outbound.runCount {
            let run = outbound.run(index)
            guard let socket = socket(for: run.underlay.endpoint.address.family),
                let base = unsafe outbound.bytes(of: run).baseAddress
            else {
                outbound.drops.add(.sendFailed, count: run.segments)
                continue
            }
            let result = unsafe socket.send(
                base, count: run.count, segmentSize: run.segmentSize, to: run.underlay, trafficClass: 0)
            switch result {
            case .sent: break
            case .sourceInvalid: outbound.forgetSource(of: run)
            case .tooBig: outbound.drops.add(.sendTooBig, count: run.segments)
            case .failed: outbound.drops.add(.sendFailed, count: run.segments)
            }
        }
        outbound.sent()
    }
}

extension DatagramReceiver {
    /// Hands datagram `i` of the last batch on.
    @inline(__always)
    package func deliver(_ i: Int, to inbound: inout Inbound) {
        guard !isTruncated(i) else {
            inbound.drops.add(.datagramOversized)
            return
        }
        let datagram = unsafe bytes(i)
        guard let base = datagram.baseAddress else { return }
        unsafe inbound.add(base, count: datagram.count, segmentSize: segmentSize(i), from: underlay(i))
    }
}

extension UDPSocket {
    /// One datagram of control's own: a handshake, a keepalive, a packet that was staged.
    package func send(_ datagram: [UInt8], to path: UnderlayPath, trafficClass: UInt8) -> SendResult {
        unsafe datagram.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return .sent }
            return unsafe send(base, count: bytes.count, segmentSize: 0, to: path, trafficClass: trafficClass)
        }
    }
}
