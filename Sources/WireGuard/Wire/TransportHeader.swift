/// The clear start of a transport message (whitepaper, section 5.4.6): type, receiver's index, counter, all
/// little endian.
struct TransportHeader {
    let receiverIndex: UInt32
    let counter: UInt64

    @inline(__always)
    init(receiverIndex: UInt32, counter: UInt64) {
        self.receiverIndex = receiverIndex
        self.counter = counter
    }

    /// Reads 16 bytes; the caller has looked at the type.
    @inline(__always)
    init(_ message: UnsafeRawPointer) {
        receiverIndex = UInt32(littleEndian: unsafe message.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        counter = UInt64(littleEndian: unsafe message.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    }

    @inline(__always)
    func write(to output: UnsafeMutableRawPointer) {
        unsafe output.storeBytes(of: MessageType.transport.rawValue.littleEndian, as: UInt32.self)
        unsafe output.storeBytes(of: receiverIndex.littleEndian, toByteOffset: 4, as: UInt32.self)
        unsafe output.storeBytes(of: counter.littleEndian, toByteOffset: 8, as: UInt64.self)
    }
}
