internal import CLinux
internal import WireGuard

/// Which of the sockets that share a port gets a datagram: a classic BPF program over its payload
/// (SO_ATTACH_REUSEPORT_CBPF).
///
/// Socket 0 gets everything but transport data, sockets 1 to `workers` the data of their peers: the program
/// computes `KeypairTable.worker(ofIndex:among:)` from the lowest byte of the receiver index.
package struct PortSteering: Hashable, Sendable {
    private let workers: Int

    package init(workers: Int) {
        precondition((1...KeypairTable.workerLimit).contains(workers))
        self.workers = workers
    }

    var program: [cl_sock_filter] {
        // The type is little endian.
        [
            .loadWord(at: 0),
            .compare(with: MessageType.transport.rawValue.byteSwapped, otherwiseSkip: 4),
            .loadByte(at: 4),
            .modulo(UInt32(workers)),
            .add(1),
            .returnAccumulator,
            .return(0),
        ]
    }
}
