internal import CLinux
internal import WireGuard

/// Random bytes of the kernel (getrandom), which waits for its pool at boot.
package struct SystemEntropy: Entropy, Sendable {
    package init() {}

    /// Traps when the kernel refuses: keys without randomness would break every promise silently.
    package mutating func fill(_ bytes: UnsafeMutableRawBufferPointer) {
        var offset = 0
        while offset < bytes.count {
            let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[offset...])
            let count = System.attempt { unsafe cl_random(rest.baseAddress, rest.count) }
            precondition(count > 0, "getrandom failed")
            offset += count
        }
    }
}
