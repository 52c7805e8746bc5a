internal import CLinux

/// Instructions of a classic BPF program (Documentation/networking/filter.rst of Linux), which the kernel runs over each
/// packet for a socket. Loads are big endian; one past the end of the packet ends the program with 0.
extension cl_sock_filter {
    static func loadWord(at offset: UInt32) -> Self { step(0x20, offset) }  // BPF_LD | BPF_W | BPF_ABS
    static func loadHalf(at offset: UInt32) -> Self { step(0x28, offset) }  // BPF_LD | BPF_H | BPF_ABS
    static func loadByte(at offset: UInt32) -> Self { step(0x30, offset) }  // BPF_LD | BPF_B | BPF_ABS
    static func modulo(_ divisor: UInt32) -> Self { step(0x94, divisor) }  // BPF_ALU | BPF_MOD | BPF_K
    static func add(_ number: UInt32) -> Self { step(0x04, number) }  // BPF_ALU | BPF_ADD | BPF_K
    static var returnAccumulator: Self { step(0x16, 0) }  // BPF_RET | BPF_A
    static func `return`(_ number: UInt32) -> Self { step(0x06, number) }  // BPF_RET | BPF_K

    /// Compares what was loaded, and leaves out so many of the next instructions.
    static func compare(with number: UInt32, ifEqualSkip equal: UInt8 = 0, otherwiseSkip unequal: UInt8 = 0)
        -> Self
    {
        // BPF_JMP | BPF_JEQ | BPF_K
        cl_sock_filter(code: 0x15, jump_true: equal, jump_false: unequal, operand: number)
    }

    private static func step(_ code: UInt16, _ operand: UInt32) -> Self {
        cl_sock_filter(code: code, jump_true: 0, jump_false: 0, operand: operand)
    }
}
