/// Where random bytes come from: the kernel in the daemon, a seed in a simulation.
package protocol Entropy {
    mutating func fill(_ bytes: UnsafeMutableRawBufferPointer)
}

extension Entropy {
    package mutating func next<Value: FixedWidthInteger>(_: Value.Type = Value.self) -> Value {
        var value: Value = 0
        unsafe withUnsafeMutableBytes(of: &value) { bytes in unsafe fill(bytes) }
        return value
    }

    package mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        unsafe bytes.withUnsafeMutableBytes { buffer in unsafe fill(buffer) }
        return bytes
    }
}
