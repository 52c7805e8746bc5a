internal import Glibc
package import WireGuard

extension WorkerSockets {
    /// Sends all runs of `outbound`, each by its own socket group. What cannot be sent is counted; nothing is
    /// final. A group whose queue is full is waited for a few times a batch (`beginBatch`), and then no more.
    @inline(__always)
    package mutating func send(from outbound: inout Outbound) {
        for index in 0..<outbound.runCount {
            let run = outbound.run(index)
            var waitsLeft = waitsLeft(of: run.underlay)
            let result = unsafe send(run, outbound.bytes(of: run), &waitsLeft, drops: outbound.drops)
            note(waitsLeft: waitsLeft, of: run.underlay)
            switch result {
            case .sent: outbound.runWasSent(run)
            case .failed(let code):
                outbound.runFailed(run, code, isCongestion: [EAGAIN, ENOBUFS, ENOMEM].contains(code))
            case .sourceInvalid: outbound.forgetSource(of: run)
            case .tooBig: outbound.runWasTooBig(run)
            }
        }
        outbound.sent()
    }

    /// Sends the answers to probes that `inbound` has made.
    package func send(from inbound: inout Inbound) {
        for index in 0..<inbound.runCount {
            let run = inbound.run(index)
            // This thread receives for everybody, and waits for nobody's full queue. An answer that is too big was
            // asked for in that size: it says nothing of what we send ourselves.
            var waitsLeft = 0
            let result = unsafe send(run, inbound.bytes(of: run), &waitsLeft, drops: inbound.drops)
            if result == .sourceInvalid { inbound.forgetSource(of: run) }
        }
        inbound.sent()
    }

    @inline(__always)
    private func send(
        _ run: SendRun, _ bytes: UnsafeRawBufferPointer, _ waitsLeft: inout Int, drops: DropCounters
    ) -> SendResult {
        guard let socket = socket(for: run.underlay), let base = bytes.baseAddress else {
            drops.add(.sendFailed, count: run.segments)
            return .failed(ENODEV)
        }
        let result =
            if run.mayFragment {
                unsafe socket.sendInFragments(
                    base, count: run.count, to: run.underlay, tos: run.tos,
                    waitsLeft: &waitsLeft)
            } else {
                unsafe socket.send(
                    base, count: run.count, segmentSize: run.segmentSize, to: run.underlay,
                    tos: run.tos, waitsLeft: &waitsLeft)
            }
        switch result {
        case .sent, .sourceInvalid: break
        case .tooBig: drops.add(.sendTooBig, count: run.segments)
        case .failed: drops.add(.sendFailed, count: run.segments)
        }
        return result
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
        unsafe inbound.add(
            base, count: datagram.count, segmentSize: segmentSize(i), from: underlay(i),
            tos: tos(i))
    }
}

extension UDPSocket {
    /// One datagram of control's own: a handshake, a keepalive, a packet that was staged. Control waits for no queue:
    /// its own one is never full but where nothing at all leaves the interface.
    package func send(_ datagram: [UInt8], to path: UnderlayPath, tos: UInt8) -> SendResult {
        unsafe datagram.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return .sent }
            var waitsLeft = 0
            return unsafe send(
                base, count: bytes.count, segmentSize: 0, to: path, tos: tos,
                waitsLeft: &waitsLeft)
        }
    }
}
