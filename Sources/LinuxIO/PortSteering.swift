internal import CLinux
internal import WireGuard

/// Which of the sockets that share a port gets a datagram: a classic BPF program over its payload
/// (Documentation/networking/filter.rst of Linux; SO_ATTACH_REUSEPORT_CBPF).
///
/// Socket 0 gets everything but transport data, sockets 1 to `workers` the data of their peers: the program
/// computes `KeypairTable.worker(ofIndex:among:)` from the lowest byte of the receiver index.
package struct PortSteering: Hashable, Sendable {
    private let workers: Int

    package init(workers: Int) {
        precondition((1...KeypairTable.workerLimit).contains(workers))
        self.workers = workers
    }

    private enum Code {
        static let loadWord: UInt16 = 0x20  // BPF_LD | BPF_W | BPF_ABS
        static let loadByte: UInt16 = 0x30  // BPF_LD | BPF_B | BPF_ABS
        static let jumpIfEqual: UInt16 = 0x15  // BPF_JMP | BPF_JEQ | BPF_K
        static let modulo: UInt16 = 0x94  // BPF_ALU | BPF_MOD | BPF_K
        static let add: UInt16 = 0x04  // BPF_ALU | BPF_ADD | BPF_K
        static let returnAccumulator: UInt16 = 0x16  // BPF_RET | BPF_A
        static let returnConstant: UInt16 = 0x06  // BPF_RET | BPF_K
    }

    /// A load past the end of the datagram ends the program with 0.
    var program: [cl_sock_filter] {
        func step(_ code: UInt16, _ operand: UInt32, otherwiseSkip: UInt8 = 0) -> cl_sock_filter {
            cl_sock_filter(code: code, jump_true: 0, jump_false: otherwiseSkip, operand: operand)
        }
        // Loads are big endian, and the type is little endian.
        let transport = MessageType.transport.rawValue.byteSwapped
        return [
            step(Code.loadWord, 0),
            step(Code.jumpIfEqual, transport, otherwiseSkip: 4),
            step(Code.loadByte, 4),
            step(Code.modulo, UInt32(workers)),
            step(Code.add, 1),
            step(Code.returnAccumulator, 0),
            step(Code.returnConstant, 0),
        ]
    }
}
